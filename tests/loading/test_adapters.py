"""Rankers that are adapters over a language model."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from blender_hf import Blender, CheckpointError, InputError, PairRanker
from blender_hf.inputs import Item
from blender_hf.loading.checkpoints import BASE_RANKER, BUNDLED_LLM, locate
from blender_hf.loading.low_bits import base_weights
from blender_hf.loading.models import load_model
from blender_hf.loading.rankers import AutoRanker
from blender_hf.training.settings import RankerSettings
from blender_hf.training.starting_point import starting_point
from tests.conftest import build_separate_ranker, example_texts, ranker_processor
from tests.stacks.families import config_of

TEXTS = example_texts()
PROMPT, CANDIDATES = TEXTS[0], [TEXTS[1], "Yes.", "No, it is not."]
CONFIG = "adapter_config.json"


class ByLength:
    """Ranks by itself."""

    def scores(self, items: Sequence[Item]) -> list[list[float]]:
        return [[float(len(text)) for text in item.texts] for item in items]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PairRanker]:
    """A folder with a language model and an adapter of PEFT over it, and the ranker into which PEFT merged it."""
    root = tmp_path_factory.mktemp("adapters")
    config = config_of("llama", len(ranker_processor().tokenizer))
    torch.manual_seed(0)
    language_model = LlamaForCausalLM(config)
    language_model.save_pretrained(root / "model")
    ranker, processor = build_separate_ranker(config, preference_dim=0)
    ranker.backbone.load_state_dict(language_model.model.state_dict())
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], modules_to_save=["head"])
    adapted = get_peft_model(ranker, lora)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora" in name or "modules_to_save" in name:
                weight.normal_(std=0.2)
    adapted.save_pretrained(root / "ranker")
    ranker.config.save_pretrained(root / "ranker")
    processor.save_pretrained(root / "ranker")
    change(root / "ranker", base_model_name_or_path="../model")
    return root, adapted.merge_and_unload().eval()


def change(folder: Path, **settings: Any) -> None:
    path = folder / CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def copy_of(made: tuple[Path, PairRanker], folder: Path) -> Path:
    """Copy the adapter beside no language model, which it names by its path."""
    for path in (made[0] / "ranker").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    change(folder, base_model_name_or_path=str(made[0] / "model"))
    return folder


def test_an_adapter_of_peft_gives_the_scores_that_peft_gives(made: tuple[Path, PairRanker]) -> None:
    expected = Blender(made[1], ranker_processor()).rank(PROMPT, CANDIDATES).scores
    assert max(expected) - min(expected) > 0.1
    assert Blender.from_pretrained(made[0] / "ranker", None).rank(PROMPT, CANDIDATES).scores == pytest.approx(
        expected, abs=1e-5
    )


def test_what_it_gives_is_an_ordinary_ranker(made: tuple[Path, PairRanker], tmp_path: Path) -> None:
    blender = Blender.from_pretrained(made[0] / "ranker", None)
    blender.ranker.model.save_pretrained(tmp_path, processor=blender.ranker.scorer.processor)
    assert (tmp_path / "model.safetensors").is_file()
    again = Blender.from_pretrained(tmp_path, None)
    assert again.rank(PROMPT, CANDIDATES).scores == blender.rank(PROMPT, CANDIDATES).scores


def test_another_copy_of_the_language_model_may_be_given(made: tuple[Path, PairRanker], tmp_path: Path) -> None:
    weights = load_file(made[0] / "model" / "model.safetensors")
    (tmp_path / "config.json").write_bytes((made[0] / "model" / "config.json").read_bytes())
    save_file(
        {name: weight * 1.1 for name, weight in weights.items()},
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    own, other = (Blender.from_pretrained(made[0] / "ranker", None, base=base) for base in (None, tmp_path))
    assert own.rank(PROMPT, CANDIDATES).scores != other.rank(PROMPT, CANDIDATES).scores


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peft_type": "IA3"}, r"other than plain LoRA \(peft_type='IA3'\): merge it"),
        ({"use_dora": True}, r"other than plain LoRA \(peft_type='LORA', use_dora=True\): merge it"),
    ],
)
def test_other_adapters_are_to_be_merged(
    settings: dict[str, Any], message: str, made: tuple[Path, PairRanker], tmp_path: Path
) -> None:
    change(copy_of(made, tmp_path), **settings)
    with pytest.raises(CheckpointError, match=message):
        Blender.from_pretrained(tmp_path, None)


def test_a_base_that_does_not_fit_is_an_error(made: tuple[Path, PairRanker], tmp_path: Path) -> None:
    config = config_of("llama", len(ranker_processor().tokenizer))
    config.intermediate_size += 8
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"does not fit its language model.*down_proj.*give the model"):
        Blender.from_pretrained(made[0] / "ranker", None, base=tmp_path)


def test_a_base_is_for_adapters_alone(made: tuple[Path, PairRanker]) -> None:
    with pytest.raises(CheckpointError, match=r"no adapter.*takes no base"):
        Blender.from_pretrained("pair-ranker-mini", None, base=made[0] / "model")
    with pytest.raises(InputError, match=r"base= is for a ranker that is an adapter"):
        Blender.from_pretrained(ByLength(), None, base="x")


@pytest.mark.parametrize(
    ("dtype", "expected"), [("auto", torch.float32), ("bfloat16", torch.bfloat16), (torch.float16, torch.float16)]
)
def test_a_precision_may_be_named_as_in_transformers(dtype: Any, expected: torch.dtype) -> None:
    assert AutoRanker.from_pretrained(locate(BASE_RANKER), dtype=dtype).dtype == expected


def test_what_is_trained_has_weights_of_its_own() -> None:
    model, _ = starting_point(RankerSettings(model=BASE_RANKER))
    shared = {weight.data_ptr() for weight in base_weights(locate(BUNDLED_LLM), torch.float32).values()}
    assert shared.isdisjoint(weight.data_ptr() for weight in model.parameters())


def test_settings_of_its_configuration_may_be_given(made: tuple[Path, PairRanker]) -> None:
    model = load_model(PairRanker, str(made[0] / "ranker"), pooling="mean")
    assert model.config.pooling == "mean"
