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

from blender_hf import LocalLLM, RemoteLLM, generate

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(Version(transformers.__version__).major < 5, reason="its command line was another"),
    pytest.mark.skipif(not is_openai_available(), reason="`transformers serve` needs openai"),
]


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
