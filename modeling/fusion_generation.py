"""How fusers generate: options for one text, and extractive decoding, which writes whole segments of the candidates."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple, cast

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList
from transformers.generation.streamers import BaseStreamer
from transformers.utils import logging

from .fusion_encoding import Segment

logger = logging.get_logger(__name__)

# The default of transformers 4, which every configuration there has; and the length of the paper's targets.
DEFAULT_LENGTH, TARGET_LENGTH = 20, 128
START = -1  # in place of the previous segment, before there is one
# A fusion is one text, so these options of `generate` can have no other values.
ONE_TEXT = {"num_return_sequences": 1, "return_dict_in_generate": False}
# Options of `generate` that would end an answer within a segment, or keep a token of it from being written.
CUTTING = (
    *("stop_strings", "max_time", "stopping_criteria", "prefix_allowed_tokens_fn", "decoder_input_ids"),
    *("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids", "force_words_ids", "constraints"),
    *("suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id", "sequence_bias"),
)


class State(NamedTuple):
    """One way to read what is written of an answer: as whole segments, the last one possibly unfinished.

    Args:
        used: The finished segments.
        current: The unfinished one, or None.
        rest: Its tokens that are still to come.
        previous: The last finished segment, or `START`.
    """

    used: frozenset[int] = frozenset()
    current: int | None = None
    rest: tuple[int, ...] = ()
    previous: int = START


def set_default_length(generation: GenerationConfig) -> None:
    """Set the answer length of the paper's targets in a configuration that states none."""
    if generation.max_new_tokens is None and generation.max_length in (None, DEFAULT_LENGTH):
        generation.max_new_tokens = TARGET_LENGTH


def one_text_options(generation: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return options of `generate` for a fusion, checked: a mapping or None, and not for more than one text."""
    if generation is None:
        return {}
    if not isinstance(generation, Mapping):
        raise TypeError(
            f"generation must be a mapping of options of `generate`, such as {{'num_beams': 4}}, not "
            f"{type(generation).__name__}"
        )
    config = generation.get("generation_config")
    for name, only in ONE_TEXT.items():
        value = generation.get(name, getattr(config, name, None))
        if value not in (None, only):
            raise ValueError(
                f"generation option {name}={value!r}: a fusion is one text, so it can only be {only}; leave it out"
            )
    return generation


class ExtractiveGenerationMixin:
    """Adds the option `segments` to the `generate` of transformers: extractive (constrained) decoding.

    A small fuser can't write prose, but it can choose. Limited to whole segments of its candidates it is as fluent as
    they are, can't loop, and never stops in mid-sentence.
    """

    config: Any
    generation_config: Any

    def generate(
        self,
        inputs: torch.Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: Sequence[LogitsProcessor] | None = None,
        *args: Any,
        segments: Sequence[Sequence[Segment]] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Write fused answers.

        Args:
            inputs: As in transformers, like the next two; usually given as `input_ids`.
            generation_config: Options of generation.
            logits_processor: Further processors of the logits.
            *args: As in transformers.
            segments: For each row of the batch, the segments that may be written. The answer is then a sequence of
                whole segments, each at most once; see `SegmentLogitsProcessor`. Without them the answer is written
                freely, whatever `config.extractive` says, and a warning says so.
            **kwargs: Options of `transformers.GenerationMixin.generate`. With `segments`, `max_new_tokens` and
                `max_length` are kept to in whole segments, of which there is at least one; if none is that short, it
                is the shortest.

        Returns:
            The token ids, (batch, length), or what `return_dict_in_generate` asks for.

        Raises:
            ValueError: If there are not as many lists of segments as rows in the batch, or an option of `CUTTING` is
                set, which would cut a segment.
        """
        if segments is not None:
            _check_batch(segments, inputs, kwargs)
            started = 1 if self.config.is_encoder_decoder else _length(inputs, kwargs)
            if kwargs.get("max_length") is not None and kwargs.get("max_new_tokens") is None:
                # What is given counts, not what the checkpoint states; it includes what the answer starts from.
                kwargs["max_new_tokens"] = kwargs.pop("max_length") - started
            options = {"generation_config": generation_config, **kwargs}
            self._refuse_cutting(options)
            room = self.max_new_tokens(options, started)
            least = max(map(shortest_beginning, segments), default=0)
            if room is not None and 0 < room < least:
                kwargs["max_new_tokens"] = least + 1  # and the token that ends it
            logits_processor = LogitsProcessorList(
                [*(logits_processor or []), self._extractive(segments, room, started, options)]
            )
        elif self.config.extractive:
            logger.warning_once(
                "this fuser is to write only segments of its candidates (config.extractive), but was given none: pass "
                "segments=[encoding.segments, ...], which GenFuserProcessor.encode returns, or use Blender.fuse"
            )
        if not self.config.is_encoder_decoder and kwargs.get("streamer") is not None:
            kwargs["streamer"] = _NewTokens(kwargs["streamer"])
        return super().generate(  # type: ignore[misc] # of the class that is mixed with
            inputs, generation_config, logits_processor, *args, **kwargs
        )

    def max_new_tokens(self, options: Mapping[str, Any], started: int = 1) -> int | None:
        """Return how many tokens `generate` writes at most with some options, or None for no limit.

        Args:
            options: The options.
            started: Tokens that the answer starts from, which `max_length` includes: a start token, or the prompt.
        """
        new, total = (self._option(name, options) for name in ("max_new_tokens", "max_length"))
        return new if new is not None or total is None else total - started

    def end_ids(self, options: Mapping[str, Any]) -> list[int]:
        """Return the ids of the tokens that end an answer with some options of `generate`."""
        stated = self._option("eos_token_id", options)
        found = self.config.eos_token_id if stated is None else stated
        return [found] if isinstance(found, int) else [*map(int, [] if found is None else found)]

    def _extractive(
        self, segments: Sequence[Sequence[Segment]], room: int | None, started: int, options: Mapping[str, Any]
    ) -> "SegmentLogitsProcessor":
        return SegmentLogitsProcessor(
            segments,
            self.end_ids(options),
            started=started,
            min_length_ratio=self.config.extractive_min_length_ratio,
            coherence=self.config.extractive_coherence,
            agreement=self.config.extractive_agreement,
            consensus=self.config.extractive_consensus,
            max_overlap=self.config.extractive_max_overlap,
            max_tokens=room,
        )

    def _refuse_cutting(self, options: Mapping[str, Any]) -> None:
        for name in CUTTING:
            if value := options[name] if options.get(name) is not None else self._option(name, options):
                raise ValueError(
                    f"{name}={value!r} would cut the segments that an extractive fuser writes: leave it out, set it to "
                    "0 if the checkpoint states it, and limit the answer with max_new_tokens, which is kept to in "
                    "whole segments"
                )

    def _option(self, name: str, options: Mapping[str, Any]) -> Any:
        """Return an option of `generate`: as given, else as in the given configuration, else the model's."""
        if options.get(name) is not None:
            return options[name]
        # transformers 4 has defaults other than None, which state nothing.
        default = getattr(GenerationConfig(), name, None)
        configs = (options.get("generation_config"), self.generation_config)
        stated = [getattr(config, name, None) for config in configs if config is not None]
        return next((value for value in stated if value not in (None, default)), default)


class _NewTokens(BaseStreamer):
    """Passes on what is written, without the prompt, which a decoder hands to its streamer first."""

    def __init__(self, streamer: Any) -> None:
        self._streamer = streamer
        self._has_begun = False

    def put(self, value: Any) -> None:
        # Nothing in place of the prompt, for streamers of transformers with `skip_prompt` leave the first one out.
        self._streamer.put(value if self._has_begun else value[..., :0])
        self._has_begun = True

    def end(self) -> None:
        self._streamer.end()


def _length(inputs: Any, options: Mapping[str, Any]) -> int:
    """Return the number of tokens of a prompt in what `generate` returns with it."""
    ids = inputs if inputs is not None else options.get("input_ids")
    return 0 if ids is None else int(ids.shape[1])


def _check_batch(segments: Sequence[Sequence[Segment]], inputs: Any, options: Mapping[str, Any]) -> None:
    given = [inputs, *(options.get(name) for name in ("input_ids", "inputs_embeds"))]
    sizes = [len(rows) for rows in given if rows is not None]
    if sizes and len(segments) != sizes[0]:
        raise ValueError(
            f"segments are given for {len(segments)} inputs, but the batch has {sizes[0]}; give one list of segments "
            "for each input, such as [encoding.segments]"
        )


class SegmentLogitsProcessor(LogitsProcessor):
    """Allows only the tokens that continue a sequence of whole segments, each used at most once.

    After a segment any unused one may begin, or the answer may end if it is long enough; before the first it can't end,
    unless there is no segment at all. A segment that does not fit the remaining tokens does not begin, nor does one
    that repeats another; if not even the first fits, it is the shortest. Nothing follows a fence that stays open.
    After the segment that it follows in a candidate a segment is written as it stands there, so an answer that follows
    one candidate equals that candidate, white space and all.

    It works with greedy search, sampling and beams: the rows of an input must be adjacent.

    Args:
        segments: The segments of each input.
        eos_token_id: Id of the token that ends an answer, or of several.
        min_length_ratio: Minimum length of an answer, relative to its shortest candidate, 0 to 1.
        coherence: As in `SegmentScores`, like the next three.
        agreement: A weight.
        consensus: A weight.
        max_overlap: A share, 0 to 1.
        max_tokens: Maximum tokens of an answer, without the one that ends it; None for no limit.
        started: Number of tokens in front of the answer: the start token of an encoder-decoder, or the prompt.
    """

    def __init__(
        self,
        segments: Sequence[Sequence[Segment]],
        eos_token_id: int | Sequence[int],
        *,
        min_length_ratio: float = 0.0,
        coherence: float = 0.0,
        agreement: float = 0.0,
        consensus: float = 0.0,
        max_overlap: float = 1.0,
        max_tokens: int | None = None,
        started: int = 1,
    ) -> None:
        self.max_tokens = max_tokens
        self.started = started
        self.end_ids = [eos_token_id] if isinstance(eos_token_id, int) else list(eos_token_id)
        self.scores = [SegmentScores(row, coherence, agreement, consensus, max_overlap) for row in segments]
        self.min_tokens = [min_length_ratio * shortest_candidate(row) for row in segments]
        # The last call's states by input and what was written of its answer; the next has one token more.
        self._known: dict[tuple[int, tuple[int, ...]], set[State]] = {}

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Set the scores of all tokens that may not come next to -inf; both tensors are (rows, ...)."""
        added = torch.full_like(scores, float("-inf"))
        found = {}
        rows_per_input = len(input_ids) // len(self.scores)  # beams or returned sequences
        for row, ids in enumerate(input_ids.tolist()):
            key = row // rows_per_input, tuple(ids[self.started :])
            found[key] = self._states(*key)
            following = self._following(found[key], *key)
            added[row, list(following)] = scores.new_tensor(list(following.values()))
        self._known = found
        limited = scores + added
        # With `min_length`, not even the end is left when all segments are written.
        limited[torch.isneginf(limited).all(dim=-1).nonzero(), self.end_ids] = 0
        return cast(torch.FloatTensor, limited)

    def _states(self, index: int, written: tuple[int, ...]) -> set[State]:
        """Return all ways to read what is written; none if it left the segments or has ended."""
        before = self._known.get((index, written[:-1]))
        states, rest = (before, written[-1:]) if before is not None and written else ({State()}, written)
        for n_written, token in enumerate(rest, len(written) - len(rest)):
            states = {after for state in states for after in self._step(state, token, index, n_written)}
        return states

    def _following(self, states: set[State], index: int, written: Sequence[int]) -> Mapping[int, float]:
        """Return the tokens that may follow, and what is added to the score of each."""
        tokens: dict[int, float] = {}
        for state in states:
            for token, added in self._next(state, index, len(written)):
                tokens[token] = max(added, tokens.get(token, added))
        if not tokens.keys() <= set(self.end_ids) and len(written) < self.min_tokens[index]:
            for end in self.end_ids:
                tokens.pop(end, None)
        # A row that left the segments, such as a finished one that is padded, can only end.
        return tokens or dict.fromkeys(self.end_ids, 0.0)

    def _step(self, state: State, token: int, index: int, n_written: int) -> list[State]:
        moved = [(i, ids[1:]) for i, ids in self._options(state, index, n_written) if ids[0] == token]
        return [
            state._replace(current=i, rest=rest) if rest else State(used=state.used | {i}, previous=i)
            for i, rest in moved
        ]

    def _next(self, state: State, index: int, n_written: int) -> list[tuple[int, float]]:
        scores = self.scores[index]
        # A segment's score counts until it is clear which one it is, since others may begin alike.
        tokens = [(ids[0], scores.of_segment(i, state.previous)) for i, ids in self._options(state, index, n_written)]
        may_end = state.current is None and (state.used or not scores.segments)
        return [*tokens, *((end, scores.of_end(state.previous)) for end in self.end_ids)] if may_end else tokens

    def _options(self, state: State, index: int, n_written: int) -> list[tuple[int, tuple[int, ...]]]:
        """Return the segments that the next token may belong to, each with its tokens from that one on."""
        if state.current is not None:
            return [(state.current, state.rest)]
        scores = self.scores[index]
        unused = [i for i in range(len(scores.segments)) if i not in state.used and scores.is_new(i, state.used)]
        all_forms = [(i, ids) for i in unused for ids in scores.forms(i, state.previous)]
        if self.max_tokens is None:
            return all_forms
        fitting = [(i, ids) for i, ids in all_forms if n_written + len(ids) <= self.max_tokens]
        if fitting or state.used:
            return fitting
        shortest = min((len(ids) for _, ids in all_forms), default=0)
        return [(i, ids) for i, ids in all_forms if len(ids) == shortest]


class SegmentScores:
    """What is added to the score of each segment of an input, and of the end, as the next.

    Args:
        segments: The segments of the input.
        coherence: Added to a segment that follows the previous one in its candidate, to a candidate's first segment at
            the start, and to the end after a candidate's last segment.
        agreement: Weight of `agreements`, as far as they exceed the mean over all tokens.
        consensus: Weight of `consensus_of`, as far as it exceeds the mean over all tokens.
        max_overlap: Share, 0 to 1, of the distinct tokens of a segment that one of another candidate before it may
            have: with more it is a repetition.
    """

    def __init__(
        self, segments: Sequence[Segment], coherence: float, agreement: float, consensus: float, max_overlap: float
    ) -> None:
        self.segments = segments
        self.coherence = coherence
        self._repeats = _repeats(segments, max_overlap)
        weighted = ((agreement, agreements(segments)), (consensus, consensus_of(segments)))
        self._shared = [sum(parts) for parts in zip(*(_above_mean(segments, *part) for part in weighted), strict=True)]
        self._last = {candidate: max(places) for candidate, places in _by_candidate(segments).items()}

    def is_new(self, index: int, written: Iterable[int]) -> bool:
        """Return whether a segment repeats none of those that are written."""
        return self._repeats[index].isdisjoint(written)

    def of_segment(self, index: int, previous: int) -> float:
        """Return what is added to the score of a segment after another, or at the `START`."""
        follows = bool(self.segments[index].follows(self._segment(previous)))
        return self._shared[index] + self.coherence * follows

    def of_end(self, previous: int) -> float:
        """Return what is added to the score of the end after a segment."""
        if previous == START:
            return 0.0
        places = self.segments[previous].places
        return self.coherence * any(place == self._last[candidate] for candidate, place in places)

    def forms(self, index: int, previous: int) -> set[tuple[int, ...]]:
        """Return the tokens that a segment may have after another, or at the `START`."""
        return self.segments[index].after(self._segment(previous))

    def _segment(self, index: int) -> Segment | None:
        return None if index == START else self.segments[index]


def agreements(segments: Sequence[Segment]) -> list[float]:
    """Return for each segment the mean share of its distinct tokens that each other candidate has, 0 to 1.

    Other candidates are all but the best one that has the segment.
    """
    tokens = _tokens_by_candidate(segments)
    found = []
    for segment in segments:
        own, said = min(candidate for candidate, _ in segment.places), set(segment.ids)
        shares = [len(said & other) / len(said) for candidate, other in tokens.items() if candidate != own]
        found.append(fmean(shares) if shares else 0.0)
    return found


def consensus_of(segments: Sequence[Segment]) -> list[float]:
    """Return for each segment the mean similarity of its candidate to the others, 0 to 1.

    Similarity is that of Dice on distinct tokens, 2 |A and B| / (|A| + |B|). The most similar candidate is the choice
    of minimum risk if all are about equally good (Kumar and Byrne 2004, "Minimum Bayes-Risk Decoding for Statistical
    Machine Translation"). Of several candidates that have the segment the most similar one counts.
    """
    tokens = _tokens_by_candidate(segments)
    common = {
        candidate: fmean([_dice(own, other) for rival, other in tokens.items() if rival != candidate] or [0.0])
        for candidate, own in tokens.items()
    }
    return [max(common[candidate] for candidate, _ in segment.places) for segment in segments]


def _tokens_by_candidate(segments: Sequence[Segment]) -> dict[int, set[int]]:
    return {
        candidate: {token for index in places.values() for token in segments[index].ids}
        for candidate, places in _by_candidate(segments).items()
    }


def _above_mean(segments: Sequence[Segment], weight: float, shares: Sequence[float]) -> list[float]:
    """Return by how much each segment exceeds the mean over all tokens, times the weight."""
    lengths = [len(segment.ids) for segment in segments]
    mean = sum(share * n for share, n in zip(shares, lengths, strict=True)) / max(sum(lengths), 1)
    return [weight * (share - mean) for share in shares]


def _repeats(segments: Sequence[Segment], max_overlap: float) -> list[set[int]]:
    """Return for each segment those of other candidates that it would repeat."""
    tokens = [set(segment.ids) for segment in segments]
    candidates = [{candidate for candidate, _ in segment.places} for segment in segments]
    return [
        {
            other
            for other, theirs in enumerate(tokens)
            if len(own & theirs) > max_overlap * len(own) and candidates[index].isdisjoint(candidates[other])
        }
        for index, own in enumerate(tokens)
    ]


def _dice(a: set[int], b: set[int]) -> float:
    return 2 * len(a & b) / (len(a) + len(b))


def shortest_candidate(segments: Sequence[Segment]) -> int:
    """Return the number of tokens of the shortest candidate, or 0 if there is none."""
    return min(
        (
            sum(len(segments[index].at((candidate, place))) for place, index in places.items())
            for candidate, places in _by_candidate(segments).items()
        ),
        default=0,
    )


def shortest_beginning(segments: Sequence[Segment]) -> int:
    """Return the number of tokens of the shortest segment that may begin an answer, or 0 if there is none."""
    return min((len(ids) for segment in segments for ids in segment.after(None)), default=0)


def _by_candidate(segments: Sequence[Segment]) -> Mapping[int, dict[int, int]]:
    """Return for each candidate the index of the segment at each of its places."""
    found: dict[int, dict[int, int]] = {}
    for index, segment in enumerate(segments):
        for candidate, place in segment.places:
            found.setdefault(candidate, {})[place] = index
    return found
