"""Faithful decoding: the fuser selects, orders and merges passages of the candidates, and invents nothing.

A small fuser can't write prose of its own, but it can choose. Held to whole passages it is fluent wherever the
candidates are, can't loop, and never stops in mid-sentence.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList
from transformers.utils import logging

from .passages import BEGINNING, Passage, PassageOrder, shortest_candidate

logger = logging.get_logger(__name__)

# The passages that were used, the one that is being written or -1, the tokens of it that are still to come, and the
# passage before it.
State = tuple[frozenset[int], int, tuple[int, ...], int]
START: State = (frozenset(), -1, (), BEGINNING)
# A fusion is one text, so these options of `generate` can be nothing else.
ONE_TEXT = {"num_return_sequences": 1, "return_dict_in_generate": False}


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
        self, used: frozenset[int], before: int, order: PassageOrder, n_written: int
    ) -> list[tuple[int, tuple[int, ...]]]:
        unused = [i for i in range(len(order.passages)) if i not in used and order.says_something_new(i, used)]
        written = [(i, ids) for i in unused for ids in order.ways_to_write(i, before)]
        if self.most_tokens is None:
            return written
        fitting = [(i, ids) for i, ids in written if n_written + len(ids) <= self.most_tokens]
        return fitting if fitting or used else written


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

    def _faithful(self, passages: Sequence[Sequence[Passage]], room: int | None) -> PassageLogitsProcessor:
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


def _check_batch(passages: Sequence[Sequence[Passage]], inputs: Any, options: Mapping[str, Any]) -> None:
    given = [inputs, *(options.get(name) for name in ("input_ids", "inputs_embeds"))]
    sizes = [len(rows) for rows in given if rows is not None]
    if sizes and len(passages) != sizes[0]:
        raise ValueError(
            f"passages are given for {len(passages)} inputs, but the batch has {sizes[0]}; give one list of passages "
            "for each input, such as [encoding.passages]"
        )
