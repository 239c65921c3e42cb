"""Formats of preference data: each turns a ranked record into rows.

DPO, KTO, SFT and rewards have the columns of TRL (https://huggingface.co/docs/trl/dataset_formats). SPPO has those of
the data of its authors (github.com/uclaml/SPPO, scripts/compute_prob.py), with the probabilities of the comparisons
themselves where theirs are made from differences of scores.
"""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from blender_hf.data.labelled import without_reference
from blender_hf.data.records import Record
from blender_hf.engine.results import Ranking
from blender_hf.engine.rewards import group_rewards
from blender_hf.inputs import Item
from blender_hf.modeling.conversations import Message
from blender_hf.modeling.processing_causal_gen_fuser import TEMPLATE_OPTIONS, fusion_messages

Messages = list[Message]
Fields = dict[str, Any]
# Chooses pairs of indices of candidates, the better one first.
PairRule = Callable[[Ranking, random.Random], Iterator[tuple[int, int]]]


@dataclass(frozen=True)
class Outcome:
    """How certain a winner is."""

    #: Logit of the winner; 0 is a tie, and below 0 the other one wins this comparison.
    margin: float
    #: Probability, 0 to 1, that the winner is the better one.
    probability: float
    #: Whether the winner changes with the presentation order; None where only one order was scored.
    flipped: bool | None
    #: Whether there is no winner.
    tied: bool


@dataclass(frozen=True)
class Row:
    """A row of the output, and the comparison that it states.

    It is that of chosen and rejected, of a completion and the others, or of the best and the worst.
    """

    fields: Fields
    outcome: Outcome


@dataclass(frozen=True)
class Labelled:
    """A record with its ranking, and how to write it."""

    record: Record
    ranking: Ranking
    #: Whether prompts and completions are written as chat messages.
    conversational: bool = False
    #: Which pairs become rows of DPO, a name of `PAIRS`.
    pairs: str = "best-worst"
    #: Random seed.
    seed: int | str = 0
    #: How many of the best candidates a prompt of SFT has at most.
    max_candidates: int = 3

    @property
    def prompt(self) -> str | Messages:
        """The prompt with its instruction."""
        return list(self.record.item.messages) if self.conversational else self.record.item.source

    def completion(self, index: int) -> str | Messages:
        """Return a candidate as the answer to the prompt."""
        return self.answer(index) if self.conversational else self.ranking.candidates[index]

    def answer(self, index: int) -> Messages:
        """Return the messages of a candidate, as they came in; a text is one by the assistant."""
        messages = self.record.item.candidates[index].messages
        return [*(messages or [{"role": "assistant", "content": self.ranking.candidates[index]}])]

    def dialogue(self, index: int) -> Messages:
        """Return the prompt and a candidate as one conversation."""
        return [*self.record.item.messages, *self.answer(index)]

    def start(self) -> Fields:
        """Return the columns that all formats begin with."""
        return {"id": str(self.record.id), "prompt": self.prompt}


def best_worst(ranking: Ranking, rng: random.Random) -> Iterator[tuple[int, int]]:
    """Yield the best and the worst."""
    yield ranking.order[0], ranking.order[-1]


def best_random(ranking: Ranking, rng: random.Random) -> Iterator[tuple[int, int]]:
    """Yield the best and a random other one."""
    best = ranking.order[0]
    others = [index for index in ranking.order if ranking.candidates[index] != ranking.candidates[best]]
    if others:
        yield best, rng.choice(others)


def all_pairs(ranking: Ranking, rng: random.Random) -> Iterator[tuple[int, int]]:
    """Yield every pair of different candidates, each once."""
    seen: dict[str, int] = {}
    for index in ranking.order:
        if ranking.candidates[index] not in seen:
            yield from ((better, index) for better in seen.values())
            seen[ranking.candidates[index]] = index


PAIRS: dict[str, PairRule] = {"best-worst": best_worst, "best-random": best_random, "all": all_pairs}


@dataclass(frozen=True)
class OutputFormat:
    """A format of preference data."""

    rows: Callable[[Labelled], Iterator[Row]]
    #: The kind of each column, as `tables` names them.
    columns: dict[str, str]
    #: Whether a row says that something is better, so that it means nothing for a tie.
    states_a_winner: bool
    #: A record with fewer different candidates has no rows.
    min_candidates: int
    #: What a row is.
    unit: str
    #: Whether a record without a reference has no rows.
    needs_reference: bool = False


def dpo_rows(labelled: Labelled) -> Iterator[Row]:
    """Yield a row per pair: `prompt`, `chosen` and `rejected`, how certain that is, and who wrote them."""
    ranking = labelled.ranking
    for winner, loser in PAIRS[labelled.pairs](ranking, random.Random(labelled.seed)):
        outcome = pair_outcome(ranking, winner, loser)
        yield Row(
            {
                **labelled.start(),
                "chosen": labelled.completion(winner),
                "rejected": labelled.completion(loser),
                "margin": outcome.margin,
                "probability": outcome.probability,
                "score_chosen": ranking.scores[winner],
                "score_rejected": ranking.scores[loser],
                "model_chosen": ranking.models[winner],
                "model_rejected": ranking.models[loser],
            },
            outcome,
        )


def kto_rows(labelled: Labelled) -> Iterator[Row]:
    """Yield a row per candidate; its `label` is whether it beats another one with probability above one half."""
    for start, fields, outcome in _completions(labelled):
        yield Row({**start, "label": fields["probability"] > 0.5, **fields}, outcome)


def reward_rows(labelled: Labelled) -> Iterator[Row]:
    """Yield a row per candidate; its `reward` is its mean logit against the others."""
    for start, fields, outcome in _completions(labelled):
        yield Row({**start, **fields}, outcome)


def sppo_rows(labelled: Labelled) -> Iterator[Row]:
    """Yield one row: all responses, who beats whom with which probability, and the pair that SPPO trains with."""
    ranking = labelled.ranking
    indices = range(len(ranking.candidates))
    probability = [[ranking.probability(i, j) for j in indices] for i in indices]
    best, worst = ranking.order[0], ranking.order[-1]
    yield Row(
        {
            **labelled.start(),
            "responses": list(ranking.candidates),
            "probability": probability,
            "rm_scores": list(ranking.scores),
            "models": list(ranking.models),
            "chosen": labelled.dialogue(best),
            "rejected": labelled.dialogue(worst),
            "chosen_probs": probability[best][worst],
            # As its authors do, the mean takes in the half with which a response beats itself.
            "chosen_probs_win": sum(probability[best]) / len(indices),
            "chosen_probs_lose": sum(probability[worst]) / len(indices),
        },
        pair_outcome(ranking, best, worst),
    )


def ranking_rows(labelled: Labelled) -> Iterator[Row]:
    """Yield one row: the candidates, the best first, and how the ranking came about."""
    ranking = labelled.ranking
    row = {**ranked_fields(ranking, labelled.record.item), **labelled.start()}
    order = ("id", "prompt", *(name for name in row if name not in ("id", "prompt")))
    yield Row({name: row[name] for name in order}, pair_outcome(ranking, ranking.order[0], ranking.order[-1]))


def sft_rows(labelled: Labelled) -> Iterator[Row]:
    """Yield one row, or none without a candidate beside the reference: the best candidates to fuse, and the reference.

    It is what `train fuser` makes of a record for its task "reference".
    """
    ranking, reference = labelled.ranking, labelled.record.reference
    texts = without_reference((ranking.candidates[index] for index in ranking.order), reference)
    if best := texts[: labelled.max_candidates]:
        yield Row(
            {
                "id": str(labelled.record.id),
                "prompt": fusion_messages(labelled.record.item.messages, best),
                "completion": [{"role": "assistant", "content": reference}],
                "chat_template_kwargs": dict(TEMPLATE_OPTIONS),
            },
            pair_outcome(ranking, ranking.order[0], ranking.order[-1]),
        )


def ranked_fields(ranking: Ranking, item: Item) -> Fields:
    """Return a ranking with the candidates of its item, the best first, as plain values."""
    candidates = [
        {
            **item.candidates[index].fields,
            "rank": ranking.ranks[index],
            "score": ranking.scores[index],
        }
        for index in ranking.order
    ]
    full = ranking.to_dict()
    names = ("schedule", "n_comparisons", "flip_rate", "n_cycles", "truncated", "unread")
    return {"candidates": candidates, **{name: full[name] for name in names}}


COMPLETION = {"reward": "float", "probability": "float", "rank": "integer", "model": "string"}
START = {"id": "string", "prompt": "prompt"}
FORMATS = {
    "dpo": OutputFormat(
        dpo_rows,
        {
            **START,
            "chosen": "prompt",
            "rejected": "prompt",
            **dict.fromkeys(("margin", "probability", "score_chosen", "score_rejected"), "float"),
            **dict.fromkeys(("model_chosen", "model_rejected"), "string"),
        },
        states_a_winner=True,
        min_candidates=2,
        unit="pair",
    ),
    "kto": OutputFormat(
        kto_rows,
        {**START, "completion": "prompt", "label": "boolean", **COMPLETION},
        states_a_winner=True,
        min_candidates=2,
        unit="completion",
    ),
    "sppo": OutputFormat(
        sppo_rows,
        {
            **START,
            "responses": "strings",
            "probability": "matrix",
            "rm_scores": "floats",
            "models": "strings",
            **dict.fromkeys(("chosen", "rejected"), "messages"),
            **dict.fromkeys(("chosen_probs", "chosen_probs_win", "chosen_probs_lose"), "float"),
        },
        states_a_winner=False,
        min_candidates=2,
        unit="prompt",
    ),
    "rankings": OutputFormat(
        ranking_rows,
        {
            **START,
            "candidates": "candidates",
            "schedule": "string",
            "n_comparisons": "integer",
            "flip_rate": "float",
            "n_cycles": "integer",
            "truncated": "truncated",
            "unread": "unread",
        },
        states_a_winner=False,
        min_candidates=1,
        unit="prompt",
    ),
    "sft": OutputFormat(
        sft_rows,
        {"id": "string", "prompt": "messages", "completion": "messages", "chat_template_kwargs": "template_options"},
        states_a_winner=False,
        min_candidates=1,
        unit="prompt",
        needs_reference=True,
    ),
    "rewards": OutputFormat(
        reward_rows,
        {**START, "completion": "prompt", **COMPLETION},
        states_a_winner=False,
        min_candidates=1,
        unit="completion",
    ),
}


def pair_outcome(ranking: Ranking, winner: int, loser: int) -> Outcome:
    """Return how sure it is that one candidate is better than another."""
    margin = 0.0 if winner == loser else ranking.inferred[winner][loser]
    tied = margin == 0 or ranking.scores[winner] == ranking.scores[loser]
    return Outcome(margin, ranking.probability(winner, loser), ranking.flipped(winner, loser), tied)


def _completions(labelled: Labelled) -> Iterator[tuple[Fields, Fields, Outcome]]:
    """Yield each different candidate in the order given: its text, its reward, and how sure it is to be good or bad."""
    ranking = labelled.ranking
    for index, reward in enumerate(group_rewards(ranking, "logit")):
        if ranking.candidates.index(ranking.candidates[index]) < index:
            continue
        probability = ranking.win_probability(index)
        yield (
            {**labelled.start(), "completion": labelled.completion(index)},
            {
                "reward": reward,
                "probability": probability,
                "rank": ranking.ranks[index],
                "model": ranking.models[index],
            },
            Outcome(
                reward if probability > 0.5 else -reward,
                max(probability, 1 - probability),
                _flips_overall(ranking, index),
                probability == 0.5,
            ),
        )


def _flips_overall(ranking: Ranking, index: int) -> bool | None:
    """Return whether a candidate wins overall in one presentation order and loses in the other."""
    logits, texts = ranking.logits, ranking.candidates
    others = [j for j, text in enumerate(texts) if text != texts[index]]
    product = math.fsum(logits[index][j] for j in others) * math.fsum(logits[j][index] for j in others)
    return None if math.isnan(product) else product > 0
