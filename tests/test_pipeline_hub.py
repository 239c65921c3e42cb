"""`pipeline("llm-blending")` on private repositories: the token that it is given reaches all that it loads."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import pipeline

from tests.conftest import build_ranker
from tests.export.test_hub import RECORD, Place, close
from tests.hub_server import TOKEN, running_hub

RANKER, FUSER = "org/private-ranker", "org/private-fuser"

WITH_THE_PACKAGE = """
import copy, io, json, pickle, sys
import torch
from transformers import pipeline
import blender_hf

ranker, record, token, elsewhere = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3], sys.argv[4]
cache = {"model_kwargs": {"cache_dir": elsewhere}}
blend = pipeline("llm-blending", model=ranker, token=token, device="cpu", **cache)
found = {"blend": blend(record)}
made = blend.model
texts = [repr(made), str(vars(made)), made.config.to_json_string(), repr(made.config), repr(blend.processor)]
texts += [pickle.dumps(made).decode("latin-1"), str(vars(copy.deepcopy(made).hub_access))]
whole = io.BytesIO()
torch.save(made, whole)
made.save_pretrained(elsewhere + "/saved")
blend.processor.save_pretrained(elsewhere + "/saved")
saved = [path.read_bytes().decode("latin-1") for path in __import__("pathlib").Path(elsewhere, "saved").iterdir()]
found["leaks"] = [token in text for text in (*texts, whole.getvalue().decode("latin-1"), *saved)]
loaded = blender_hf.PairRanker.from_pretrained(ranker, cache_dir=elsewhere, local_files_only=True)
found["offline"] = pipeline("llm-blending", model=loaded, device="cpu")(record)["fused"]
print(json.dumps(found))
"""
WITHOUT_THE_PACKAGE = """
import importlib.util, json, sys
from transformers import pipeline

assert importlib.util.find_spec("blender_hf") is None, "the package can be imported here"
ranker, record, token = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
blend = pipeline("llm-blending", model=ranker, token=token, trust_remote_code=True, device="cpu")
assert type(blend).__module__.startswith("transformers_modules."), type(blend).__module__
print(json.dumps(blend(record)))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, checkpoints: Path) -> Iterator[Place]:
    """A Hub with a private ranker that names a private fuser, for users who have no token in their environment."""
    folder = tmp_path_factory.mktemp("hub")
    model, processor = build_ranker(fuser=FUSER)
    model.save_pretrained(folder / "ranker")
    processor.save_pretrained(folder / "ranker")
    with running_hub() as hub:
        for name, home in ((RANKER, folder / "ranker"), (FUSER, checkpoints / "fuser")):
            hub.add(name, home)
            hub.repositories[name].private = True
        yield Place(hub, folder)


@pytest.fixture(scope="module")
def expected(checkpoints: Path) -> dict[str, Any]:
    local = {"model": str(checkpoints / "ranker"), "fuser": str(checkpoints / "fuser"), "device": "cpu"}
    return pipeline("llm-blending", **local)(RECORD)


@pytest.mark.slow
def test_the_token_and_the_cache_reach_ranker_processor_and_fuser_and_are_kept_nowhere(
    place: Place, expected: dict[str, Any]
) -> None:
    """`transformers.pipeline` keeps `token`: fuser and, on transformers 4, processor were loaded without."""
    arguments = (RANKER, json.dumps(RECORD), TOKEN, str(place.folder / "elsewhere"))
    found = place.run(WITH_THE_PACKAGE, *arguments, cache="package", HF_TOKEN="")
    assert expected["fused"]
    assert found["blend"] == close(expected)
    assert found["offline"] == expected["fused"], "not all was in the cache that was named"
    assert not any(found["leaks"])


@pytest.mark.slow
def test_the_token_reaches_the_fuser_without_the_package_too(place: Place, expected: dict[str, Any]) -> None:
    arguments = (RANKER, json.dumps(RECORD), TOKEN)
    found = place.run(WITHOUT_THE_PACKAGE, *arguments, cache="bare", package=False, HF_TOKEN="")
    assert found["fused"] == expected["fused"]
    assert found["ranking"] == close(expected["ranking"])
