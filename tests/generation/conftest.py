"""A server of language models on loopback, and small models in folders."""

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest

from tests.generation.language_server import LanguageServer, serving
from tests.generation.tiny_models import save_chat_model


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_chat_model(tmp_path_factory.mktemp("models") / "chat")


@pytest.fixture(scope="session")
def running(chat_model: Path) -> Iterator[LanguageServer]:
    with serving(chat_model) as server:
        yield server


@pytest.fixture
def server(running: LanguageServer, monkeypatch: pytest.MonkeyPatch) -> LanguageServer:
    """The server as nobody has used it yet."""
    # `make test` forbids the Hub, by a switch that closes every connection of huggingface_hub; this one is our own.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    running.serve_another()
    return running
