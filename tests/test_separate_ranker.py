"""A checkpoint that encodes each candidate once goes wherever a pair ranker goes."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import pipeline

from blender_hf import Blender, PairRanker, PairRankerProcessor
from blender_hf.cli.main import main
from blender_hf.engine.separate import Separate
from tests.conftest import EXAMPLES, backbone_config, build_separate_ranker, ranker_processor
from tests.evaluation.conftest import JUDGED


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("separate") / "ranker"
    vocabulary = len(ranker_processor().tokenizer)
    model, processor = build_separate_ranker(backbone_config("bert", vocabulary), shared_prompt=True)
    model.save_pretrained(path, processor=processor)
    return path


@pytest.fixture
def records(tmp_path: Path) -> Path:
    path = tmp_path / "records.jsonl"
    path.write_text("".join(EXAMPLES.read_text(encoding="utf-8").splitlines(keepends=True)[:3]), encoding="utf-8")
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_commands(folder: Path, records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--ranker", str(folder), "--device", "cpu", "--quiet"]
    ranked = tmp_path / "ranked.jsonl"
    assert main(["rank", str(records), *options, "--schedule", "knockout", "--output", str(ranked)]) == 0
    for line in lines(ranked):
        assert line["ranking"]["n_encodings"] == len(line["ranking"]["order"])
        assert line["ranking"]["schedule"] == "full"
    for form in ("dpo", "sppo", "rankings", "rewards"):
        labelled = tmp_path / f"{form}.jsonl"
        assert main(["label", str(records), *options, "--format", form, "--output", str(labelled)]) == 0
        assert lines(labelled)
    assert main(["evaluate", str(JUDGED), *options, "--json", "--limit", "3", "--output", str(tmp_path / "r")]) == 0
    assert json.loads(capsys.readouterr().out)["rankers"][str(folder)]["figures"]["flips"]["value"] == 0
    assert main(["blend", str(records), *options, "--output", str(tmp_path / "blended.jsonl")]) == 0
    assert [line["returned"] in ("best", "fused") for line in lines(tmp_path / "blended.jsonl")] == [True] * 3


def test_a_blender_and_a_pipeline_give_the_same(folder: Path) -> None:
    record = json.loads(EXAMPLES.read_text(encoding="utf-8").splitlines()[0])
    candidates = [candidate["text"] for candidate in record["candidates"]]
    blender = Blender.from_pretrained(folder, None, device="cpu")
    assert isinstance(blender.ranker, Separate)
    ranking = blender.rank(record["prompt"], candidates)
    piped = pipeline("llm-blending", model=str(folder), fuser=None, device="cpu")(
        {"prompt": record["prompt"], "candidates": candidates}
    )
    assert piped["ranking"]["order"] == list(ranking.order)
    assert piped["ranking"]["n_encodings"] == len(candidates)
    cut = Blender.from_pretrained(folder, None, device="cpu", truncation={"max_candidate_length": 12})
    assert all(cut.rank(record["prompt"], candidates).truncated.candidates)


def test_a_joint_checkpoint_may_be_read_one_by_one(checkpoints: Path) -> None:
    """Without new weights: the head of a pair ranker scores candidates, and their difference is the logit."""
    model = PairRanker.from_pretrained(checkpoints / "ranker", candidate_encoding="separate")
    blender = Blender(model, PairRankerProcessor.from_pretrained(checkpoints / "ranker"))
    ranking = blender.rank("2 + 2?", ["4", "5", "It is 4."])
    assert (ranking.n_encodings, ranking.n_cycles) == (3, 0)
