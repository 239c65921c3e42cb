"""Checkpoints that can't be loaded: the message names the file that is missing or damaged, or says who may read it."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModel, pipeline

from blender_hf import Blender, BlenderError, CheckpointError
from blender_hf.loading.rankers import AutoRanker
from tests.conftest import BACKBONES, backbone_config, encoder_tokenizer, ranker_processor
from tests.export.test_hub import Place
from tests.hub_server import running_hub
from tests.original_checkpoints import RANKER_CONFIG, make_pairrm

FILES = ("config.json", "processor_config.json", "tokenizer_config.json", "tokenizer.json", "model.safetensors")
Damage = Callable[[Path], None]


def cut_in_half(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.fixture
def damaged(checkpoints: Path, tmp_path: Path) -> Callable[[str, str, Damage], Path]:
    def make(kind: str, file: str, damage: Damage) -> Path:
        folder = shutil.copytree(checkpoints / kind, tmp_path / kind)
        damage(folder / file)
        return folder

    return make


@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_is_named(file: str, damaged: Callable[[str, str, Damage], Path]) -> None:
    """It was "EOF while parsing a list at line 1286", of whatever file."""
    folder = damaged("ranker", file, cut_in_half)
    with pytest.raises(CheckpointError, match=rf"can't load the ranker '.*/{file} is damaged \(.*download it again"):
        Blender.from_pretrained(folder, None)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("config.json", "has no config.json; give the folder that the model was saved in"),
        ("tokenizer.json", "has no tokenizer.json; save the processor in it too"),
        ("model.safetensors", "no file named .*model.safetensors"),
    ],
)
@pytest.mark.parametrize("kind", ["ranker", "fuser"])
def test_a_missing_file_is_named(
    kind: str, file: str, message: str, checkpoints: Path, damaged: Callable[[str, str, Damage], Path]
) -> None:
    """It was "'NoneType' object has no attribute 'endswith'", or "Couldn't instantiate the backend tokenizer"."""
    folder = damaged(kind, file, Path.unlink)
    parts = {"ranker": checkpoints / "ranker", "fuser": None, kind: folder}
    with pytest.raises(CheckpointError, match=f"can't load the {kind} .*{message}"):
        Blender.from_pretrained(**parts)


def test_a_folder_that_is_empty_or_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        Blender.from_pretrained(tmp_path, None)
    with pytest.raises(CheckpointError, match=r"there is no folder .*/nothing"):
        Blender.from_pretrained(tmp_path / "nothing", None)


@pytest.mark.parametrize("file", ["tokenizer.json", "model.safetensors"])
def test_the_pipeline_says_the_same(file: str, damaged: Callable[[str, str, Damage], Path]) -> None:
    folder = damaged("ranker", file, cut_in_half)
    with pytest.raises(BlenderError, match=f"can't load the ranker .*{file} is damaged"):
        pipeline("llm-blending", model=str(folder), fuser=None)


def test_what_the_pipeline_loads_a_ranker_with_raises_no_error_that_transformers_would_swallow(
    damaged: Callable[[str, str, Damage], Path],
) -> None:
    with pytest.raises(BlenderError, match=r"can't load the ranker .*no file named") as caught:
        AutoRanker.from_pretrained(str(damaged("ranker", "model.safetensors", Path.unlink)))
    assert not isinstance(caught.value, OSError | ValueError | TypeError | RuntimeError)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": ...}, "the configuration of the encoder states no model_type: add it to config.json"),
        ({"drop_out": None}, "head_dropout=None; use a number"),
        ({"cand1_prefix_id": 5}, "candidate1_token_id is 5 in the configuration"),
        ({"source_prefix_id": None}, "source_token_id is None in the configuration"),
    ],
)
def test_settings_of_pairrm_that_can_not_be(change: dict[str, object], message: str, tmp_path: Path) -> None:
    make_pairrm(tmp_path, "unigram")
    path = tmp_path / "config.json"
    config = {**json.loads(path.read_text(encoding="utf-8")), **change}
    kept = {name: value for name, value in config.items() if value is not ...}
    path.write_text(json.dumps(kept), encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        Blender.from_pretrained(tmp_path, None)


@pytest.mark.parametrize("kind", BACKBONES[:2])
def test_the_pooler_of_an_old_checkpoint_is_left_out(kind: str, tmp_path: Path) -> None:
    """The authors saved the whole encoder: "2 in the checkpoint but not in the model"."""
    encoder, folder = tmp_path / "encoder", tmp_path / "ranker"
    folder.mkdir()
    encoder_tokenizer().save_pretrained(encoder)
    config = backbone_config(kind, len(ranker_processor().tokenizer))
    config.save_pretrained(encoder)
    hidden = config.hidden_size
    head = nn.Sequential(nn.Dropout(), nn.Linear(2 * hidden, hidden), nn.Tanh(), nn.Dropout(), nn.Linear(hidden, 2))
    model = nn.ModuleDict({"pretrained_model": AutoModel.from_config(config), "head_layer": head})
    assert "pretrained_model.pooler.dense.weight" in model.state_dict()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    settings = {**RANKER_CONFIG, "model_type": kind, "model_name": str(encoder)}
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    loaded = Blender.from_pretrained(folder, None, device="cpu")
    assert loaded.rank("p", ["a", "b"]).n_comparisons == 1
    assert torch.equal(loaded.scorer.model.head.out_proj.weight, head[4].weight)


LOAD_WITHOUT_A_TOKEN = """
import json, sys
from blender_hf import Blender

found = {}
attempts = {"ranker": (sys.argv[1], None), "fuser": (sys.argv[2], sys.argv[1]), "damaged": ("org/damaged", None)}
for name, parts in attempts.items():
    try:
        Blender.from_pretrained(*parts)
    except OSError as error:
        found[name] = str(error)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, checkpoints: Path) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("hub")
    shutil.copytree(checkpoints / "ranker", folder / "damaged")
    cut_in_half(folder / "damaged" / "tokenizer.json")
    with running_hub() as hub:
        hub.add("org/private", checkpoints / "ranker")
        hub.repositories["org/private"].private = True
        hub.add("org/damaged", folder / "damaged")
        yield Place(hub, folder)


@pytest.mark.slow
def test_of_a_private_repository_it_says_how_to_get_in(place: Place, checkpoints: Path) -> None:
    """It was "401 Client Error", or that there is no such model."""
    arguments = ("org/private", str(checkpoints / "ranker"))
    found = place.run(LOAD_WITHOUT_A_TOKEN, *arguments, cache="nobody", HF_TOKEN="")
    for name in ("ranker", "fuser"):
        assert found[name].startswith(f"can't load the {name} 'org/private': the Hub shows no such repository")
        assert "private or gated; for those log in with `hf auth login`, or give a token=" in found[name]
        assert "\n" not in found[name]
    assert "tokenizer.json is damaged" in found["damaged"]


@pytest.mark.once
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model_index.json", "a diffusers pipeline"),
        ("tokenizer_config.json", "a tokenizer without a model"),
    ],
)
def test_parts_without_a_model_are_named(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(CheckpointError, match=message):
        Blender.from_pretrained(str(tmp_path), None)
    with pytest.raises(CheckpointError, match="is a file; give the folder"):
        Blender.from_pretrained(str(tmp_path / name), None)
