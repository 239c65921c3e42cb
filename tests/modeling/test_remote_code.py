"""A saved model must load on a machine without this package, from the code beside its weights."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.dynamic_module_utils import get_relative_import_files, get_relative_imports

import blender_hf.modeling
from blender_hf import Blender
from tests.conftest import build_fuser, build_ranker, build_separate_ranker, ranker_processor
from tests.generation.tiny_models import build_causal_fuser, build_chat_ranker
from tests.stacks.families import config_of

SCRIPT = """
import importlib.util, json, sys
import torch
from transformers.dynamic_module_utils import get_relative_import_files, get_relative_imports

from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoProcessor, pipeline

assert importlib.util.find_spec("blender_hf") is None, "the package can be imported here"
folder, kind, arguments = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
auto = {"fuser": AutoModelForSeq2SeqLM, "causal fuser": AutoModelForCausalLM}.get(kind, AutoModel)
# A causal fuser is a plain language model; only its processor has code of its own.
needs_code = kind != "causal fuser"
model = auto.from_pretrained(folder, trust_remote_code=needs_code)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
for part in (processor, model) if needs_code else (processor,):
    assert type(part).__module__.startswith("transformers_modules."), type(part).__module__
batch = processor(*arguments)
with torch.no_grad():
    if kind == "fuser":
        batch["decoder_input_ids"] = batch["input_ids"][:, :4]
    output = model(**batch)
found = [(output.encodings if kind == "separate ranker" else output.logits).tolist()]
if kind == "separate ranker":
    blend = pipeline(model=folder, trust_remote_code=True, device="cpu")
    assert type(blend).__module__.startswith("transformers_modules."), type(blend).__module__
    found.append(blend({"prompt": "2 + 2?", "candidates": ["4", "5", "a"]})["ranking"])
print(json.dumps(found))
"""
ARGUMENTS = {
    "ranker": [["2 + 2?", "[SEP]"], ["4", "a"], ["5", "<|candidate1|>"]],
    "separate ranker": [["2 + 2?", "[SEP]"], ["4", "<|candidate1|>"]],
    "fuser": [["2 + 2?"], [["4", "It is 4."]]],
    "causal fuser": [["2 + 2?", "<|im_end|>"], [["4", "It is 4."], ["### Task", "5"]]],
}


def outputs_without_the_package(folder: Path, kind: str, cache: Path) -> Any:
    # With -S no .pth file is read, so an editable installation of the package can't be found either.
    environment = {
        **os.environ,
        "PYTHONPATH": sysconfig.get_path("purelib"),
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(cache),
        "HF_MODULES_CACHE": str(cache / "modules"),
    }
    command = [sys.executable, "-S", "-c", SCRIPT, str(folder), kind, json.dumps(ARGUMENTS[kind])]
    done = subprocess.run(command, env=environment, cwd=cache, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ranker", "fuser", "causal fuser"])
def test_a_saved_model_gives_the_same_logits_without_the_package(kind: str, tmp_path: Path) -> None:
    builders = {"ranker": build_ranker, "fuser": build_fuser, "causal fuser": build_causal_fuser}
    model, processor = builders[kind]()
    folder, cache = tmp_path / "model", tmp_path / "cache"
    cache.mkdir()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    batch = processor(*ARGUMENTS[kind])
    if kind == "fuser":
        batch["decoder_input_ids"] = batch["input_ids"][:, :4]
    with torch.no_grad():
        expected = model(**batch).logits
    [found] = outputs_without_the_package(folder, kind, cache)
    torch.testing.assert_close(torch.tensor(found), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["markers", "chat"])
def test_a_ranker_with_separate_encodings_ranks_the_same_without_the_package(layout: str, tmp_path: Path) -> None:
    kind = "separate ranker"
    if layout == "chat":
        model, processor = build_chat_ranker()
    else:
        model, processor = build_separate_ranker(config_of("llama", len(ranker_processor().tokenizer)))
    folder, cache = tmp_path / "model", tmp_path / "cache"
    cache.mkdir()
    model.save_pretrained(folder, processor=processor)
    encodings, ranking = outputs_without_the_package(folder, kind, cache)
    with torch.no_grad():
        expected = model(**processor(*ARGUMENTS[kind])).encodings
    torch.testing.assert_close(torch.tensor(encodings), expected, atol=1e-6, rtol=1e-5)
    wanted = Blender.from_pretrained(folder, None, device="cpu").rank("2 + 2?", ["4", "5", "a"])
    assert ranking["scores"] == pytest.approx(wanted.scores, abs=1e-5)
    assert ranking.keys() == wanted.to_dict().keys()


def test_the_code_that_travels_is_whole(tmp_path: Path) -> None:
    """Every sibling that a copied file imports is copied too."""
    model, processor = build_ranker()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    copied = {path.name for path in tmp_path.glob("*.py")}
    assert {
        "modeling_pair_ranker.py",
        "processing_pair_ranker.py",
        "conversations.py",
        "tokenization.py",
        "pipeline_llm_blending.py",
        "row_layouts.py",
        "separate_encoding.py",
    } <= copied
    assert len(copied) <= 26, "a reader of the Hub should not have to look through more"
    auto_map = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["auto_map"]
    assert auto_map["AutoModel"] == "modeling_pair_ranker.PairRanker"


@pytest.mark.parametrize("model", ["pair_ranker", "gen_fuser"])
@pytest.mark.parametrize("kind", ["configuration", "processing", "modeling"])
def test_files_name_all_that_they_need(kind: str, model: str) -> None:
    """From a local folder, transformers 4 copies what a file imports, but not what the imported files import."""
    assert_names_all(f"{kind}_{model}.py", brought_by=f"configuration_{model}.py" if kind == "modeling" else None)


def test_the_processor_of_causal_fusers_names_all_that_it_needs() -> None:
    """Their models need no code: transformers has it."""
    assert_names_all("processing_causal_gen_fuser.py", brought_by=None)


def test_the_pipeline_names_all_that_it_needs() -> None:
    assert_names_all("pipeline_llm_blending.py", brought_by="configuration_pair_ranker.py")


def assert_names_all(file: str, brought_by: str | None) -> None:
    """Check the imports of a file; a configuration is loaded, with its own, before a model or a pipeline."""
    folder = Path(blender_hf.modeling.__file__).parent
    needed = {Path(path).name for path in get_relative_import_files(folder / file)} - {file}
    named = {f"{name}.py" for one in (file, brought_by) if one for name in get_relative_imports(folder / one)}
    assert needed - named == set()
