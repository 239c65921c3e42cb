"""The forms in which judges write a verdict, and the logit of each; nothing is guessed."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from blender_hf.generation.verdicts import CHOICES, parse_verdict

from .questions import Question

# The logit of a plain verdict. `calibrate` fits the temperature that makes a probability of it.
DECIDED = 2.0
# A is better, B is better, or neither.
PLAIN = {"A": DECIDED, "B": -DECIDED, "C": 0.0, "tie": 0.0}
# The middle of GenRM's ranking, 1 (the first is much better) to 6 (the second is).
MIDDLE = 3.5


@dataclass(frozen=True)
class VerdictFormat:
    """One form of a verdict.

    Args:
        closing: How the model is told to reply; a model that was trained to may ignore it.
        read: Returns the logit that a reply says, or None if it has no verdict, or several that disagree.
        roles: The roles of the two answers, where they are messages of their own behind the conversation.
    """

    closing: str
    read: Callable[[str], float | None]
    roles: tuple[str, str] | None = None

    def chat(self, question: Question) -> list[Any]:
        """Return the conversation that asks for a verdict."""
        if self.roles is None:
            return question.chat(self.closing)
        answers = zip(self.roles, question.answers, strict=True)
        principle = [] if question.criterion is None else [{"role": "principle", "content": question.criterion}]
        return [*question.messages, *({"role": role, "content": text} for role, text in answers), *principle]


def _by_pattern(pattern: str, logits: Mapping[str, float] = PLAIN) -> Callable[[str], float | None]:
    """Return a reader of what a pattern captures; if it is found several times, all must be the same."""
    compiled = re.compile(pattern, re.IGNORECASE)
    known = {word.casefold(): logit for word, logit in logits.items()}

    def read(reply: str) -> float | None:
        found = {known.get(verdict.replace(" ", "").casefold()) for verdict in compiled.findall(reply)}
        return found.pop() if len(found) == 1 else None

    return read


def _of_ranking(reply: str) -> float | None:
    """Read GenRM's JSON, the last object of a reply: {"score_1", "score_2", "ranking": 1 to 6}."""
    start = reply.rfind("{")
    try:
        found, _ = json.JSONDecoder().raw_decode(reply[max(start, 0) :])
        ranking = float(found["ranking"])
    except (TypeError, ValueError, KeyError):
        return None
    return MIDDLE - ranking if 1 <= ranking <= 6 else None


def _of_four(reply: str) -> float | None:
    verdict = parse_verdict(reply)
    return None if verdict is None else {"A is better": DECIDED, "B is better": -DECIDED}.get(verdict, 0.0)


VERDICT_FORMATS: dict[str, VerdictFormat] = {
    # MT-Bench, RISE
    "brackets": VerdictFormat(
        "End your reply with your verdict: [[A]] if answer A is better, [[B]] if answer B is better, [[C]] for a tie.",
        _by_pattern(r"\[\[\s*(A|B|C|tie)\s*\]\]"),
    ),
    # Arena-Hard
    "degrees": VerdictFormat(
        "End your reply with your verdict: [[A>>B]], [[A>B]], [[A=B]], [[B>A]] or [[B>>A]].",
        _by_pattern(
            r"\[\[\s*([AB]\s*(?:>>?|=)\s*[AB])\s*\]\]",
            {"A>>B": DECIDED, "A>B": DECIDED / 2, "A=B": 0.0, "B=A": 0.0, "B>A": -DECIDED / 2, "B>>A": -DECIDED},
        ),
    ),
    # Prometheus 2 and Selene
    "result": VerdictFormat(
        "End your reply with [RESULT] A if answer A is better, or [RESULT] B if answer B is better.",
        _by_pattern(r"(?:\[RESULT\]|\*\*Result:\*\*)\s*\**([AB])\b", PLAIN),
    ),
    # RM-R1
    "answer": VerdictFormat(
        "End your reply with <answer>[[A]]</answer> if answer A is better, or <answer>[[B]]</answer> if answer B is.",
        _by_pattern(r"<answer>\s*\[\[\s*(A|B)\s*\]\]\s*</answer>"),
    ),
    # OpenJudge
    "better": VerdictFormat(
        "End your reply with <better>A</better>, <better>B</better> or <better>tie</better>.",
        _by_pattern(r"<better>\s*(A|B|tie)\s*</better>"),
    ),
    # OffsetBias
    "output": VerdictFormat(
        "Reply with Output (a) if answer A is better, or Output (b) if answer B is better.",
        _by_pattern(r"Output \(([ab])\)"),
    ),
    # nvidia/Qwen3-Nemotron-235B-A22B-GenRM
    "genrm": VerdictFormat("", _of_ranking, ("response_1", "response_2")),
    # MixInstruct, as in `blender-hf annotate`
    "mixinstruct": VerdictFormat(CHOICES, _of_four),
}
