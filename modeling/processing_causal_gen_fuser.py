"""Processor of fusers that are causal language models: the candidates stand in the user's last message.

    {the user's last message}

    ### Candidate 1
    {c1}
    ### Candidate 2
    {c2}
    ### Task
    Write one best answer to the request ...

The conversation, with its system message and its earlier turns, goes through the tokenizer's chat template. Without one
it is its text, and a line `Answer:` stands at the end of a single message.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from transformers import BatchEncoding, PretrainedConfig
from transformers.utils import CONFIG_NAME, PROCESSOR_NAME

from .chat_templates import ChatTemplate, PromptEncoder, end_of_answer
from .configuration_gen_fuser import is_causal_type
from .configurations import load_config
from .conversations import Message, as_messages, turns
from .fusion_encoding import FusionEncoding, FusionProcessor
from .tokenization import n_positions, pad_left
from .tokenizer_files import file_options, settings_of

if TYPE_CHECKING:
    # From a local folder, transformers 4 loads only the files that this one names; these are what its imports import.
    from .hub_mixins import PortableProcessorMixin  # noqa: F401
    from .record_values import candidate_parts  # noqa: F401
    from .segmentation import split_segments  # noqa: F401

REQUEST = (
    "Write one best answer to the request: keep what is right in the candidates, which stand the best first, and "
    "correct what is wrong."
)
# An answer is written at once, without a thought that would cost more tokens than it.
TEMPLATE_OPTIONS = {"enable_thinking": False}
ANSWER = "Answer:\n"  # ends a prompt of one message for a model without a chat template
SHORTEST_FENCE = 3
# Nobody weighs more candidates with care.
MAX_CANDIDATES = 32
MAX_SOURCE_LENGTH, MAX_CANDIDATE_LENGTH, MAX_NEW_TOKENS = 2048, 512, 256
# How often an input that is too long is cut again, where tokens at the ends of its texts merge with the layout.
ATTEMPTS = 4


def default_max_new_tokens(config: PretrainedConfig) -> int:
    """Return how many tokens a fuser writes at most if nothing else is stated: half of a short context."""
    positions = n_positions(config)
    return MAX_NEW_TOKENS if positions is None else min(MAX_NEW_TOKENS, positions // 2)


def default_max_source_length(config: PretrainedConfig) -> int:
    """Return how many tokens a fuser reads at most if nothing else is stated: new tokens have their room too."""
    positions = n_positions(config)
    return (
        MAX_SOURCE_LENGTH if positions is None else min(MAX_SOURCE_LENGTH, positions - default_max_new_tokens(config))
    )


def is_processor_of_causal(where: Any, **hub: Any) -> bool:
    """Return whether a checkpoint is that of a causal language model, by its `config.json` or its processor's."""
    for file, key in ((PROCESSOR_NAME, "processor_class"), (CONFIG_NAME, "model_type")):
        if (stated := settings_of(where, file, **hub).get(key)) is not None:
            return stated == CausalGenFuserProcessor.__name__ or is_causal_type(stated)
    return False


class CausalGenFuserProcessor(FusionProcessor):
    """Turns a prompt and its candidates into the input of a causal fuser, and its output into text.

    Args:
        tokenizer: The tokenizer of a causal language model.
        max_source_length: Maximum tokens of the input; the layout always stays.
        max_candidate_length: Maximum tokens of a candidate.
        **kwargs: Options of every processor in transformers.
    """

    def __init__(
        self,
        tokenizer: Any = None,
        max_source_length: int = MAX_SOURCE_LENGTH,
        max_candidate_length: int = MAX_CANDIDATE_LENGTH,
        **kwargs: Any,
    ) -> None:
        template = ChatTemplate(tokenizer) if tokenizer.chat_template else None
        markers = template.delimiters() if template else []
        super().__init__(tokenizer, max_source_length, max_candidate_length, markers=markers, **kwargs)
        self._encode_prompt = PromptEncoder(tokenizer, **TEMPLATE_OPTIONS)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a processor, as in transformers, or make one for a language model, with room for its new tokens."""
        stated = settings_of(pretrained_model_name_or_path, PROCESSOR_NAME, **kwargs)
        if "max_source_length" not in {**stated, **kwargs}:
            config = load_config(pretrained_model_name_or_path, **file_options(kwargs))
            kwargs["max_source_length"] = default_max_source_length(config)
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)

    @property
    def max_candidates(self) -> int:
        """Maximum number of candidates in one input."""
        return MAX_CANDIDATES

    @cached_property
    def end_id(self) -> int:
        """Id of the token that ends an answer: what the chat template writes after one, else the tokenizer's own.

        ValueError is raised if there is neither.
        """
        found = end_of_answer(self.tokenizer, **TEMPLATE_OPTIONS)
        if found is None:
            raise ValueError("the tokenizer has no token that ends a text; state one as its eos_token")
        return found

    def encode(
        self,
        prompt: Any,
        candidates: Sequence[str],
        instruction: str | None = None,
        *,
        max_source_length: int | None = None,
    ) -> FusionEncoding:
        """Build the input for one prompt.

        If the input is too long, each message and every candidate keep a fair share of the room: what a short text does
        not need goes to the long ones. The layout always stays, and no candidate is dropped.

        Args:
            prompt: A string or chat messages.
            candidates: The texts, best first.
            instruction: What to do with the prompt, as in `as_messages`.
            max_source_length: Maximum tokens of this input; None for that of the processor.

        Returns:
            The ids, how much was cut, and the segments that extractive decoding may write.

        Raises:
            TypeError: If the candidates are one string.
            ValueError: If there are no candidates, more than `max_candidates`, or no room for them.
        """
        return self._encoded(prompt, candidates, instruction, max_source_length)[1]

    def messages(
        self,
        prompt: Any,
        candidates: Sequence[str],
        instruction: str | None = None,
        *,
        max_source_length: int | None = None,
    ) -> list[Message]:
        """Return the conversation whose tokens `encode` returns, for servers and for trainers of language models."""
        return self._encoded(prompt, candidates, instruction, max_source_length)[0]

    @property
    def pad_token_id(self) -> int:
        """Id of the token that fills rows; any will do, since padding is masked."""
        pads = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id)
        return next((token_id for token_id in pads if token_id is not None), 0)

    def pad(self, inputs: Sequence[Sequence[int]]) -> BatchEncoding:
        """Return tensors `input_ids` and `attention_mask`, both (batch, length), with the padding on the left."""
        return pad_left(inputs, self.pad_token_id)

    def new_tokens(self, inputs: Mapping[str, Any], written: Any) -> list[list[int]]:
        """Return the tokens of each answer from what `generate` returned, without those of the prompt."""
        return written[:, inputs["input_ids"].shape[1] :].tolist()

    def _encoded(
        self, prompt: Any, candidates: Sequence[str], instruction: str | None, limit: int | None
    ) -> tuple[list[Message], FusionEncoding]:
        texts = self._checked(candidates)
        layout = FusionLayout(as_messages(prompt, instruction), texts, has_template=bool(self.tokenizer.chat_template))
        bodies = self._encode_plain(layout.texts)
        lengths = [len(body) for body in bodies]
        n = len(texts)
        limit = self.max_source_length if limit is None else limit
        most = [*[limit] * (len(lengths) - n), *[self.max_candidate_length] * n]
        shares = [*map(min, lengths, most)]
        fixed = 0
        for _ in range(ATTEMPTS):
            messages = layout.messages(self._cut(layout.texts, bodies, shares))
            ids, _ = self._encode_prompt(messages)
            if len(ids) <= limit:
                break
            fixed = max(fixed + 1, len(ids) - sum(shares))
            shares = self._shares(lengths, n, fixed, limit)
        else:
            raise ValueError(f"max_source_length={limit} leaves no room for {n} candidates")
        cut = [length - share for length, share in zip(lengths, shares, strict=True)]
        unknown = self._n_unknown(bodies)
        segments = self._all_segments(texts, shares[-n:], cut[-n:])
        found = FusionEncoding(ids, sum(cut[:-n]), tuple(cut[-n:]), segments, sum(unknown[:-n]), tuple(unknown[-n:]))
        return messages, found

    def _cut(self, texts: Sequence[str], bodies: Sequence[Sequence[int]], shares: Sequence[int]) -> list[str]:
        """Return the beginnings of texts that have so many tokens."""
        return [
            text if share == len(body) else self._beginning(text, body, share)
            for text, body, share in zip(texts, bodies, shares, strict=True)
        ]

    def _beginning(self, text: str, body: Sequence[int], share: int) -> str:
        if self.tokenizer.is_fast:
            encoded = self.tokenizer(
                text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True, verbose=False
            )
            if encoded["input_ids"] == list(body):
                return text[: encoded["offset_mapping"][share][0]]
        return self.tokenizer.decode(body[:share], clean_up_tokenization_spaces=False)


class FusionLayout:
    """A conversation whose last message of the user has the candidates, and its texts, which may be cut.

    No text can forge a line of the layout: these begin with more `#` than stand in a row in any text, as the fences of
    Markdown are longer than those within them.

    Args:
        messages: The conversation, as `as_messages` returns it.
        candidates: The candidates, the best first.
        has_template: Whether a chat template marks where the answer begins.
    """

    def __init__(self, messages: Sequence[Message], candidates: Sequence[str], *, has_template: bool) -> None:
        self._messages = [_plain(message) for message in messages]
        self._own = [place for place, message in enumerate(self._messages) if _is_plain(message)]
        if not self._own or self._own[-1] < len(messages) - 1 or self._messages[-1]["role"] != "user":
            self._messages.append({"role": "user", "content": ""})
            self._own.append(len(messages))
        self.texts = [*(self._messages[place]["content"] for place in self._own), *candidates]
        self._n_candidates = len(candidates)
        self._fence = "#" * (1 + max([SHORTEST_FENCE - 1, *map(_longest_run, self.texts)]))
        self._end = "" if has_template or len(self._messages) > 1 else f"\n\n{ANSWER}"

    def messages(self, texts: Sequence[str]) -> list[Message]:
        """Return the conversation with these texts, or beginnings of them."""
        said, candidates = texts[: -self._n_candidates], texts[-self._n_candidates :]
        found = list(self._messages)
        for place, text in zip(self._own, said, strict=True):
            found[place] = {**found[place], "content": text}
        found[-1] = {**found[-1], "content": self._last(said[-1], candidates)}
        return found

    def _last(self, text: str, candidates: Sequence[str]) -> str:
        head = [text, ""] if text else []
        parts = [f"{self._fence} Candidate {number}\n{each}" for number, each in enumerate(candidates, 1)]
        return "\n".join([*head, *parts, f"{self._fence} Task\n{REQUEST}{self._end}"])


def fusion_messages(messages: Sequence[Message], candidates: Sequence[str]) -> list[Message]:
    """Return the conversation of `CausalGenFuserProcessor.messages` with nothing cut, for a model with a chat template.

    Args:
        messages: The conversation, as `as_messages` returns it.
        candidates: The candidates, the best first.
    """
    layout = FusionLayout(messages, candidates, has_template=True)
    return layout.messages(layout.texts)


def _plain(message: Message) -> Message:
    """Return a message with its text as its content, if that is all that it says."""
    said = turns([message])
    is_text = len(said) == 1 and not said[0].calls and said[0].role != "tool"
    return said[0].plain if is_text else message


def _is_plain(message: Message) -> bool:
    return message.keys() == {"role", "content"} and isinstance(message["content"], str) and message["role"] != "tool"


def _longest_run(text: str) -> int:
    """Return how many `#` stand in a row; a tokenizer may turn those of full width into plain ones."""
    return max(map(len, re.findall("#+", unicodedata.normalize("NFKC", text))), default=0)
