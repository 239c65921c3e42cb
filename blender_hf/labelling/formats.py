"""The formats of preference data, as a table: each turns a ranked record into rows.

DPO, KTO and rewards have the columns of TRL (https://huggingface.co/docs/trl/dataset_formats); SPPO has those of the
data of its authors (github.com/uclaml/SPPO, scripts/compute_prob.py), with the probabilities of the comparisons
themselves where theirs are made from differences of scores.
"""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from blender_hf.data.records import Record
from blender_hf.engine.results import Ranking
from blender_hf.engine.rewards import group_rewards
from blender_hf.errors import InputError

from .pairs import get_pairs

Messages = list[dict[str, str]]
Fields = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """How sure a winner is.

    Args:
        margin: Logit of the winner; 0 is a tie, and below 0 the other one wins this comparison.
        probability: Probability, 0 to 1, that the winner is the better one.
        flipped: Whether the winner changes with the presentation order; None where only one order was scored.
        tied: Whether there is no winner.
    """

    margin: float
    probability: float
    flipped: bool | None
    tied: bool


@dataclass(frozen=True)
class Row:
    """A row of the output, and how sure it is.

    Args:
        fields: Its columns.
        outcome: The comparison that it states: of chosen and rejected, of a completion and the others, or of the best
            and the worst.
    """

    fields: Fields
    outcome: Outcome


@dataclass(frozen=True)
class Labelled:
    """A record with its ranking, and how it is to be written.

    Args:
        record: The record.
        ranking: Its ranking.
        conversational: Whether prompts and completions are written as chat messages.
        pairs: Which pairs become rows, a name of `pairs.PAIRS`; for DPO.
        seed: Of what is drawn by lot.
    """

    record: Record
    ranking: Ranking
    conversational: bool = False
    pairs: str = "best-worst"
    seed: int | str = 0

    @property
    def prompt(self) -> str | Messages:
        """The prompt with its instruction."""
        return list(self.record.item.messages) if self.conversational else self.record.item.source

    def completion(self, index: int) -> str | Messages:
        """Return a candidate as the answer to the prompt."""
        text = self.ranking.candidates[index]
        return [{"role": "assistant", "content": text}] if self.conversational else text

    def dialogue(self, index: int) -> Messages:
        """Return the prompt and a candidate as one conversation."""
        answer = {"role": "assistant", "content": self.ranking.candidates[index]}
        return [*self.record.item.messages, answer]

    def start(self) -> Fields:
        """Return the columns that all formats begin with."""
        return {"id": str(self.record.id), "prompt": self.prompt}


@dataclass(frozen=True)
class OutputFormat:
    """A format of preference data.

    Args:
        rows: Makes the rows of a record.
        columns: The type of each column, as `tables.TYPES` names them.
        states_a_winner: Whether a row says that something is better, so that it means nothing where there is a tie.
        min_candidates: A record with fewer different candidates has no rows.
        unit: What a row is.
    """

    rows: Callable[[Labelled], Iterator[Row]]
    columns: dict[str, str]
    states_a_winner: bool
    min_candidates: int
    unit: str


def dpo_rows(labelled: Labelled) -> Iterator[Row]:
    """Yield a row a pair: `prompt`, `chosen` and `rejected`, how sure that is, and who wrote them."""
    ranking = labelled.ranking
    for chosen, rejected in get_pairs(labelled.pairs)(ranking, random.Random(labelled.seed)):
        outcome = pair_outcome(ranking, chosen, rejected)
        yield Row(
            {
                **labelled.start(),
                "chosen": labelled.completion(chosen),
                "rejected": labelled.completion(rejected),
                "margin": outcome.margin,
                "probability": outcome.probability,
                "score_chosen": ranking.scores[chosen],
                "score_rejected": ranking.scores[rejected],
                "model_chosen": ranking.models[chosen],
                "model_rejected": ranking.models[rejected],
            },
            outcome,
        )


def kto_rows(labelled: Labelled) -> Iterator[Row]:
    """Yield a row a candidate; its `label` is whether it is better than another one with probability above one half."""
    for start, fields, outcome in _completions(labelled):
        yield Row({**start, "label": fields["probability"] > 0.5, **fields}, outcome)


def reward_rows(labelled: Labelled) -> Iterator[Row]:
    """Yield a row a candidate; its `reward` is its mean logit against the others."""
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
    row = {**ranked_fields(ranking), **labelled.start()}
    order = ("id", "prompt", *(name for name in row if name not in ("id", "prompt")))
    yield Row({name: row[name] for name in order}, pair_outcome(ranking, ranking.order[0], ranking.order[-1]))


def ranked_fields(ranking: Ranking) -> Fields:
    """Return a ranking with its candidates, the best first, as plain values."""
    candidates = [
        {
            "model": ranking.models[index],
            "text": ranking.candidates[index],
            "rank": ranking.ranks[index],
            "score": ranking.scores[index],
        }
        for index in ranking.order
    ]
    full = ranking.to_dict()
    names = ("schedule", "n_comparisons", "flip_rate", "n_cycles", "truncated")
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
        },
        states_a_winner=False,
        min_candidates=1,
        unit="prompt",
    ),
    "rewards": OutputFormat(
        reward_rows,
        {**START, "completion": "prompt", **COMPLETION},
        states_a_winner=False,
        min_candidates=1,
        unit="completion",
    ),
}


def get_format(name: str) -> OutputFormat:
    """Return an output format by its name.

    Raises:
        InputError: If there is none of that name.
    """
    if name not in FORMATS:
        raise InputError(f"there is no format {name!r}; use one of {', '.join(FORMATS)}")
    return FORMATS[name]


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
