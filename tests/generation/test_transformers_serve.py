"""The server of transformers itself, where what `transformers serve` needs is installed (`transformers[serving]`)."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import huggingface_hub.constants
import pytest
import transformers
from packaging.version import Version
from transformers.utils.import_utils import is_openai_available

from blender_hf import Blender, LocalLLM, RemoteLLM, generate, load_judge
from tests.generation.tiny_models import save_chat_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(Version(transformers.__version__).major < 5, reason="its command line was another"),
    pytest.mark.skipif(not is_openai_available(), reason="`transformers serve` needs openai"),
]


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model with room for the question of a judge."""
    return save_chat_model(tmp_path_factory.mktemp("served") / "chat", context=2048)


@pytest.fixture(scope="module")
def address(chat_model: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("transformers")
    command = [program, "serve", chat_model, "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}/v1"
    while process.poll() is None:
        try:
            urlopen(f"{url}/models", timeout=5).close()
            break
        except (URLError, OSError):
            time.sleep(0.2)
    assert process.poll() is None
    yield url
    process.terminate()
    process.wait()


def test_it_writes_what_the_model_writes_here(address: str, chat_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    llms = [
        RemoteLLM(str(chat_model), address, name="served"),
        LocalLLM(str(chat_model), name="here", device="cpu", dtype="float32"),
    ]
    for found in generate(["Hi", "2 + 2?"], llms, max_new_tokens=6, temperature=0):
        served, here = found.candidates
        assert (served.text, served.truncated) == (here.text, here.truncated)


def test_its_judge_is_the_one_that_runs_here(address: str, chat_model: Path) -> None:
    """It offers /v1/systemone, and ignores that logprobs are asked for."""
    candidates = ["Four.", "5", "It is 4, I think."]
    served = load_judge(RemoteLLM(str(chat_model), address), cache=False)
    here = load_judge(LocalLLM(str(chat_model), device="cpu", dtype="float32"))
    found, expected = (Blender(judge).rank("2 + 2?", candidates) for judge in (served, here))
    for row, own in zip(found.logits, expected.logits, strict=True):
        assert row == pytest.approx(own, abs=1e-4, nan_ok=True)
    assert found.order == expected.order
    assert served.ask == "systemone"
    assert served.usage.input_tokens == here.usage.input_tokens
