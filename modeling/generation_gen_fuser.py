"""Faithful decoding: the fuser selects, orders and merges passages of the candidates, and invents nothing.

A small fuser can't write prose of its own, but it can choose. Held to whole passages it is fluent wherever the
candidates are, can't loop, and never stops in mid-sentence.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList

from .passages import BEGINNING, Passage, PassageOrder, shortest_candidate

# The passages that were used, the one that is being written or -1, the place in it of the next token, and the passage
# before it.
State = tuple[frozenset[int], int, int, int]
START: State = (frozenset(), -1, 0, BEGINNING)


class PassageLogitsProcessor(LogitsProcessor):
    """Allows only the tokens that continue a sequence of whole passages, each used at most once.

    After a passage any unused one may begin, or the answer may end if it is long enough; before the first it can't end,
    unless there is no passage at all. A passage that would be cut off by the end of the room does not begin, unless
    nothing is written yet, nor does one that repeats another. It works with greedy search, sampling and beams.

    Args:
        passages: The passages of each input.
        eos_token_id: Id of the token that ends an answer.
        rows_per_input: Rows of the batch for each input: beams or returned sequences.
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
        rows_per_input: int = 1,
        least_share: float = 0.0,
        coherence: float = 0.0,
        agreement: float = 0.0,
        consensus: float = 0.0,
        most_repeated: float = 1.0,
        most_tokens: int | None = None,
    ) -> None:
        self.most_tokens = most_tokens
        self.eos_token_id = eos_token_id
        self.rows_per_input = rows_per_input
        self.orders = [PassageOrder(row, coherence, agreement, consensus, most_repeated) for row in passages]
        self.least_tokens = [least_share * shortest_candidate(row) for row in passages]
        # What the last call found for each input and what was written of its answer; the next has one token more.
        self._known: dict[tuple[int, tuple[int, ...]], set[State]] = {}

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Set the scores of all tokens that may not come next to -inf; both tensors are (rows, ...)."""
        added = torch.full_like(scores, float("-inf"))
        found = {}
        for row, ids in enumerate(input_ids.tolist()):
            key = row // self.rows_per_input, tuple(ids[1:])  # without the start token
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
        used, _, place, before = state
        passages = self.orders[index].passages
        moved = [(i, place + 1) for i in self._options(state, index, n_written) if passages[i].ids[place] == token]
        return [
            (used | {i}, -1, 0, i) if position == len(passages[i].ids) else (used, i, position, before)
            for i, position in moved
        ]

    def _next(self, state: State, index: int, n_written: int) -> list[tuple[int, float]]:
        used, current, place, before = state
        order = self.orders[index]
        passages = order.passages
        # What speaks for a passage does so until it is clear that it is this one, for others may begin alike.
        options = self._options(state, index, n_written)
        tokens = [(passages[i].ids[place], order.of_passage(i, before)) for i in options]
        may_end = current < 0 and (used or not passages)
        return [*tokens, (self.eos_token_id, order.of_end(before))] if may_end else tokens

    def _options(self, state: State, index: int, n_written: int) -> list[int]:
        """Return the passages that the next token may be of."""
        used, current, _, _ = state
        return [current] if current >= 0 else self._startable(used, self.orders[index], n_written)

    def _startable(self, used: frozenset[int], order: PassageOrder, n_written: int) -> list[int]:
        passages = order.passages
        unused = [i for i in range(len(passages)) if i not in used and order.says_something_new(i, used)]
        if self.most_tokens is None:
            return unused
        fitting = [i for i in unused if n_written + len(passages[i].ids) <= self.most_tokens]
        return fitting if fitting or used else unused


class PassageGenerationMixin:
    """Gives `generate` of transformers the option `passages`."""

    def generate(self, *args: Any, passages: Sequence[Sequence[Passage]] | None = None, **kwargs: Any) -> Any:
        """Write fused answers.

        Args:
            *args: As in transformers.
            passages: For each row of the batch, the passages that may be written. Given them, the answer is a sequence
                of whole passages, each at most once; see `PassageLogitsProcessor`.
            **kwargs: Options of `transformers.GenerationMixin.generate`.

        Returns:
            The token ids, (batch, length), or what `return_dict_in_generate` asks for.
        """
        if passages is not None:
            beams = kwargs.get("num_beams") or self.generation_config.num_beams or 1
            rows = beams if beams > 1 else kwargs.get("num_return_sequences") or 1
            faithful = PassageLogitsProcessor(
                passages,
                self.config.eos_token_id,
                rows,
                self.config.faithful_least_share,
                self.config.faithful_coherence,
                self.config.faithful_agreement,
                self.config.faithful_consensus,
                self.config.faithful_most_repeated,
                self._room(kwargs),
            )
            kwargs["logits_processor"] = LogitsProcessorList([*(kwargs.get("logits_processor") or []), faithful])
        return super().generate(*args, **kwargs)  # type: ignore[misc]

    def _room(self, options: Mapping[str, Any]) -> int | None:
        """Return how many tokens `generate` may write."""
        config = options.get("generation_config") or self.generation_config  # type: ignore[attr-defined]
        new, whole = (options.get(name) or getattr(config, name) for name in ("max_new_tokens", "max_length"))
        return new if new is not None or whole is None else whole - 1  # it counts the start token
