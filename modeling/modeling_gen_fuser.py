"""GenFuser: reads a prompt and its best candidates and writes one better answer.

Section 4 of LLM-Blender (Jiang, Ren, Lin, ACL 2023, arXiv 2306.02561).
"""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, T5ForConditionalGeneration
from transformers.utils import logging

from .configuration_gen_fuser import GenFuserConfig
from .fast_kernels import use_fast_products
from .hub_mixins import PublishingMixin, StrictLoadingMixin
from .processing_gen_fuser import Passage

if TYPE_CHECKING:
    # From a local folder, transformers 4 loads only the files that this one names; this is what its imports import.
    from .tokenization import PlainTextEncoder  # noqa: F401

logger = logging.get_logger(__name__)

# The default of transformers 4, which every configuration there has; and the length of the paper's targets.
UNSTATED_LENGTH, TARGET_LENGTH = 20, 128
EMBEDDINGS, OUTPUT_LAYER = "shared.weight", "lm_head.weight"
BEGINNING = -1  # in place of the passage that was written last, before any was
# The passages that were used, the one that is being written or -1, the tokens of it that are still to come, and the
# passage before it.
State = tuple[frozenset[int], int, tuple[int, ...], int]
START: State = (frozenset(), -1, (), BEGINNING)
# A fusion is one text, so these options of `generate` can be nothing else.
ONE_TEXT = {"num_return_sequences": 1, "return_dict_in_generate": False}


def state_length(generation: GenerationConfig) -> None:
    """Let a configuration that states no length of the answer state that of the paper's targets."""
    if generation.max_new_tokens is None and generation.max_length in (None, UNSTATED_LENGTH):
        generation.max_new_tokens = TARGET_LENGTH


def one_text_options(generation: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return options of `generate` for a fusion, which is one text; None stands for none.

    Raises:
        TypeError: If they are no mapping.
        ValueError: If they ask for anything but one text.
    """
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


class PassageGenerationMixin:
    """Gives `generate` of transformers the option `passages`."""

    def generate(
        self,
        inputs: Any = None,
        generation_config: GenerationConfig | None = None,
        logits_processor: Sequence[LogitsProcessor] | None = None,
        *args: Any,
        passages: Sequence[Sequence[Passage]] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Write fused answers.

        Args:
            inputs: As in transformers, like the next two; mostly given as `input_ids`.
            generation_config: Options of generation.
            logits_processor: What else changes the scores of tokens.
            *args: As in transformers.
            passages: For each row of the batch, the passages that may be written. Given them, the answer is a sequence
                of whole passages, each at most once; see `PassageLogitsProcessor`. Without them the answer is written
                freely, whatever `config.faithful` says, and a warning says so.
            **kwargs: Options of `transformers.GenerationMixin.generate`.

        Returns:
            The token ids, (batch, length), or what `return_dict_in_generate` asks for.

        Raises:
            ValueError: If there are not as many lists of passages as rows in the batch.
        """
        if passages is not None:
            _check_batch(passages, inputs, kwargs)
            room = self._room({"generation_config": generation_config, **kwargs})
            logits_processor = LogitsProcessorList([*(logits_processor or []), self._faithful(passages, room)])
        elif self.config.faithful:  # type: ignore[attr-defined]
            logger.warning_once(
                "this fuser is to write only passages of its candidates (config.faithful), but was given none: pass "
                "passages=[encoding.passages, ...], which GenFuserProcessor.encode returns, or use Blender.fuse"
            )
        return super().generate(inputs, generation_config, logits_processor, *args, **kwargs)  # type: ignore[misc]

    def _faithful(self, passages: Sequence[Sequence[Passage]], room: int | None) -> "PassageLogitsProcessor":
        config = self.config  # type: ignore[attr-defined]
        return PassageLogitsProcessor(
            passages,
            config.eos_token_id,
            config.faithful_least_share,
            config.faithful_coherence,
            config.faithful_agreement,
            config.faithful_consensus,
            config.faithful_most_repeated,
            room,
        )

    def _room(self, options: Mapping[str, Any]) -> int | None:
        """Return how many tokens `generate` may write."""
        new, whole = (self._option(name, options) for name in ("max_new_tokens", "max_length"))
        return new if new is not None or whole is None else whole - 1  # it counts the start token

    def _option(self, name: str, options: Mapping[str, Any]) -> Any:
        """Return what an option of `generate` is: as given, else as in the given configuration, else the model's."""
        if options.get(name) is not None:
            return options[name]
        default = getattr(GenerationConfig(), name)  # transformers 4 has some that are not None, and they state nothing
        configs = (options.get("generation_config"), self.generation_config)  # type: ignore[attr-defined]
        stated = [getattr(config, name) for config in configs if config is not None]
        return next((value for value in stated if value not in (None, default)), default)


class GenFuser(StrictLoadingMixin, PublishingMixin, PassageGenerationMixin, T5ForConditionalGeneration):
    """A T5 that fuses candidates. Checkpoints of T5, Flan-T5, ByT5 and mT5 load as they are.

    `generate` has all of its options (beams, sampling, streaming, cache) and one more, `passages`; see
    `PassageGenerationMixin`. Training with `labels` is that of T5: the cross-entropy of the target's tokens, -100 where
    there is none.
    """

    config_class = GenFuserConfig

    def __init__(self, config: GenFuserConfig) -> None:
        super().__init__(config)
        use_fast_products(self)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
        """Load a fuser or a T5; see `StrictLoadingMixin.from_pretrained`.

        Where a repository states no length of its answers, as those of T5 do not, it is that of the paper instead of
        the 20 tokens of transformers.
        """
        loaded = super().from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)
        generation = (loaded[0] if isinstance(loaded, tuple) else loaded).generation_config
        state_length(generation)
        return loaded

    def tie_weights(self, missing_keys: set[str] | None = None, **kwargs: Any) -> None:
        """Tie the embeddings as transformers does; an output layer of its own that was loaded stays one.

        transformers 5 takes all to be tied in every T5. It finds out at loading that they are not, warns, and has
        forgotten it when weights are tied once more, as FSDP does.

        Args:
            missing_keys: While a checkpoint is loaded, what it has not.
            **kwargs: Passed on to transformers.
        """
        loading = {} if missing_keys is None else {"missing_keys": missing_keys}
        scaled = getattr(self.config, "scale_decoder_outputs", True)
        if loading and not scaled and missing_keys.isdisjoint((EMBEDDINGS, OUTPUT_LAYER)):
            self._tied_weights_keys = {
                name: other for name, other in self._tied_weights_keys.items() if name != OUTPUT_LAYER
            }
            self.all_tied_weights_keys.pop(OUTPUT_LAYER, None)
        super().tie_weights(**loading, **kwargs)


def _check_batch(passages: Sequence[Sequence[Passage]], inputs: Any, options: Mapping[str, Any]) -> None:
    given = [inputs, *(options.get(name) for name in ("input_ids", "inputs_embeds"))]
    sizes = [len(rows) for rows in given if rows is not None]
    if sizes and len(passages) != sizes[0]:
        raise ValueError(
            f"passages are given for {len(passages)} inputs, but the batch has {sizes[0]}; give one list of passages "
            "for each input, such as [encoding.passages]"
        )


class PassageLogitsProcessor(LogitsProcessor):
    """Allows only the tokens that continue a sequence of whole passages, each used at most once.

    After a passage any unused one may begin, or the answer may end if it is long enough; before the first it can't end,
    unless there is no passage at all. A passage that would be cut off by the end of the room does not begin, unless
    nothing is written yet, nor does one that repeats another. Behind the one that it follows in a candidate a passage
    is written as it stands there, so an answer that follows one candidate is that candidate, white space and all.

    It works with greedy search, sampling and beams: however many rows there are for each input, they stand together.

    Args:
        passages: The passages of each input.
        eos_token_id: Id of the token that ends an answer.
        least_share: Share, 0 to 1, of the tokens of its shortest candidate that an answer has before it may end.
        coherence: What speaks for the order in which candidates have their passages, see `PassageOrder`.
        agreement: What speaks for passages that other candidates have too, see there.
        consensus: What speaks for passages of the candidate that has most in common with the others, see there.
        most_repeated: How much of a passage one before it may have, see there.
        most_tokens: Most tokens of an answer, without that of its end; None where there is no limit.
    """

    def __init__(
        self,
        passages: Sequence[Sequence[Passage]],
        eos_token_id: int,
        least_share: float = 0.0,
        coherence: float = 0.0,
        agreement: float = 0.0,
        consensus: float = 0.0,
        most_repeated: float = 1.0,
        most_tokens: int | None = None,
    ) -> None:
        self.most_tokens = most_tokens
        self.eos_token_id = eos_token_id
        self.orders = [PassageOrder(row, coherence, agreement, consensus, most_repeated) for row in passages]
        self.least_tokens = [least_share * shortest_candidate(row) for row in passages]
        # What the last call found for each input and what was written of its answer; the next has one token more.
        self._known: dict[tuple[int, tuple[int, ...]], set[State]] = {}

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Set the scores of all tokens that may not come next to -inf; both tensors are (rows, ...)."""
        added = torch.full_like(scores, float("-inf"))
        found = {}
        rows_per_input = len(input_ids) // len(self.orders)  # beams or returned sequences
        for row, ids in enumerate(input_ids.tolist()):
            key = row // rows_per_input, tuple(ids[1:])  # without the start token
            found[key] = self._states(*key)
            following = self._following(found[key], *key)
            added[row, list(following)] = scores.new_tensor(list(following.values()))
        self._known = found
        return scores + added

    def allowed_tokens(self, written: Sequence[int], index: int = 0) -> dict[int, float]:
        """Return what may follow what is written of the answer to an input.

        Args:
            written: Tokens, without the start token.
            index: The input.

        Returns:
            What is added to the score of each token that may follow.
        """
        return self._following(self._states(index, tuple(written)), index, written)

    def _states(self, index: int, written: tuple[int, ...]) -> set[State]:
        """Return all ways to read what is written; none if it left the passages or is at its end."""
        before = self._known.get((index, written[:-1]))
        states, rest = (before, written[-1:]) if before is not None and written else ({START}, written)
        for n_written, token in enumerate(rest, len(written) - len(rest)):
            states = {after for state in states for after in self._step(state, token, index, n_written)}
        return states

    def _following(self, states: set[State], index: int, written: Sequence[int]) -> Mapping[int, float]:
        tokens: dict[int, float] = {}
        for state in states:
            for token, added in self._next(state, index, len(written)):
                tokens[token] = max(added, tokens.get(token, added))
        if len(tokens) > 1 and len(written) < self.least_tokens[index]:
            tokens.pop(self.eos_token_id, None)
        # A row that left the passages, as a finished one that is padded has, can only end.
        return tokens or {self.eos_token_id: 0.0}

    def _step(self, state: State, token: int, index: int, n_written: int) -> list[State]:
        used, _, _, before = state
        moved = [(i, ids[1:]) for i, ids in self._options(state, index, n_written) if ids[0] == token]
        return [(used, i, rest, before) if rest else (used | {i}, -1, (), i) for i, rest in moved]

    def _next(self, state: State, index: int, n_written: int) -> list[tuple[int, float]]:
        used, current, _, before = state
        order = self.orders[index]
        # What speaks for a passage does so until it is clear that it is this one, for others may begin alike.
        tokens = [(ids[0], order.of_passage(i, before)) for i, ids in self._options(state, index, n_written)]
        may_end = current < 0 and (used or not order.passages)
        return [*tokens, (self.eos_token_id, order.of_end(before))] if may_end else tokens

    def _options(self, state: State, index: int, n_written: int) -> list[tuple[int, tuple[int, ...]]]:
        """Return the passages that the next token may be of, each with its tokens from that one on."""
        used, current, rest, before = state
        return [(current, rest)] if current >= 0 else self._startable(used, before, self.orders[index], n_written)

    def _startable(
        self, used: frozenset[int], before: int, order: "PassageOrder", n_written: int
    ) -> list[tuple[int, tuple[int, ...]]]:
        unused = [i for i in range(len(order.passages)) if i not in used and order.says_something_new(i, used)]
        written = [(i, ids) for i in unused for ids in order.ways_to_write(i, before)]
        if self.most_tokens is None:
            return written
        fitting = [(i, ids) for i, ids in written if n_written + len(ids) <= self.most_tokens]
        return fitting if fitting or used else written


class PassageOrder:
    """What speaks for each passage of an input, and for the end, as the next.

    Args:
        passages: The passages of the input.
        coherence: What is added to the score of a passage that follows in its candidate the one that was written last,
            and of a candidate's first passage at the beginning, and of the end after a candidate's last passage.
        agreement: What is added to the score of a passage, times how much more of it the other candidates have than of
            the mean of all tokens; see `agreements`.
        consensus: What is added to the score of a passage, times how much more its candidate has in common with the
            others than the mean of all tokens; see `consensus_of`.
        most_repeated: Share, 0 to 1, of the distinct tokens of a passage that one of another candidate before it may
            have: with a larger one it says the same again.
    """

    def __init__(
        self,
        passages: Sequence[Passage],
        coherence: float = 0.0,
        agreement: float = 0.0,
        consensus: float = 0.0,
        most_repeated: float = 1.0,
    ) -> None:
        self.passages = passages
        self.coherence = coherence
        self._repeats = _repeats(passages, most_repeated)
        weighed = ((agreement, agreements(passages)), (consensus, consensus_of(passages)))
        self._shared = [sum(parts) for parts in zip(*(_above_mean(passages, *part) for part in weighed), strict=True)]
        self._last = {candidate: max(places) for candidate, places in _by_candidate(passages).items()}

    def says_something_new(self, index: int, written: Iterable[int]) -> bool:
        """Tell whether a passage is no repetition of one that is written."""
        return self._repeats[index].isdisjoint(written)

    def of_passage(self, index: int, before: int) -> float:
        """Return what is added to the score of a passage after another, or at the `BEGINNING`."""
        follows = bool(self.passages[index].follows(self._passage(before)))
        return self._shared[index] + self.coherence * follows

    def ways_to_write(self, index: int, before: int) -> set[tuple[int, ...]]:
        """Return the tokens that a passage may have after another, or at the `BEGINNING`."""
        return self.passages[index].behind(self._passage(before))

    def of_end(self, before: int) -> float:
        """Return what is added to the score of the end after a passage."""
        if before == BEGINNING:
            return 0.0
        return self.coherence * any(place == self._last[candidate] for candidate, place in self.passages[before].places)

    def _passage(self, index: int) -> Passage | None:
        return None if index == BEGINNING else self.passages[index]


def agreements(passages: Sequence[Passage]) -> list[float]:
    """Return for each passage the share of its distinct tokens that another candidate has, 0 to 1.

    It is the mean over the candidates beside the best that has the passage.
    """
    tokens = _tokens_by_candidate(passages)
    found = []
    for passage in passages:
        own, said = min(candidate for candidate, _ in passage.places), set(passage.ids)
        shares = [len(said & other) / len(said) for candidate, other in tokens.items() if candidate != own]
        found.append(fmean(shares) if shares else 0.0)
    return found


def consensus_of(passages: Sequence[Passage]) -> list[float]:
    """Return for each passage what the candidate that has it has in common with the others, 0 to 1.

    Two have in common the share 2 |A and B| / (|A| + |B|) of their distinct tokens (Dice), and the mean over the others
    counts. The candidate with most of it is the choice of least risk if all are about as good (Kumar and Byrne 2004,
    "Minimum Bayes-Risk Decoding for Statistical Machine Translation"). Of several candidates that have the passage the
    one with most counts.
    """
    tokens = _tokens_by_candidate(passages)
    common = {
        candidate: fmean([_dice(own, other) for rival, other in tokens.items() if rival != candidate] or [0.0])
        for candidate, own in tokens.items()
    }
    return [max(common[candidate] for candidate, _ in passage.places) for passage in passages]


def _tokens_by_candidate(passages: Sequence[Passage]) -> dict[int, set[int]]:
    return {
        candidate: set().union(*(passages[index].ids for index in places.values()))
        for candidate, places in _by_candidate(passages).items()
    }


def _above_mean(passages: Sequence[Passage], weight: float, shares: Sequence[float]) -> list[float]:
    """Return by how much each passage has more than the mean of all tokens, weighed."""
    lengths = [len(passage.ids) for passage in passages]
    mean = sum(share * n for share, n in zip(shares, lengths, strict=True)) / max(sum(lengths), 1)
    return [weight * (share - mean) for share in shares]


def _repeats(passages: Sequence[Passage], most: float) -> list[set[int]]:
    """Return for each passage those of other candidates of which it would be a repetition."""
    tokens = [set(passage.ids) for passage in passages]
    candidates = [{candidate for candidate, _ in passage.places} for passage in passages]
    return [
        {
            other
            for other, theirs in enumerate(tokens)
            if len(own & theirs) > most * len(own) and candidates[index].isdisjoint(candidates[other])
        }
        for index, own in enumerate(tokens)
    ]


def _dice(a: set[int], b: set[int]) -> float:
    return 2 * len(a & b) / (len(a) + len(b))


def shortest_candidate(passages: Sequence[Passage]) -> int:
    """Return the number of tokens of the candidate that has the fewest, or 0 if there is none."""
    return min(
        (
            sum(len(passages[index].at((candidate, place))) for place, index in places.items())
            for candidate, places in _by_candidate(passages).items()
        ),
        default=0,
    )


def _by_candidate(passages: Sequence[Passage]) -> Mapping[int, dict[int, int]]:
    """Return for each candidate which passage stands at each of its places."""
    found: dict[int, dict[int, int]] = {}
    for index, passage in enumerate(passages):
        for candidate, place in passage.places:
            found.setdefault(candidate, {})[place] = index
    return found
