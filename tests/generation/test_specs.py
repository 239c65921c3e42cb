"""Which language model a text means."""

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import InferenceClient

from blender_hf import InputError, InputTypeError, LocalLLM, RemoteLLM
from blender_hf.generation.specs import as_llm, as_llms

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("org/model", LocalLLM("org/model")),
        ("  ./folder ", LocalLLM("./folder")),
        ("./a=b/c", LocalLLM("./a=b/c")),
        ("http://localhost:8000/v1#qwen", RemoteLLM("qwen", "http://localhost:8000/v1")),
        ("https://host/v1#org/model:tag#2", RemoteLLM("org/model:tag#2", "https://host/v1")),
        ("https://host/openai?api-version=1#m", RemoteLLM("m", "https://host/openai?api-version=1")),
        ("providers:org/model", RemoteLLM("org/model")),
        ("providers:org/model:together", RemoteLLM("org/model", provider="together")),
        ("qwen=org/model", LocalLLM("org/model", name="qwen")),
        ("org/model#q4/m.gguf", LocalLLM("org/model", gguf_file="q4/m.gguf")),
        ("m=org/model#m.GGUF", LocalLLM("org/model", name="m", gguf_file="m.GGUF")),
        ("big=http://localhost/v1?x=y#m", RemoteLLM("m", "http://localhost/v1?x=y", name="big")),
    ],
)
def test_what_a_text_means(text: str, meant: Any) -> None:
    assert as_llm(text) == meant
    assert as_llm(meant) is meant


def test_a_path_is_a_local_model(tmp_path: Path) -> None:
    assert as_llm(Path("a/b")) == LocalLLM("a/b")
    (tmp_path / "m.gguf").touch()
    assert as_llm(tmp_path / "m.gguf") == LocalLLM(str(tmp_path), gguf_file="m.gguf")


def test_a_gguf_file_is_named_with_its_repository() -> None:
    one, two = as_llms(["org/model#a.gguf", "org/model#b.gguf"])
    assert (one.label, two.label) == ("org/model#a.gguf", "org/model#b.gguf")
    with pytest.raises(InputError, match=r"org/model: gguf_file='a.bin'; use a file that ends with .gguf"):
        LocalLLM("org/model", gguf_file="a.bin")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("http://localhost:8000/v1", "does not say which model; write it as http://localhost:8000/v1#model"),
        ("http://localhost:8000/v1#", "does not say which model"),
        ("http://#m", "is no address"),
        ("http://host:port/v1#m", "is no address"),
        ("ftp://host/v1#m", "an unknown scheme"),
        ("big = http://localhost/v1#m", "an unknown scheme"),
        ("localhost:8000/v1#m", "is neither a folder nor an address, which begins with http://"),
        ("providers:", "has no name"),
        ("org/model/m.gguf", r"there is no file org/model/m\.gguf; one of a repository is written org/model#file"),
        ("#m.gguf", "has no name"),
    ],
)
def test_what_can_not_be_read(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_llm(text)


def test_a_key_comes_from_the_environment_and_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret")
    llm = as_llm("https://host/v1?api_key_env=MY_KEY&v=2#m")
    assert (llm.api_key, llm.base_url) == ("sk-secret", "https://host/v1?v=2")
    assert "sk-secret" not in repr(llm)
    with pytest.raises(InputError, match="must name an environment variable") as error:
        as_llm("https://host/v1?api_key_env=sk-secret#m")
    assert "sk-secret" not in str(error.value)
    assert "sk-secret" not in repr(LocalLLM("m", token="sk-secret"))


def test_clients_are_taken_with_their_model() -> None:
    client = InferenceClient("org/model", token="t")
    assert as_llm(client) == RemoteLLM("org/model", client=client)
    with pytest.raises(InputError, match=r"does not say which model to ask; give RemoteLLM"):
        as_llm(SimpleNamespace(chat=None))
    with pytest.raises(InputTypeError, match="not int"):
        as_llm(3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base_url": "host/v1"}, "is no address"),
        ({"base_url": "http://h/v1", "provider": "together"}, "not both"),
        ({"client": object(), "api_key": "k"}, "a client has its own address"),
        ({"timeout": 0}, "timeout=0"),
        ({"max_retries": -1}, "max_retries=-1"),
        ({"concurrency": 0}, "concurrency=0"),
        ({"timeout": float("nan")}, "timeout=nan"),
    ],
)
def test_what_can_not_work_is_refused_at_once(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        RemoteLLM("m", **settings)
    with pytest.raises(InputError, match="batch_size=0"):
        LocalLLM("m", batch_size=0)


def test_a_list_of_models_has_different_names() -> None:
    assert [llm.label for llm in as_llms(["a", "b=a"])] == ["a", "b"]
    with pytest.raises(InputError, match="two language models are called m"):
        as_llms(["http://one/v1#m", "http://two/v1#m"])
    with pytest.raises(InputError, match="no language models"):
        as_llms([])
    with pytest.raises(InputTypeError, match="must be a list"):
        as_llms("a")


def test_they_can_be_sent_to_other_processes() -> None:
    for llm in (LocalLLM("m"), RemoteLLM("m", "http://h/v1", api_key="k")):
        assert pickle.loads(pickle.dumps(llm)) == llm
