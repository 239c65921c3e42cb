"""`pipeline("llm-blending", llms=[...])`: from a bare prompt to one answer."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import pipeline

from blender_hf import BlenderPipeline, GenerationError, InputError, InputTypeError, LocalLLM, RemoteLLM
from tests.language_server import LanguageServer

TALK = [{"role": "user", "content": "2 + 2?"}]


@pytest.fixture
def pipe(server: LanguageServer, checkpoints: Path, chat_model: Path) -> BlenderPipeline:
    return pipeline(
        "llm-blending",
        model=str(checkpoints / "ranker"),
        fuser=str(checkpoints / "fuser"),
        device="cpu",
        llms=[
            RemoteLLM("loud", server.url, backoff=0.0),
            RemoteLLM("absent", server.url),
            LocalLLM(str(chat_model), name="here", dtype="float32"),
        ],
        sampling={"max_new_tokens": 6, "temperature": 0},
    )


def test_a_bare_prompt_goes_all_the_way(pipe: BlenderPipeline) -> None:
    result = pipe("2 + 2?")
    assert result["ranking"]["models"] == ["loud", "here"]
    assert result["ranking"]["candidates"][0] == "2 + 2?!"
    assert result["output"] in (result["best"], result["fused"])
    assert [failure["model"] for failure in result["failures"]] == ["absent"]
    assert pipe(TALK) == pipe({"prompt": "2 + 2?"}) == pipe({"messages": TALK}) == result


def texts(results: list[dict[str, Any]]) -> list[Any]:
    return [(result["output"], result["ranking"]["candidates"], result["failures"]) for result in results]


def test_lists_and_generators(pipe: BlenderPipeline) -> None:
    expected = texts([pipe("a"), pipe(TALK), pipe("c")])
    assert texts(pipe(["a", TALK, {"prompt": "c"}], batch_size=2)) == expected

    def prompts() -> Iterator[str]:
        while True:
            yield "a"

    endless = pipe(prompts(), batch_size=2)
    assert texts([next(endless) for _ in range(3)]) == [expected[0]] * 3


def test_candidates_of_an_input_stay(pipe: BlenderPipeline) -> None:
    ranking = pipe({"prompt": "2 + 2?", "candidates": ["4", {"text": "QUIET", "model": "loud"}]})["ranking"]
    assert ranking["candidates"][:2] == ["4", "QUIET"]
    assert ranking["models"] == [None, "loud", "here"]


def test_a_chat_model_may_fuse_it(server: LanguageServer, checkpoints: Path) -> None:
    server.answers["wise"] = lambda messages: "Four."
    llms = [f"{server.url}#echo", f"{server.url}#loud"]
    pipe = pipeline("llm-blending", model=str(checkpoints / "ranker"), llms=llms, fuser=f"chat:{server.url}#wise")
    assert pipe("2 + 2?", fallback=False)["output"] == "Four."
    ranked = pipeline("llm-blending", model=str(checkpoints / "ranker"), llms=llms, fuser=None)("2 + 2?")
    assert (ranked["returned"], ranked["fused"], ranked["failures"]) == ("best", None, [])


def test_when_nobody_answers(server: LanguageServer, checkpoints: Path) -> None:
    model = str(checkpoints / "ranker")
    pipe = pipeline("llm-blending", model=model, fuser=None, llms=[f"{server.url}#absent"])
    with pytest.raises(GenerationError, match=r"item 0: no language model answered \(absent: there is no such model"):
        pipe(["a", "b"])
    with pytest.raises(GenerationError, match="the input: no language model answered"):
        pipe("a")


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (3, InputTypeError, "not int"),
        ({"candidates": ["a"]}, InputError, 'the input: no prompt was found: one of the keys "prompt"'),
        (["a", 3], InputTypeError, "item 1: a prompt must be a text"),
    ],
)
def test_bad_input_is_named(pipe: BlenderPipeline, inputs: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pipe(inputs)


def test_without_llms_a_bare_prompt_is_refused(checkpoints: Path) -> None:
    pipe = pipeline("llm-blending", model=str(checkpoints / "ranker"), fuser=None)
    with pytest.raises(InputTypeError, match="not str"):
        pipe("2 + 2?")
