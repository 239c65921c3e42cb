"""Chosen and rejected answers in the forms that preference data has: strings, lists of strings, or conversations."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from blender_hf.inputs import Prompt
from blender_hf.modeling.conversations import is_conversation, plain_values, render_answer

# The turns of a dialogue of HH-RLHF, in one string; copies of it have lost the line breaks at the start.
TURN = re.compile(r"(?:\A|\n\n)(Human|Assistant):[ ]?")
# How an answer begins in the texts of chat templates, and in a prompt of a few examples.
ANSWER_MARK = re.compile(
    r"<\|im_start\|>assistant\n?|<\|start_header_id\|>assistant<\|end_header_id\|>\n*|<start_of_turn>model\n?"
    r"|<\|(?:assistant|Assistant)\|>\n?|\[/INST\]|### (?:Response|Assistant):\n?"
    r"|(?<![^\n])(?:Assistant|ASSISTANT|Answer|A):[ ]?"
)
ROLES = {"Human": "user", "Assistant": "assistant"}

Answer = str | list[dict[str, Any]]


@dataclass(frozen=True)
class Completions:
    """A prompt with its chosen and rejected answers, each a string or chat messages."""

    prompt: Prompt
    chosen: tuple[Answer, ...]
    rejected: tuple[Answer, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts of the chosen answers, then of the rejected ones."""
        answers = (*self.chosen, *self.rejected)
        return tuple(answer if isinstance(answer, str) else render_answer(answer) for answer in answers)


def completions(prompt: Any, chosen: Any, rejected: Any) -> Completions:
    """Return the prompt and the answers of a preference.

    Args:
        prompt: A string, chat messages, or None where the prompt is the common prefix of chosen and rejected.
        chosen: A string, a list of strings (RewardBench 2), or chat messages: the answer, or the whole conversation;
            one message may stand alone.
        rejected: The same.

    Raises:
        ValueError: If nothing was chosen or nothing rejected, or one is a conversation and the other is not.
    """
    prompt, chosen, rejected = (
        [value] if isinstance(value, Mapping) else value for value in map(plain_values, (prompt, chosen, rejected))
    )
    if not chosen or not rejected:
        raise ValueError("chosen or rejected is empty")
    if is_conversation(chosen) != is_conversation(rejected):
        chosen, rejected = _as_message(chosen, rejected), _as_message(rejected, chosen)
    if is_conversation(chosen):
        return _of_conversations(prompt, chosen, rejected)
    if prompt is None:
        return _of_texts(chosen, rejected)
    return Completions(prompt, *((side,) if isinstance(side, str) else tuple(side) for side in (chosen, rejected)))


def _as_message(answer: Any, other: Any) -> Any:
    """Return a text as a message where the other answer is messages, such as tool calls, and no whole conversation."""
    if is_conversation(answer):
        return answer
    if not isinstance(answer, str) or any(turn.get("role") == "user" for turn in other):
        raise ValueError(
            "one of chosen and rejected is a whole conversation and the other is not; give both, or their last messages"
        )
    return [{"role": "assistant", "content": answer}]


def _of_conversations(prompt: Any, chosen: Any, rejected: Any) -> Completions:
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    return Completions(_prompt_with(prompt, list(chosen[:shared])), (chosen[shared:],), (rejected[shared:],))


def _prompt_with(prompt: Any, shared: list[Mapping[str, Any]]) -> Any:
    """Return a stated prompt together with the turns that both conversations begin with.

    Some datasets have a prompt beside whole conversations, which hold it; in others the conversations go on from it.
    """
    if not prompt or not shared:
        return prompt or shared
    stated = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    if list(map(_turn, shared[: len(stated)])) == list(map(_turn, stated)):
        return shared
    before, after = stated[-1].get("role"), shared[0].get("role")
    goes_on = after == "assistant" or (after == "user" and before != "user")
    return [*stated, *shared] if goes_on else shared


def _turn(message: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(message.get(key) or None for key in ("role", "content", "tool_calls", "tool_call_id"))


def _of_texts(chosen: str, rejected: str) -> Completions:
    n = next(
        (n for n, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), min(len(chosen), len(rejected))
    )
    shared = chosen[:n]
    turns = list(TURN.finditer(shared))
    if turns:
        end = turns[-1].end()
        return Completions(_messages(shared[:end]), (chosen[end:].strip(),), (rejected[end:].strip(),))
    marks = list(ANSWER_MARK.finditer(shared))
    # As in TRL, where an answer may go on in mid-sentence; a word that both begin alike stays whole.
    end = marks[-1].end() if marks else max(shared.rfind(" "), shared.rfind("\n")) + 1
    return Completions(shared[:end].rstrip(), (chosen[end:],), (rejected[end:],))


def _messages(text: str) -> list[dict[str, str]]:
    """Return the turns of a dialogue before the answer."""
    parts = TURN.split(text)[1:]
    turns = [{"role": ROLES[who], "content": said.strip()} for who, said in zip(parts[::2], parts[1::2], strict=True)]
    return turns[:-1]
