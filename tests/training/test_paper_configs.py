"""The recipe of the paper, run dry: the configs of the repository, with small random models of the same classes."""

import json
from pathlib import Path

import pytest
from transformers import DebertaV2Model, T5ForConditionalGeneration

from blender_hf import GenFuser, PairRanker
from blender_hf.cli.main import main
from tests.conftest import backbone_config, build_fuser
from tests.original_checkpoints import write_encoder_tokenizer

CONFIGS = Path(__file__).parents[2] / "configs"
METRICS = ("bertscore", "bleurt", "bartscore")
# Two batches of four are the eight examples of a step.
DRY = ("max_steps=1", "gradient_accumulation_steps=2", "bf16=false", "split=null", "eval_split=null")


@pytest.fixture(scope="module")
def mix_instruct(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records in the format of llm-blender/mix-instruct."""
    path = tmp_path_factory.mktemp("mix") / "train.jsonl"
    with path.open("w", encoding="utf-8") as out:
        for n in range(8):
            candidates = [
                {
                    "model": f"model-{k}",
                    "decoding_method": "top_p",
                    "text": f"The answer is {n + k}, and so on.",
                    "scores": {metric: 0.1 * ((k + shift) % 3) for shift, metric in enumerate(METRICS)},
                }
                for k in range(4)
            ]
            record = {"id": f"unified/{n}", "instruction": "Answer.", "input": f"What is {n}?", "output": f"It is {n}."}
            out.write(json.dumps({**record, "candidates": candidates, "cmp_results": None}) + "\n")
    return path


def run(kind: str, config: str, *settings: str) -> int:
    return main(["train", kind, "--config", str(CONFIGS / config), "--set", *DRY, *settings])


@pytest.mark.slow
def test_the_ranker_of_the_paper(mix_instruct: Path, tmp_path: Path) -> None:
    encoder = tmp_path / "deberta"
    write_encoder_tokenizer(encoder, "sentencepiece")
    DebertaV2Model(backbone_config("deberta-v2", 900)).save_pretrained(encoder)
    own = (
        f"model={encoder}",
        f"data=[{mix_instruct}]",
        f"eval_data=[{mix_instruct}]",
        f"output_dir={tmp_path / 'run'}",
    )
    assert run("ranker", "pair_ranker_paper.yaml", *own) == 0
    config = PairRanker.from_pretrained(tmp_path / "run").config
    assert (config.n_tasks, config.max_source_length, config.max_candidate_length) == (3, 128, 128)
    assert config.backbone_config.model_type == "deberta-v2"
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["training pairs"] == 8 * 5


@pytest.mark.slow
def test_the_fuser_of_the_paper(mix_instruct: Path, checkpoints: Path, tmp_path: Path) -> None:
    model, processor = build_fuser()
    T5ForConditionalGeneration(model.config).save_pretrained(tmp_path / "t5")
    processor.tokenizer.save_pretrained(tmp_path / "t5")
    own = (f"model={tmp_path / 't5'}", f"ranker={checkpoints / 'ranker'}", f"output_dir={tmp_path / 'run'}")
    data = (f"data=[{mix_instruct}]", f"eval_data=[{mix_instruct}]")
    assert run("fuser", "gen_fuser_paper.yaml", *own, *data) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["training examples"] == {"reference": 8}
    assert GenFuser.from_pretrained(tmp_path / "run")
