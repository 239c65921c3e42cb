"""Publishing and loading over real HTTP: each step in a process of its own, as users do it."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM, pipeline

from blender_hf import CheckpointError, InputError
from blender_hf.export.hub import Publication, files_of, prepared
from blender_hf.export.provenance import add_metadata, statement_of
from tests import hub_server
from tests.conftest import build_ranker, example_texts
from tests.export.conftest import small_graph
from tests.forking import WITHOUT_THE_HUB, Process, forked
from tests.generation.tiny_models import save_chat_model
from tests.hub_server import TOKEN, Fault, Handler, Hub, running_hub

Running = subprocess.Popen[str] | Process

TEXTS = example_texts()
RECORD = {"prompt": TEXTS[0], "candidates": list(TEXTS[1:5])}
RANKER, FUSER, BRANCH = "org/pair-ranker", "org/gen-fuser", "longer"
CARD = "---\nlicense: mit\ndatasets: [org/data]\n---\n\n# Our ranker\n"
# transformers downloads in pieces of this size, and a piece that is cut is lost.
PIECE = 10 * 2**20

RUN_COMMANDS = """
import contextlib, io, json, sys
from blender_hf.cli.main import main
results = []
for arguments in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    results.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(results))
"""
BLEND_WITHOUT_THE_PACKAGE = """
import importlib.util, json, sys
from transformers import pipeline

assert importlib.util.find_spec("blender_hf") is None, "the package can be imported here"
blend = pipeline(model=sys.argv[1], trust_remote_code=True, device="cpu")
assert type(blend).__module__.startswith("transformers_modules."), type(blend).__module__
assert type(blend.fuser).__module__.startswith("transformers_modules."), type(blend.fuser).__module__
print(json.dumps(blend(json.loads(sys.argv[2]))))
"""


@dataclass(frozen=True)
class Place:
    """A Hub, and a folder for the caches of those who use it."""

    hub: Hub
    folder: Path

    def environment(self, cache: str, *, package: bool, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        # With -S no .pth file is read, so an editable installation of the package can't be found.
        paths = {} if package else {"PYTHONPATH": sysconfig.get_path("purelib")}
        own = {
            "HF_ENDPOINT": self.hub.url,
            "HF_HOME": str(self.folder / cache),
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "no_proxy": "127.0.0.1",
        }
        return {**kept, **paths, **own, **more}

    def start(self, script: str, *arguments: str, cache: str, package: bool, **more: str) -> Running:
        environment = self.environment(cache, package=package, **more)
        if package:
            return forked(script, *arguments, modules=WITHOUT_THE_HUB, env=environment, cwd=self.folder)
        # Without the package it must be a fresh interpreter: nothing that it imports may have seen the package.
        return subprocess.Popen(
            [sys.executable, "-S", "-c", script, *arguments],
            env=environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, script: str, *arguments: str, cache: str, package: bool = True, **more: str) -> Any:
        return answer(self.start(script, *arguments, cache=cache, package=package, **more))


def answer(process: Running) -> Any:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return json.loads(out)  # and nothing else, such as a question whether code is to be trusted


def close(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: close(part) for name, part in value.items()}
    if isinstance(value, list):
        return [close(part) for part in value]
    return pytest.approx(value, abs=1e-4) if isinstance(value, float) else value


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with running_hub() as hub:
        yield Place(hub, tmp_path_factory.mktemp("hub"))


@pytest.fixture(scope="module")
def pushed(place: Place, checkpoints: Path) -> dict[str, tuple[int, str, str]]:
    """What several runs of `blender-hf push` said, in one process: exit code, stdout, stderr."""
    card = place.folder / "card.md"
    card.write_text(CARD, encoding="utf-8")
    (place.folder / "nothing").mkdir()
    place.hub.faults += [Fault(r"PUT /lfs/", status=503), Fault(r"POST .*/org/broken/commit/", status=500, times=99)]
    ranker, fuser = str(checkpoints / "ranker"), str(checkpoints / "fuser")
    commands = {
        "fuser": ["fuser", fuser, FUSER],
        "ranker": ["ranker", ranker, RANKER, "--fuser", FUSER, "--private", "--card", str(card)],
        "branch": ["ranker", ranker, RANKER, "--revision", BRANCH, "--commit-message", "A branch"],
        "pull request": ["ranker", ranker, RANKER, "--create-pr"],
        "dry run": ["ranker", ranker, "org/dry", "--dry-run"],
        "broken": ["fuser", fuser, "org/broken"],
        "refused": ["fuser", fuser, "org/refused", "--token", "hf_reader"],
        "nothing": ["ranker", str(place.folder / "nothing"), "org/nothing"],
        "a fuser as a ranker": ["ranker", fuser, "org/nothing"],
        "no organisation": ["ranker", ranker, "pair-ranker"],
        "two targets": ["ranker", ranker, "org/targets", "--create-pr", "--revision", "dev"],
    }
    arguments = json.dumps([["push", *command] for command in commands.values()])
    return dict(zip(commands, place.run(RUN_COMMANDS, arguments, cache="pusher"), strict=True))


@pytest.mark.slow
def test_a_pushed_ranker_is_a_whole_repository(place: Place, pushed: dict[str, tuple[int, str, str]]) -> None:
    code, out, err = pushed["ranker"]
    assert (code, out.startswith(f"{place.hub.url}/{RANKER}/commit/")) == (0, True), err
    assert place.hub.repositories[RANKER].private
    files = place.hub.files(RANKER)
    assert {
        "README.md",
        "model.safetensors",
        "processor_config.json",
        "tokenizer.json",
        "modeling_pair_ranker.py",
        "pipeline_llm_blending.py",
        "modeling_gen_fuser.py",
    } <= files.keys()
    assert sum(name.endswith(".py") for name in files) <= 26, "a reader of the Hub should not look through more"
    config = json.loads(files["config.json"])
    assert config["auto_map"]["AutoModel"] == "modeling_pair_ranker.PairRanker"
    assert config["custom_pipelines"]["llm-blending"]["impl"] == "pipeline_llm_blending.LlmBlendingPipeline"
    assert (config["fuser"], config["fuser_revision"]) == (FUSER, None)
    card = files["README.md"].decode()
    data = yaml.safe_load(card.split("---\n")[1])
    assert (data["license"], data["datasets"], data["pipeline_tag"]) == ("mit", ["org/data"], "text-ranking")
    assert "# Our ranker" in card
    weights = place.hub.repositories[RANKER].commits[place.hub.repositories[RANKER].refs["main"]]["model.safetensors"]
    assert weights in place.hub.large


@pytest.mark.slow
def test_a_pushed_fuser_has_its_generation_settings(place: Place, pushed: dict[str, tuple[int, str, str]]) -> None:
    """Its weights met a 503 of the storage on their way, which is retried."""
    assert pushed["fuser"][0] == 0, pushed["fuser"][2]
    files = place.hub.files(FUSER)
    assert json.loads(files["generation_config.json"])["max_new_tokens"] == 24
    assert "modeling_gen_fuser.py" in files
    assert not place.hub.repositories[FUSER].private
    puts = place.hub.requested("^PUT /lfs/")
    assert len(puts) > len({path for _, path, _ in puts})


@pytest.mark.slow
def test_branches_pull_requests_and_dry_runs(place: Place, pushed: dict[str, tuple[int, str, str]]) -> None:
    repository = place.hub.repositories[RANKER]
    assert [pushed[name][0] for name in ("branch", "pull request", "dry run")] == [0, 0, 0]
    assert {"main", BRANCH, "refs/pr/1"} <= repository.refs.keys()
    assert len({repository.refs[name] for name in ("main", BRANCH, "refs/pr/1")}) == 3
    assert "A branch" in repository.messages
    assert pushed["pull request"][1].strip() == f"{place.hub.url}/{RANKER}/discussions/1"
    listed = {line.split()[1] for line in pushed["dry run"][1].splitlines()}
    assert listed == place.hub.files(RANKER).keys()
    assert "org/dry" not in place.hub.repositories


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", r"can't publish org/broken: .*500 .*\(it was the Hub's fault, so try again\)"),
        ("refused", r"can't publish org/refused: .*401 .*\(log in with"),
        ("nothing", "nothing is not a whole ranker"),
        ("a fuser as a ranker", "is not a whole ranker: this is a checkpoint of model_type 'gen_fuser'"),
        ("no organisation", "'pair-ranker' is no full name of a repository; write it as org/name"),
        ("two targets", "a pull request is opened against main, not 'dev'"),
    ],
)
def test_what_goes_wrong_is_said_in_one_line(
    place: Place, pushed: dict[str, tuple[int, str, str]], name: str, message: str
) -> None:
    code, out, err = pushed[name]
    (line,) = [line for line in err.splitlines() if line.startswith("blender-hf: error: ")]
    assert (code, out) == (2, "")
    assert re.search(message, line)
    repository = place.hub.repositories.get(f"org/{name}")
    assert repository is None or repository.commits[repository.refs["main"]] == {}


@pytest.mark.slow
def test_two_processes_without_the_package_load_at_once_and_a_third_offline(
    place: Place, pushed: dict[str, tuple[int, str, str]], checkpoints: Path
) -> None:
    """One id is enough for ranker, fuser and pipeline; the private repository is reached by the token."""
    local = {"model": str(checkpoints / "ranker"), "fuser": str(checkpoints / "fuser"), "device": "cpu"}
    expected = pipeline("llm-blending", **local)(RECORD)
    assert expected["fused"]
    arguments = (BLEND_WITHOUT_THE_PACKAGE, RANKER, json.dumps(RECORD))
    both = [place.start(*arguments, cache="bare", package=False) for _ in range(2)]
    assert [answer(process) for process in both] == [close(expected)] * 2
    before = len(place.hub.requests)
    assert place.run(*arguments, cache="bare", package=False, HF_HUB_OFFLINE="1") == close(expected)
    assert len(place.hub.requests) == before


LOAD_AND_PUSH_WITH_THE_PACKAGE = """
import json, os, sys
from pathlib import Path
import transformers
from transformers import pipeline
from blender_hf import Blender, CheckpointError, PairRanker, PairRankerProcessor

ranker, branch, record, home = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), Path(sys.argv[4])
token = sys.argv[5]
cache = {"cache_dir": str(home / "elsewhere")}
found = {}
try:
    Blender.from_pretrained(ranker, None, **cache)
except CheckpointError as error:
    found["without a token"] = str(error)
blender = Blender.from_pretrained(ranker, token=token, device="cpu", **cache)
found["blend"] = blender.blend(record["prompt"], record["candidates"]).to_dict()
offline = Blender.from_pretrained(ranker, None, local_files_only=True, device="cpu", **cache)
found["offline"] = offline.scorer.model.config.fuser
of_branch = Blender.from_pretrained(ranker, None, revision=branch, token=token, device="cpu", **cache)
found["branch"] = of_branch.scorer.model.config.fuser
try:
    Blender.from_pretrained(ranker, None, revision="none", token=token, **cache)
except CheckpointError as error:
    found["no such revision"] = str(error)
found["default cache"] = sorted(path.name for path in home.glob("hub/models--*"))
if transformers.__version__.startswith("4."):
    os.environ["HF_TOKEN"] = token  # its AutoProcessor leaves `token` out
blend = pipeline(model=ranker, token=token, fuser=None, device="cpu")
os.environ["HF_TOKEN"] = ""
found["pipeline"] = [type(blend).__name__, blend(record)["ranking"]]
blend.save_pretrained(home / "saved", push_to_hub=True, repo_id="org/from-pipeline", token=token)
saved = Blender.from_pretrained("org/from-pipeline", None, token=token, device="cpu")
found["saved"] = saved.rank(record["prompt"], record["candidates"]).to_dict()

model, processor = blender.scorer.model, blender.scorer.processor
card = "---\\nlibrary_name: transformers\\n---\\n# Mine\\n"
options = {"token": token, "private": True, "revision": "new"}
model.push_to_hub("org/without-a-card", token=token)
model.push_to_hub("org/from-python", processor=processor, card=card, **options)
again = Blender.from_pretrained("org/from-python", None, revision="new", token=token, device="cpu")
found["again"] = again.rank(record["prompt"], record["candidates"]).to_dict()

from huggingface_hub import HfApi
made = home / "made"
model.save_pretrained(made)
processor.save_pretrained(made)
HfApi(token=token).upload_folder(repo_id="org/from-python", folder_path=made, path_in_repo="deep/down")
deep = Blender.from_pretrained("org/from-python", None, subfolder="deep/down", token=token, device="cpu")
found["deep"] = deep.rank(record["prompt"], record["candidates"]).to_dict()
print(json.dumps(found))
"""


@pytest.mark.slow
def test_loading_and_pushing_with_the_package(
    place: Place, pushed: dict[str, tuple[int, str, str]], checkpoints: Path
) -> None:
    local = {"model": str(checkpoints / "ranker"), "fuser": str(checkpoints / "fuser"), "device": "cpu"}
    expected = pipeline("llm-blending", **local)(RECORD)
    home = place.folder / "user"
    arguments = (RANKER, BRANCH, json.dumps(RECORD), str(home), TOKEN)
    found = place.run(LOAD_AND_PUSH_WITH_THE_PACKAGE, *arguments, cache="user", HF_TOKEN="")
    for name in ("without a token", "no such revision"):
        assert found[name].startswith("can't load the ranker 'org/pair-ranker': ")
        assert "\n" not in found[name]
    assert found["blend"] == close(expected)
    assert (found["offline"], found["branch"]) == (FUSER, None)
    assert found["default cache"] == []
    assert found["pipeline"] == ["BlenderPipeline", close(expected["ranking"])]
    assert found["again"] == found["deep"] == found["saved"] == close(expected["ranking"])
    files = place.hub.files("org/from-python", "new")
    assert {"tokenizer.json", "processor_config.json", "pipeline_llm_blending.py", "README.md"} <= files.keys()
    assert b"# Mine" in files["README.md"]
    for card in (files["README.md"], place.hub.files("org/without-a-card")["README.md"]):
        data = yaml.safe_load(card.decode().split("---\n")[1])
        assert (data["library_name"], data["pipeline_tag"]) == ("transformers", "text-ranking")
        assert "llm-blending" in data["tags"]
    assert place.hub.repositories["org/from-python"].private
    assert len(place.hub.repositories["org/from-pipeline"].commits) == 2, "the first one is empty"


DELETION = "deletedFile"


def commit_with_deletions(handler: Handler, name: str, revision: str) -> None:
    """Serve a commit that also deletes files."""
    lines = [json.loads(line) for line in handler.body.splitlines()]
    deleted = {line["value"]["path"] for line in lines if line["key"] == DELETION}
    handler.body = b"\n".join(json.dumps(line).encode() for line in lines if line["key"] != DELETION)
    handler.commit(name, revision)
    repository = handler.hub.repositories[name]
    files = repository.commits[repository.refs[revision]]
    for path in deleted:
        del files[path]


@pytest.mark.slow
def test_onnx_files_and_shards_of_an_earlier_state_do_not_stay(
    place: Place, checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swapped = [(m, p, commit_with_deletions if h is Handler.commit else h) for m, p, h in hub_server.ROUTES]
    monkeypatch.setattr(hub_server, "ROUTES", tuple(swapped))
    build_ranker()[0].save_pretrained(tmp_path, max_shard_size="20KB")
    files = place.hub.add("org/again", tmp_path)
    kept = {"other/model.safetensors", "notes.txt"}
    files |= dict.fromkeys({"onnx/model.onnx", "model_int8.onnx", *kept}, place.hub.store(b"earlier", large=True))
    assert {"onnx/model.onnx", "model.safetensors.index.json"} <= place.hub.files("org/again").keys()
    arguments = json.dumps([["push", "ranker", str(checkpoints / "ranker"), "org/again"]])
    ((code, _, err),) = place.run(RUN_COMMANDS, arguments, cache="pusher")
    assert code == 0, err
    weights = {path for path in place.hub.files("org/again") if path.endswith((".safetensors", ".onnx", ".index.json"))}
    assert weights == {"model.safetensors", "other/model.safetensors"}
    assert kept <= place.hub.files("org/again").keys()


LOAD_TWICE = """
import json, sys
from blender_hf import PairRanker

failures = []
for attempt in range(2):
    try:
        model = PairRanker.from_pretrained(sys.argv[1])
        break
    except OSError as error:  # huggingface_hub 0.36 leaves it to the next call to resume
        failures.append(str(error))
print(json.dumps([failures, model.get_input_embeddings().weight.double().sum().item()]))
"""


@pytest.mark.slow
def test_an_interrupted_download_resumes(place: Place, tmp_path: Path) -> None:
    model, processor = build_ranker()
    model.backbone.resize_token_embeddings(3 * PIECE // (4 * 32) + 1)
    model.config.backbone_config = model.backbone.config
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size > 2 * PIECE
    name = "org/large"
    oid = place.hub.add(name, tmp_path)["model.safetensors"]
    place.hub.faults.append(Fault(f"GET /cdn/{oid}", cut_after=PIECE + 1000))
    failures, total = place.run(LOAD_TWICE, name, cache="interrupted")
    assert len(failures) <= 1
    assert total == pytest.approx(model.get_input_embeddings().weight.double().sum().item())
    ranges = [wanted for _, _, wanted in place.hub.requested(f"^GET /cdn/{oid}")]
    assert ranges == [None, f"bytes={PIECE}-"]


def test_what_is_beside_the_checkpoint_goes_along_and_nothing_is_changed(checkpoints: Path, tmp_path: Path) -> None:
    model, processor = build_ranker()
    model.half().save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    (tmp_path / "onnx").mkdir()
    add_metadata(small_graph(tmp_path / "onnx" / "model.onnx"), {"made": "elsewhere"})
    (tmp_path / "README.md").write_text(CARD, encoding="utf-8")
    (tmp_path / "optimizer.pt").write_bytes(b"not to be published")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with prepared(Publication("ranker", tmp_path, "org/mine", fuser="org/fuser", fuser_revision="v1")) as folder:
        files = files_of(folder)
        assert files["onnx/model.onnx"] == (tmp_path / "onnx" / "model.onnx").stat().st_size
        assert "optimizer.pt" not in files
        assert "license: mit" in (folder / "README.md").read_text(encoding="utf-8")
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        assert (config["fuser"], config["fuser_revision"]) == ("org/fuser", "v1")
        assert config.get("dtype", config.get("torch_dtype")) == "float16"
        published = type(model).from_pretrained(folder, dtype="auto")
    assert published.dtype == torch.float16
    assert not folder.exists()
    assert {path: path.read_bytes() for path in before} == before


def test_a_fuser_that_is_a_language_model_is_published_as_one(tmp_path: Path) -> None:
    plain = save_chat_model(tmp_path / "plain", context=640)
    with prepared(Publication("fuser", plain, "org/mine")) as folder:
        assert {"model.safetensors", "processing_causal_gen_fuser.py", "chat_template.jinja"} <= files_of(folder).keys()
        card = ModelCard.load(folder / "README.md")
        model = AutoModelForCausalLM.from_pretrained(folder)
    assert (card.data.pipeline_tag, card.data.tags) == ("text-generation", ["llm-blending", "fusion"])
    assert "AutoModelForCausalLM" in card.text
    for name, weight in AutoModelForCausalLM.from_pretrained(plain).state_dict().items():
        assert torch.equal(model.state_dict()[name], weight)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "judge"}, "unknown kind of model 'judge'; use one of ranker, fuser"),
        ({"kind": "fuser", "fuser": "org/other"}, "only a ranker names the fuser"),
        ({"fuser_revision": "v1"}, "without a fuser"),
        ({"fuser": "../fuser"}, "'../fuser' is no "),
        ({"repo_id": "org/a--b"}, "'org/a--b' is no name of a repository"),
    ],
)
def test_what_can_not_be_published(options: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Publication(**{"kind": "ranker", "source": "folder", "repo_id": "org/name", **options})


def test_onnx_files_of_other_weights_are_not_published(checkpoints: Path, tmp_path: Path) -> None:
    folder, path = tmp_path / "ranker", tmp_path / "ranker" / "onnx" / "model.onnx"
    shutil.copytree(checkpoints / "ranker", folder)
    path.parent.mkdir()
    add_metadata(small_graph(path), statement_of(build_ranker()[0].half()))
    with (
        pytest.raises(CheckpointError, match=r"model\.onnx was made of other weights .*: blender-hf export onnx"),
        prepared(Publication("ranker", folder, "org/name")),
    ):
        pass
    path.unlink()
    add_metadata(small_graph(path), statement_of(build_ranker()[0]))
    with prepared(Publication("ranker", folder, "org/name")) as made:
        assert (made / "onnx" / "model.onnx").is_file()


@pytest.mark.parametrize("content", [b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", b""])
def test_onnx_files_that_are_not_there_as_a_whole_are_not_published(
    content: bytes, checkpoints: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "ranker"
    shutil.copytree(checkpoints / "ranker", folder)
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(content)
    with (
        pytest.raises(CheckpointError, match=r"model\.onnx is damaged .*download it"),
        prepared(Publication("ranker", folder, "org/name")),
    ):
        pass


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("config.json", "is not a whole ranker: .* has no config.json"),
        ("tokenizer.json", "is not a whole ranker: .* has no tokenizer.json"),
        ("processor_config.json", "is not a whole ranker: the ranker and its processor do not fit"),
    ],
)
def test_what_nobody_could_load_is_not_published(lost: str, message: str, tmp_path: Path) -> None:
    """Without the lengths of the processor, pairs would be longer than this encoder reads."""
    for part in build_ranker():
        part.save_pretrained(tmp_path)
    (tmp_path / lost).unlink()
    with pytest.raises(CheckpointError, match=message), prepared(Publication("ranker", tmp_path, "org/name")):
        pass


def test_a_fuser_that_only_its_owner_has_is_not_published(checkpoints: Path, tmp_path: Path) -> None:
    model, processor = build_ranker(fuser="/home/me/runs/fuser")
    for part in (model, processor):
        part.save_pretrained(tmp_path)
    with (
        pytest.raises(InputError, match=r"others can't load: '/home/me/runs/fuser' is no .*--fuser"),
        prepared(Publication("ranker", tmp_path, "org/name")),
    ):
        pass
    with prepared(Publication("ranker", tmp_path, "org/name", fuser="org/fuser")) as folder:
        assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["fuser"] == "org/fuser"


def test_a_card_that_can_not_be_read(checkpoints: Path, tmp_path: Path) -> None:
    card = tmp_path / "card.md"
    with (
        pytest.raises(InputError, match="can't read the card"),
        prepared(Publication("ranker", checkpoints / "ranker", "org/name", card=card)),
    ):
        pass
    card.write_text("---\nlicense: [mit\n---\n# A card\n", encoding="utf-8")
    with (
        pytest.raises(InputError, match="metadata of the card can't be read"),
        prepared(Publication("ranker", checkpoints / "ranker", "org/name", card=card)),
    ):
        pass
