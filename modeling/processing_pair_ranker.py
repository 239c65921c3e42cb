"""Processor of PairRanker: from texts to the token ids of pairs, in the layout of PairRM.

    <|source|>prompt[SEP] <|candidate1|>a[SEP] <|candidate2|>b[SEP]

each part as the tokenizer encodes it alone, so with its own [CLS] where the tokenizer adds one. Each text is tokenized
once, and pairs are assembled from token ids. A ranker that encodes each candidate by itself reads the same without the
third part. With `layout="chat"` a row is a conversation by the tokenizer's chat template, see `row_layouts`.

For ordinary text these are the ids of the recipe on the PairRM-hf card, which encodes "<|source|>" + text. They differ
on purpose where a text contains a special token, which is plain text here, or begins with a combining mark, which
normalization may merge with the ">" of the marker before it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from transformers import BatchEncoding, PretrainedConfig, ProcessorMixin

from .configuration_pair_ranker import (
    TRUNCATION,
    PairRankerConfig,
    add_special_tokens,
    check_truncation,
    format_of,
)
from .conversations import render_prompt
from .hub_mixins import PortableProcessorMixin
from .row_layouts import LAYOUTS, Part
from .tokenization import pad_right

if TYPE_CHECKING:
    # From a local folder, transformers 4 loads only the files that this one names; these are what its imports import.
    from .chat_templates import PromptEncoder  # noqa: F401
    from .configurations import MAJOR_VERSION  # noqa: F401
    from .record_values import candidate_parts  # noqa: F401
    from .tokenizer_files import load_tokenizer  # noqa: F401

# Names in LLM-Blender, and ours.
OLD_NAMES = {"source_maxlength": "max_source_length", "candidate_maxlength": "max_candidate_length"}
# Similarity (`difflib`) from which on a name is a misspelling; `truncation_side` of a tokenizer is below it.
MIN_SIMILARITY = 0.85


@dataclass(frozen=True)
class PairEncoding:
    """One presentation order of a pair."""

    input_ids: list[int]  # the token ids
    truncated_source: int  # how many tokens of the prompt were cut
    truncated_first: int  # how many tokens of the first candidate were cut
    truncated_second: int  # the same for the second


@dataclass(frozen=True)
class CandidateEncoding:
    """A prompt and one candidate, for a ranker that encodes each candidate by itself."""

    prompt_ids: tuple[int, ...]  # the token ids of the prompt's part
    candidate_ids: tuple[int, ...]  # those of the candidate's, which follow
    truncated_source: int  # how many tokens of the prompt were cut
    truncated_candidate: int  # the same of the candidate

    @property
    def input_ids(self) -> tuple[int, ...]:
        """The token ids of the whole row."""
        return self.prompt_ids + self.candidate_ids

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.candidate_ids)


class PairRankerProcessor(PortableProcessorMixin, ProcessorMixin):
    """Turns prompts and pairs of candidates into the input of a `PairRanker`.

    Special tokens in user text, such as `<|candidate2|>` or `[SEP]`, are always plain text.

    Args:
        tokenizer: The tokenizer of the backbone: with the four special tokens of `SPECIAL_TOKENS` added or, for layout
            "chat", with a chat template.
        max_pair_length: As in `PairRankerConfig`, like the next four.
        max_source_length: Maximum tokens of the prompt's part.
        max_candidate_length: Maximum tokens of a candidate's part.
        source_truncation_side: Which end of a long prompt is cut.
        candidate_truncation_side: Which end of a long candidate is cut.
        layout: How rows are made of texts, "markers" or "chat", as in `PairRankerConfig`.
        **kwargs: Options of every processor in transformers.

    Raises:
        ValueError: If the tokenizer lacks one of the special tokens or the chat template, or a length or a side can't
            work.
    """

    attributes = ["tokenizer"]  # noqa: RUF012 (the form that transformers 4 expects)
    tokenizer_class = "AutoTokenizer"

    def __init__(
        self,
        tokenizer: Any = None,
        max_pair_length: int = 2048,
        max_source_length: int = 1224,
        max_candidate_length: int = 1024,
        source_truncation_side: str = "right",
        candidate_truncation_side: str = "right",
        layout: str = "markers",
        **kwargs: Any,
    ) -> None:
        super().__init__(tokenizer, **kwargs)
        self.max_pair_length = max_pair_length
        self.max_source_length = max_source_length
        self.max_candidate_length = max_candidate_length
        self.source_truncation_side = source_truncation_side
        self.candidate_truncation_side = candidate_truncation_side
        self.layout = layout
        check_truncation(vars(self))
        if layout not in LAYOUTS:
            raise ValueError(f"layout={layout!r}; use {' or '.join(LAYOUTS)}")
        self._rows = LAYOUTS[layout](tokenizer)
        self._rows.check_lengths(max_source_length)

    @classmethod
    def for_training(cls, tokenizer: Any, *, layout: str = "markers", **lengths: Any) -> "PairRankerProcessor":
        """Create a processor from the tokenizer of a plain encoder or decoder.

        With layout "markers" the four special tokens are added to the tokenizer, with "chat" none.
        """
        if layout == "markers":
            add_special_tokens(tokenizer)
        return cls(tokenizer, layout=layout, **lengths)

    @classmethod
    def from_pretrained(  # type: ignore[override] # transformers passes options by name
        cls, pretrained_model_name_or_path: Any, **kwargs: Any
    ) -> "PairRankerProcessor":
        """Load a processor, as in transformers; for the original checkpoints it is created as their cards say.

        The files of `llm-blender/PairRM-hf` and its derivatives state no lengths: they are those of the card, and the
        prompt is cut at the end that the tokenizer states. `model_max_length` is ignored, as on the card.

        Args:
            pretrained_model_name_or_path: A Hub id or a folder.
            **kwargs: The options of `transformers.ProcessorMixin.from_pretrained`, and our lengths and sides, which
                override those of the checkpoint.

        Returns:
            The processor.

        Raises:
            TypeError: If an option is a misspelling of one of ours; all others are those of transformers.
            ValueError: If a length or a side can't work.
        """
        _refuse_misspelt(kwargs)
        own = {name: value for name, value in kwargs.items() if name in TRUNCATION}
        hub = {name: value for name, value in kwargs.items() if name not in TRUNCATION}
        config, _ = PretrainedConfig.get_config_dict(pretrained_model_name_or_path, **hub)
        found = format_of(config)
        create = None if found is None else found.processor
        if create is not None and not cls.get_processor_dict(pretrained_model_name_or_path, **hub)[0]:
            tokenizer, lengths = create(config, pretrained_model_name_or_path, hub)
            return cls(tokenizer, **{**lengths, **own})
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)

    def set_truncation(self, **settings: Any) -> None:
        """Change any settings of `TRUNCATION`; if they can't work, raise ValueError and change nothing."""
        changed = {**vars(self), **settings}
        check_truncation(changed)
        self._rows.check_lengths(changed["max_source_length"])
        vars(self).update(settings)

    def check_tokens(self, config: PairRankerConfig) -> None:
        """Check that this processor belongs to a ranker.

        Raises:
            ValueError: If the layouts or the special tokens differ, or there are more tokens than embeddings.
        """
        if config.layout != self.layout:
            raise ValueError(
                f"layout is {config.layout!r} in the configuration and {self.layout!r} in the processor, so they are "
                "not of one ranker: correct config.json, or load both from one checkpoint"
            )
        for name, found in self.special_token_ids().items():
            if (stated := getattr(config, name)) != found:
                raise ValueError(
                    f"{name} is {stated} in the configuration and {found} in the tokenizer, so they are not of one "
                    "ranker: correct config.json, or load both from one checkpoint"
                )
        n_rows = getattr(config.backbone_config, "vocab_size", None)
        if n_rows is not None and len(self.tokenizer) > n_rows:
            raise ValueError(
                f"the tokenizer has {len(self.tokenizer)} tokens and the encoder {n_rows} embeddings (vocab_size), so "
                "they are not of one ranker: load both from one checkpoint"
            )

    def check_lengths(self, config: PairRankerConfig) -> None:
        """Check that a ranker's encoder has enough positions for every pair.

        Raises:
            ValueError: If a pair may be longer; the message says which lengths work.
        """
        longest = config.longest_row(self)
        if config.n_positions is not None and longest > config.n_positions:
            source = min(self.max_source_length, config.n_positions // 2)
            read = "a prompt and a candidate" if config.is_separate else "pairs"
            raise ValueError(
                f"{read} may have {longest} tokens, but the encoder has {config.n_positions} positions; use "
                f"max_pair_length={config.n_positions} and max_source_length={source}, or less"
            )

    def special_token_ids(self) -> dict[str, int | None]:
        """Return the ids of the special tokens under their names in `PairRankerConfig`; None with layout "chat"."""
        return self._rows.token_ids

    def encode_texts(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenize texts without special tokens and without truncation."""
        return self._rows.encode_texts(texts)

    def encode_prompts(self, prompts: Sequence[Any]) -> list[Part]:
        """Tokenize prompts for `encode_candidate`, without truncation.

        Args:
            prompts: Strings or conversations.

        Returns:
            The tokens of each text, and those that frame it: the markers, or what the chat template writes.

        Raises:
            TypeError: If a prompt is of another type.
            ValueError: If a conversation can't be read, or the chat template refuses it.
        """
        return self._rows.prompts(prompts)

    def encode_pair(self, source: Sequence[int], first: Sequence[int], second: Sequence[int]) -> PairEncoding:
        """Assemble a pair from the ids of its three texts (recipe of the PairRM-hf card).

        The prompt keeps at most `max_source_length` tokens; each candidate at most `max_candidate_length` and half of
        what the prompt leaves of `max_pair_length`. So truncation depends on this pair alone.

        Args:
            source: Ids of the prompt from `encode_texts`.
            first: Ids of the first candidate.
            second: Ids of the second candidate.

        Returns:
            The ids of the pair and how much was cut.
        """
        part = self._rows.part
        source_part, cut_source = part(0, source).cut(self.max_source_length, self.source_truncation_side)
        budget = min(self.max_candidate_length, (self.max_pair_length - len(source_part)) // 2)
        first_part, cut_first = part(1, first).cut(budget, self.candidate_truncation_side)
        second_part, cut_second = part(2, second).cut(budget, self.candidate_truncation_side)
        return PairEncoding([*source_part, *first_part, *second_part], cut_source, cut_first, cut_second)

    def encode_candidate(self, source: Part, candidate: Sequence[int]) -> CandidateEncoding:
        """Assemble what a ranker with separate encodings reads from the ids of a prompt and of one candidate.

        The prompt keeps at most `max_source_length` tokens, the candidate at most `max_candidate_length` and what the
        prompt leaves of `max_pair_length`. So truncation depends on this prompt and this candidate alone.

        Args:
            source: The prompt from `encode_prompts`.
            candidate: Ids of the candidate from `encode_texts`.

        Returns:
            The ids of both parts and how much was cut.
        """
        prompt_part, cut_source = source.cut(self.max_source_length, self.source_truncation_side)
        budget = min(self.max_candidate_length, self.max_pair_length - len(prompt_part))
        part, cut = self._rows.candidate(candidate).cut(budget, self.candidate_truncation_side)
        return CandidateEncoding(prompt_part, part, cut_source, cut)

    def pad(self, rows: Sequence[Sequence[int]]) -> BatchEncoding:
        """Return tensors `input_ids` and `attention_mask`, both (batch, length), of the ids of pairs or of parts."""
        padding = self.tokenizer.pad_token_id
        return pad_right(rows, 0 if padding is None else padding)  # whichever it is, it is masked

    def pad_candidates(self, rows: Sequence[CandidateEncoding]) -> BatchEncoding:
        """Return the tensors of whole rows of candidates, (batch, length) each.

        They are `input_ids`, `attention_mask` and, with layout "chat", where no marker says it, `token_type_ids`: 0 for
        the prompt, 1 for the candidate.
        """
        batch = self.pad([row.input_ids for row in rows])
        if self._rows.has_types:
            types = [[0] * len(row.prompt_ids) + [1] * len(row.candidate_ids) for row in rows]
            batch["token_type_ids"] = pad_right(types, 0)["input_ids"]
        return batch

    def __call__(
        self, prompts: Sequence[Any], candidates_a: Sequence[str], candidates_b: Sequence[str] | None = None
    ) -> BatchEncoding:
        """Tokenize pairs for `PairRanker.forward`, `candidates_a[i]` before `candidates_b[i]`, or single candidates.

        Args:
            prompts: Strings or conversations, one per row.
            candidates_a: One string per row.
            candidates_b: One string per row; None for a ranker that encodes each candidate by itself.

        Returns:
            A batch of tensors `input_ids` and `attention_mask`, both (batch, length); of candidates those of
            `pad_candidates`.

        Raises:
            TypeError: If a single string is given instead of lists.
            ValueError: If the lists differ in length.
        """
        if any(isinstance(texts, str) for texts in (prompts, candidates_a, candidates_b)):
            raise TypeError("prompts, candidates_a and candidates_b must be lists with one entry a row, not texts")
        if candidates_b is None:
            return self._candidate_rows(prompts, candidates_a)
        if not len(prompts) == len(candidates_a) == len(candidates_b):
            raise ValueError(
                f"{len(prompts)} prompts, {len(candidates_a)} candidates_a and {len(candidates_b)} candidates_b: "
                "give one of each for every pair"
            )
        sources = self.encode_texts([render_prompt(prompt) for prompt in prompts])
        triples = zip(sources, self.encode_texts(candidates_a), self.encode_texts(candidates_b), strict=True)
        return self.pad([self.encode_pair(*triple).input_ids for triple in triples])

    def _candidate_rows(self, prompts: Sequence[Any], candidates: Sequence[str]) -> BatchEncoding:
        if len(prompts) != len(candidates):
            raise ValueError(f"{len(prompts)} prompts and {len(candidates)} candidates: give one of each for every row")
        rows = zip(self.encode_prompts(prompts), self.encode_texts(candidates), strict=True)
        return self.pad_candidates([self.encode_candidate(*row) for row in rows])

    @property
    def model_input_names(self) -> list[str]:
        """Names of the tensors that `PairRanker.forward` takes from this processor."""
        return ["input_ids", "attention_mask", *(["token_type_ids"] if self._rows.has_types else [])]


def _refuse_misspelt(options: Mapping[str, Any]) -> None:
    """Reject what transformers would silently ignore: our settings misspelt, and their names in LLM-Blender."""
    for name in set(options) - set(TRUNCATION):
        meant = OLD_NAMES.get(name) or next(iter(get_close_matches(name, TRUNCATION, 1, MIN_SIMILARITY)), None)
        if meant is not None:
            raise TypeError(f"a ranker's processor has no option {name}; use {meant}")
