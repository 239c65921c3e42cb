import pytest

from blender_hf import Blender
from blender_hf.data.records import record_from_mapping
from blender_hf.errors import InputError
from blender_hf.space.browsing import ANY_MODEL, ORDERS, RankedBatch, RankedPrompt
from blender_hf.space.settings import RankingSettings

pytestmark = pytest.mark.once

VALUES = [
    {"prompt": "Where is Rome?", "candidates": {"alpha": "In Italy.", "beta": "I like trains."}},
    {"prompt": "2 + 2?", "candidates": {"alpha": "4", "beta": "Bananas are yellow."}},
    {"prompt": "Who?", "candidates": ["Me."]},
]


@pytest.fixture(scope="module")
def batch(blender: Blender) -> RankedBatch:
    records = [
        record_from_mapping(
            {**value, "candidates": _named(value["candidates"])}, where=f"record {number}", default_id=number
        )
        for number, value in enumerate(VALUES, 1)
    ]
    rankings = [blender.rank(record.item.prompt, record.item.candidates) for record in records]
    return RankedBatch(tuple(map(RankedPrompt, records, rankings)), RankingSettings(), "ranker")


def _named(candidates: dict[str, str] | list[str]) -> list:
    if isinstance(candidates, list):
        return candidates
    return [{"text": text, "model": model} for model, text in candidates.items()]


@pytest.mark.parametrize(
    ("search", "found"),
    [("", [0, 1, 2]), ("ROME", [0]), ("italy rome", [0]), ("italy bananas", []), ("alpha", [0, 1]), (" me. ", [2])],
)
def test_all_words_are_looked_for_in_prompts_answers_and_names(
    batch: RankedBatch, search: str, found: list[int]
) -> None:
    assert batch.find(search) == found


def test_the_best_model_narrows_the_list(batch: RankedBatch) -> None:
    assert batch.winners[0] == ANY_MODEL
    won = {model: batch.find(winner=model) for model in batch.winners[1:]}
    assert sorted(index for indices in won.values() for index in indices) == [0, 1]
    for model, indices in won.items():
        assert all(batch.prompts[index].best_model == model for index in indices)


def test_the_order_is_that_of_the_margins(batch: RankedBatch) -> None:
    margins = [prompt.margin for prompt in batch.prompts]
    assert margins[2] == 1.0
    clearest, closest = list(ORDERS)[1:]
    assert [margins[index] for index in batch.find(order=clearest)] == sorted(margins, reverse=True)
    assert [margins[index] for index in batch.find(order=closest)] == sorted(margins)
    with pytest.raises(InputError, match="unknown order"):
        batch.find(order="random")


def test_a_label_has_the_prompt_and_its_best_answer(batch: RankedBatch) -> None:
    [(label, index)] = batch.choices([2])
    assert (label, index) == ("3. Who?\nCandidate 1", 2)
    [(label, _)] = batch.choices([0])
    assert label.startswith(f"1. Where is Rome?\n{batch.prompts[0].best_model}, ")
    assert label.endswith("% against the second")
