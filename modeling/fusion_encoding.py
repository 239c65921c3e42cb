"""What fusers of both kinds read: a prompt and its candidates as token ids, and the segments of the candidates."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from transformers import BatchEncoding, ProcessorMixin

from .hub_mixins import PortableProcessorMixin
from .segmentation import BLANK_LINES, is_block, is_open, split_segments, trimmed
from .tokenization import PlainTextEncoder, unknown_id

# What may precede a segment while it is tokenized: no tokenizer merges both with what follows.
NEIGHBOURS = (".", "a")


@dataclass(frozen=True)
class Segment:
    """A sentence or a block of one candidate, or of several that share it, white space and case aside."""

    ids: tuple[int, ...]  # its tokens, at least one, as in the first candidate that has it
    places: frozenset[tuple[int, int]]  # where it occurs: pairs of a candidate and the segment's index in it
    # its tokens at the places where they differ
    forms: Mapping[tuple[int, int], tuple[int, ...]] = field(default_factory=dict)
    # its tokens after a segment that it follows in no candidate, so with white space in front; None if they are `ids`
    apart: tuple[int, ...] | None = None
    # the same after a block, so on a line of its own; None if they are `apart`
    below: tuple[int, ...] | None = None
    is_block: bool = False  # whether it has lines of its own, as code and lists have
    is_open: bool = False  # whether it is code whose fence is never closed, so that it must be the last
    recurs: bool = False  # whether it stands in its candidates once more, as a refrain, so only where it follows there

    def at(self, place: tuple[int, int]) -> tuple[int, ...]:
        """Return its tokens at one of its places."""
        return self.forms.get(place, self.ids)

    def after(self, previous: "Segment | None") -> set[tuple[int, ...]]:
        """Return its forms after another segment, or for None at the start: those of a candidate, if one has both."""
        if own := {self.at(place) for place in self.follows(previous)}:
            return own
        if self.recurs or (previous is not None and previous.is_open):
            return set()
        detached = (self.below, self.apart) if previous is not None and previous.is_block else (self.apart,)
        return {next((ids for ids in detached if ids is not None), self.ids)}

    def follows(self, previous: "Segment | None") -> list[tuple[int, int]]:
        """Return the places where it directly follows another segment, or for None begins a candidate."""
        if previous is None:
            return [(candidate, place) for candidate, place in self.places if place == 0]
        return [(candidate, place) for candidate, place in self.places if (candidate, place - 1) in previous.places]


@dataclass(frozen=True)
class FusionEncoding:
    """The input of a fuser for one prompt."""

    input_ids: list[int]  # the token ids
    truncated_prompt: int  # how many tokens of the prompt (instruction and input) were cut
    truncated_candidates: tuple[int, ...]  # how many tokens of each candidate were cut
    segments: list[Segment]  # whole segments of the candidates, for extractive decoding
    unknown_prompt: int  # how many tokens of the prompt the tokenizer does not know, cut ones included
    unknown_candidates: tuple[int, ...]  # the same of each candidate


class FusionProcessor(PortableProcessorMixin, ProcessorMixin, ABC):
    """What the processors of both kinds of fuser have in common.

    Args:
        tokenizer: The fuser's tokenizer.
        max_source_length: Maximum tokens of the input.
        max_candidate_length: Maximum tokens of a candidate.
        token_ids: Ids that no text may become, besides those of special tokens.
        markers: Contents of further tokens that no text may become.
        **kwargs: Options of every processor in transformers.
    """

    attributes = ["tokenizer"]  # noqa: RUF012 (the form that transformers 4 expects)
    tokenizer_class = "AutoTokenizer"

    def __init__(
        self,
        tokenizer: Any,
        max_source_length: int,
        max_candidate_length: int,
        token_ids: Sequence[int] = (),
        markers: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(tokenizer, **kwargs)
        self.max_source_length = max_source_length
        self.max_candidate_length = max_candidate_length
        self._unknown_id = unknown_id(tokenizer)
        self._encode_plain = PlainTextEncoder(tokenizer, markers, token_ids)

    @property
    @abstractmethod
    def max_candidates(self) -> int:
        """Maximum number of candidates in one input."""

    @property
    @abstractmethod
    def end_id(self) -> int:
        """Id of the token that ends an answer."""

    @abstractmethod
    def encode(
        self,
        prompt: Any,
        candidates: Sequence[str],
        instruction: str | None = None,
        *,
        max_source_length: int | None = None,
    ) -> FusionEncoding:
        """Build the input for one prompt."""

    @abstractmethod
    def pad(self, inputs: Sequence[Sequence[int]]) -> BatchEncoding:
        """Return tensors `input_ids` and `attention_mask`, both (batch, length)."""

    @abstractmethod
    def new_tokens(self, inputs: Mapping[str, Any], written: Any) -> list[list[int]]:
        """Return the tokens of each answer from what `generate` returned for some inputs, as `pad` made them."""

    def __call__(self, prompts: Sequence[Any], candidates: Sequence[Sequence[str]]) -> BatchEncoding:
        """Tokenize prompts with their candidates, for training and for a fuser that writes freely.

        `generate` of an extractive fuser also needs the segments, which `encode` returns: without them it
        writes freely, and warns.

        Args:
            prompts: Strings or conversations.
            candidates: For each prompt its candidates, best first.

        Returns:
            A batch of tensors `input_ids` and `attention_mask`, both (batch, length).

        Raises:
            TypeError: If a single string is given instead of lists.
            ValueError: If the lists differ in length.
        """
        if isinstance(prompts, str) or isinstance(candidates, str):
            raise TypeError("give a list of prompts and, for each, a list of candidates; one of them is a single text")
        if len(prompts) != len(candidates):
            raise ValueError(
                f"there are {len(prompts)} prompts and {len(candidates)} lists of candidates; give one list for each"
            )
        return self.pad([self.encode(p, c).input_ids for p, c in zip(prompts, candidates, strict=True)])

    def encode_segments(self, text: str) -> list[list[int]]:
        """Tokenize each segment of `split_segments` as extractive decoding writes it.

        The first is tokenized as any text, the others as they stand in the text. So the concatenated tokens decode to
        the `trimmed` text, if the tokenizer is lossless.
        """
        segments = split_segments(text)
        followers = list(zip([segment.split()[-1] for segment in segments], segments[1:], strict=False))
        if segments and segments[0][0].isspace():  # indented code, to which a tokenizer would add a space
            return self._encode_after([(NEIGHBOURS[0], segments[0]), *followers])
        return [*self._encode_plain(segments[:1]), *self._encode_after(followers)]

    def decode_text(self, ids: Sequence[int]) -> str:
        """Decode generated ids, without special tokens and outer white space."""
        return trimmed(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    @property
    def model_input_names(self) -> list[str]:
        """Names of the tensors that `GenFuser` takes from this processor."""
        return ["input_ids", "attention_mask"]

    def _checked(self, candidates: Sequence[str]) -> list[str]:
        if isinstance(candidates, str):
            raise TypeError("candidates must be a list of texts, not one text")
        if not candidates:
            raise ValueError("there are no candidates to fuse")
        if len(candidates) > self.max_candidates:
            raise ValueError(
                f"{len(candidates)} candidates are more than the {self.max_candidates} that this fuser can tell apart; "
                "fuse the best ones"
            )
        return list(candidates)

    def _shares(self, lengths: Sequence[int], n_candidates: int, fixed: int, limit: int | None) -> list[int]:
        """Return how many tokens of each text an input has: the last ones are candidates, `fixed` are the layout's."""
        limit = self.max_source_length if limit is None else limit
        first = len(lengths) - n_candidates
        wanted = [*lengths[:first], *(min(length, self.max_candidate_length) for length in lengths[first:])]
        if limit - fixed < len(lengths):
            raise ValueError(f"max_source_length={limit} leaves no room for {n_candidates} candidates")
        return fair_shares(wanted, limit - fixed)

    def _n_unknown(self, bodies: Sequence[Sequence[int]]) -> list[int]:
        return [0 if self._unknown_id is None else body.count(self._unknown_id) for body in bodies]

    def _all_segments(self, texts: Sequence[str], shown: Sequence[int], cut: Sequence[int]) -> list[Segment]:
        """Collect the segments of all candidates, each text once.

        Those that the input truncates are left out, except a block of which at least half is read, and the first
        segment of a candidate.
        """
        found: dict[tuple[str, int], _Occurrences] = {}
        for candidate, (text, n_shown, n_cut) in enumerate(zip(texts, shown, cut, strict=True)):
            segments, encoded = split_segments(text), self.encode_segments(text)
            # The segments have about as many tokens as the candidate in the input.
            ends = accumulate(map(len, encoded))
            for place, (key, ids, end) in enumerate(zip(_keys(segments), encoded, ends, strict=True)):
                needed = end - len(ids) // 2 if is_block(segments[place]) else end
                if ids and (place == 0 or n_cut == 0 or needed <= n_shown):
                    found.setdefault(key, _Occurrences(segments, place)).forms[candidate, place] = tuple(ids)
        detached = [text for known in found.values() for text in (separated(*known.first), below(*known.first))]
        alone = iter(self._encode_after([(NEIGHBOURS[0], text) for text in detached]))
        return [known.segment(next(alone), next(alone), recurs=n > 0) for (_, n), known in found.items()]

    def _encode_after(self, pairs: Sequence[tuple[str, str]]) -> list[list[int]]:
        """Return the tokens of each text after another, so without the space that a tokenizer prepends."""
        rows = self._encode_plain([part for before, text in pairs for part in (before, before + text)])
        found = [_without_prefix(rows[2 * place], rows[2 * place + 1]) for place in range(len(pairs))]
        return [
            self._after_a_neighbour(text) if ids is None else ids for ids, (_, text) in zip(found, pairs, strict=True)
        ]

    def _after_a_neighbour(self, text: str) -> list[int]:
        """Return the tokens of a text whose first token would merge with what precedes it."""
        rests = (_without_prefix(*self._encode_plain([before, before + text])) for before in NEIGHBOURS)
        return next((ids for ids in rests if ids is not None), None) or self._encode_plain([text])[0]


def separated(segments: Sequence[str], place: int) -> str:
    r"""Return a segment of a text as it is written after one that it does not follow there.

    It keeps its leading white space. If it has none, as at the start of a text, it gets a space, or a line break if it
    is a separate line, or an empty line if it is a block.

    >>> separated(["Steps:", "\n1. Boil."], 0), separated(["Yes.", " No."], 0), separated(["Yes.", " No."], 1)
    ('\nSteps:', ' Yes.', ' No.')
    """
    segment = segments[place]
    if is_block(segment):
        return segment if "\n" in segment[: _indentation(segment)] else below(segments, place)
    if segment[0].isspace():
        return segment
    alone = place == 0 and re.match(r"\s*\n", "".join(segments[1:2])) is not None
    return ("\n" if alone else " ") + segment


def below(segments: Sequence[str], place: int) -> str:
    r"""Return a segment of a text as it is written after a block: with an empty line before it, its indentation kept.

    >>> below(["```\nx\n```", "\nIt works."], 1), below(["Yes.", " No."], 1)
    ('\n\nIt works.', '\n\nNo.')
    """
    segment = segments[place]
    return "\n\n" + (BLANK_LINES.sub("", segment) if "\n" in segment[: _indentation(segment)] else trimmed(segment))


@dataclass
class _Occurrences:
    """Where a segment occurs, and the text and place where it does first."""

    segments: Sequence[str]
    place: int
    forms: dict[tuple[int, int], tuple[int, ...]] = field(default_factory=dict)

    @property
    def first(self) -> tuple[Sequence[str], int]:
        return self.segments, self.place

    def segment(self, apart: Sequence[int], below: Sequence[int], *, recurs: bool) -> Segment:
        text = self.segments[self.place]
        first = next(iter(self.forms.values()))
        others = {place: ids for place, ids in self.forms.items() if ids != first}
        return Segment(
            first,
            frozenset(self.forms),
            others,
            tuple(apart),
            tuple(below),
            is_block=is_block(text),
            is_open=is_open(text),
            recurs=recurs,
        )


def _keys(segments: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Yield what makes each segment the same as another: its text, and how often it stood in the candidate before.

    Sentences count once, however often they occur, and so do lines that only repeat the one before; a refrain does not.
    """
    counts: dict[str, int] = {}
    before = ""
    for place, segment in enumerate(segments):
        same = " ".join(segment.split()).casefold()
        recurs = same in counts and _stands_alone(segments, place) and (is_block(segment) or same != before)
        counts[same] = counts.get(same, 0) + recurs
        yield same, counts[same]
        before = same


def _stands_alone(segments: Sequence[str], place: int) -> bool:
    """Return whether a segment fills its lines."""
    following = segments[place + 1] if place + 1 < len(segments) else "\n"
    begins = place == 0 or "\n" in segments[place][: _indentation(segments[place])]
    return begins and "\n" in following[: _indentation(following)]


def _indentation(text: str) -> int:
    return len(text) - len(text.lstrip())


def _without_prefix(prefix: Sequence[int], whole: Sequence[int]) -> list[int] | None:
    """Return a sequence without its prefix, or None if it does not begin with that."""
    return list(whole[len(prefix) :]) if list(whole[: len(prefix)]) == list(prefix) else None


def fair_shares(wanted: Sequence[int], room: int) -> list[int]:
    """Divide room fairly: no share exceeds what is wanted, and none is less than another that wants as much.

    >>> fair_shares([10, 100, 100], 70)
    [10, 30, 30]
    """
    shares = [0] * len(wanted)
    open_places = sorted(range(len(wanted)), key=lambda i: wanted[i])
    for position, index in enumerate(open_places):
        shares[index] = min(wanted[index], room // (len(wanted) - position))
        room -= shares[index]
    return shares
