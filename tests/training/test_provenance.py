"""What a run says of its data: licences, records left out, and whether it was measured on what it was trained on."""

import json
from pathlib import Path

import pytest

from blender_hf.data.labelled_formats import read_labelled
from blender_hf.training.cards import eval_prompts_text, licence_text
from blender_hf.training.loading import LoadedData, data_facts
from tests.training.test_training import train

RECORDS = [
    {"prompt": f"p{n}", "chosen": "good", "rejected": "bad", **({"license": name} if name else {})}
    for n, name in enumerate(["apache-2.0", "cc-by-nc-4.0", "apache-2.0", None, "mit"])
]


def test_licences_of_what_was_trained_on_are_counted() -> None:
    data = LoadedData(list(read_labelled(RECORDS)), ["d:1: bad"])
    facts = data_facts(data, LoadedData(), ["p0", "p1", "p2", "p3"], ["p9"])
    assert facts["licences"] == {"apache-2.0": 2, "cc-by-nc-4.0": 1, "not stated": 1}
    assert facts["skipped records"] == {"data": ["d:1: bad"], "eval_data": []}
    assert "apache-2.0 (2), cc-by-nc-4.0 (1), not stated (1). Some forbid commercial use" in licence_text(facts)


@pytest.mark.parametrize(
    ("name", "forbids"), [("CC BY-NC-SA 4.0", True), ("Non-Commercial", True), ("ncsa", False), ("cc-by-4.0", False)]
)
def test_what_forbids_commercial_use(name: str, forbids: bool) -> None:
    assert ("forbid commercial use" in licence_text({"licences": {name: 3}})) is forbids


def test_without_licences_the_card_says_so() -> None:
    assert "state no licence" in licence_text({"licences": {"not stated": 4}})


def test_prompts_that_were_trained_on_are_not_called_new() -> None:
    data = LoadedData(list(read_labelled(RECORDS)))
    facts = [data_facts(data, LoadedData(), ["p0", "p1"], measured) for measured in (["p2"], ["p1", "p1", "p2"])]
    assert eval_prompts_text(facts[0]) == "prompts that this run was not trained on"
    assert "trained on 1, so" in eval_prompts_text(facts[1])


@pytest.mark.slow
def test_metrics_and_card_of_a_run_tell_of_its_data(ranker_config: Path, data: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed.jsonl"
    lines = data.read_text(encoding="utf-8").splitlines()
    records = [json.dumps({**json.loads(line), "license": "cc-by-nc-4.0"}) for line in lines]
    mixed.write_text("\n".join([*records, "no JSON"]), encoding="utf-8")
    changes = (
        f"data=[{mixed}]",
        "strict=false",
        "num_train_epochs=1",
        "max_candidate_length=10",
        "synthetic_negatives=0",
    )
    assert train(ranker_config, *changes) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["licences"] == {"cc-by-nc-4.0": len(lines)}
    assert len(metrics["skipped records"]["data"]) == 1
    assert metrics["truncated pairs"] == metrics["training pairs"]
    card = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    assert "Some forbid commercial use" in card
    assert f"trained on {metrics['eval prompts trained on']}, so" in card
