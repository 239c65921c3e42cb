"""The pipeline that travels gives what the pipeline of the package gives."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import pipeline

from blender_hf import Blender, BlenderPipeline
from blender_hf.modeling import PairRankerConfig
from blender_hf.modeling.pipeline_llm_blending import LlmBlendingPipeline
from tests.conftest import build_ranker, build_separate_ranker, example_texts, ranker_processor
from tests.data.shapes import SHAPES
from tests.stacks.families import config_of

TEXTS = example_texts()
INPUTS = [
    {"prompt": TEXTS[0], "candidates": list(TEXTS[1:6])},
    {"prompt": [{"role": "user", "content": "2 + 2?"}], "candidates": ["4", {"text": "5", "model": "parrot"}, "4"]},
    {"prompt": "cat", "instruction": "Translate.", "candidates": ["Katze"]},
    {"prompt": TEXTS[6] * 3, "candidates": ["[SEP]", "<|candidate2|> is better", "", TEXTS[7] * 4]},
    {"prompt": "same", "candidates": ["a", "a"]},
    {
        "prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "2 + 2?"}]}],
        "candidates": [
            {"role": "assistant", "content": None, "tool_calls": [{"name": "add", "arguments": '{"a": 2, "b": 2}'}]},
            {"messages": [{"role": "assistant", "tool_calls": [{"name": "hen", "arguments": {}}]}], "model": "parrot"},
            [{"role": "assistant", "content": "I add."}, {"role": "tool", "content": "4"}],
        ],
    },
    {
        "prompt": [{"role": "user", "content": "2 + 2?"}],
        "candidates": [
            {"generated_text": [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": answer}]}
            for answer in "45"
        ],
    },
]


@pytest.fixture(scope="module")
def package(checkpoints: Path) -> BlenderPipeline:
    return pipeline("llm-blending", model=str(checkpoints / "ranker"), fuser=str(checkpoints / "fuser"), device="cpu")


@pytest.fixture(scope="module")
def traveller(package: BlenderPipeline, checkpoints: Path) -> LlmBlendingPipeline:
    fuser = str(checkpoints / "fuser")
    return LlmBlendingPipeline(model=package.model, processor=package.processor, fuser=fuser, device="cpu")


def close(value: Any, precision: float = 1e-4) -> Any:
    """Turn the floats in a result into what compares up to rounding: the batches are others."""
    if isinstance(value, dict):
        return {name: close(part, precision) for name, part in value.items()}
    if isinstance(value, list):
        return [close(part, precision) for part in value]
    return pytest.approx(value, abs=precision) if isinstance(value, float) else value


@pytest.mark.parametrize("options", [{}, {"top_k": 2, "fallback": False}, {"generation": {"num_beams": 2}}])
def test_the_results_are_those_of_the_package(
    package: BlenderPipeline, traveller: LlmBlendingPipeline, options: dict[str, Any]
) -> None:
    expected = package(INPUTS, **options)
    found = traveller(INPUTS, **options)
    assert found == close(expected)
    assert [list(result) for result in found] == [list(result) for result in expected]
    assert any(result["fused"] for result in expected)


def test_separate_encodings_are_compared_as_in_the_package_and_read_once(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = config_of("bert", len(ranker_processor().tokenizer))
    model, processor = build_separate_ranker(backbone, shared_prompt=True, n_tasks=2)
    model.save_pretrained(tmp_path, processor=processor)
    options: Any = {"fuser": str(checkpoints / "fuser"), "device": "cpu"}
    called: Any = {"generation": {"max_new_tokens": 8}}
    expected = pipeline("llm-blending", model=str(tmp_path), **options)(INPUTS, **called)
    made = LlmBlendingPipeline(model=model, processor=processor, **options)
    assert made(INPUTS, batch_size=3, **called) == close(expected, 1e-5)
    lengths: list[int] = []
    encode = model.head.encode
    monkeypatch.setattr(model.head, "encode", lambda *parts: (lengths.append(len(parts[1])), encode(*parts))[1])
    result = made(INPUTS[0], **called)
    assert result["fused"]
    assert lengths == [5, 1], "the candidates, then the fused text"
    assert result["ranking"]["n_encodings"] == 5
    assert result["comparison"]["logit_ab"] == -result["comparison"]["logit_ba"]


def test_the_temperature_of_the_ranker_counts(traveller: LlmBlendingPipeline, package: BlenderPipeline) -> None:
    config = package.model.config
    assert traveller.model.config is config
    config.logit_temperature = 3.0
    try:
        assert traveller(INPUTS[0]) == close(package(INPUTS[0]))
    finally:
        config.logit_temperature = 1.0


def test_batches_and_iterables_change_nothing(traveller: LlmBlendingPipeline) -> None:
    expected = [traveller(record) for record in INPUTS]
    assert traveller(INPUTS, batch_size=3) == close(expected)

    def endless() -> Iterator[dict[str, Any]]:
        while True:
            yield INPUTS[2]

    assert next(traveller(endless()))["output"] == "Katze"
    assert traveller([]) == []


def test_without_a_fuser_it_ranks(traveller: LlmBlendingPipeline) -> None:
    made = LlmBlendingPipeline(model=traveller.model, processor=traveller.processor, device="cpu")
    assert made.model.config.fuser is None
    result = made(INPUTS[0])
    assert (result["returned"], result["fused"], result["fused_from"]) == ("best", None, [])
    assert result["ranking"] == traveller(INPUTS[0])["ranking"]


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ("a text", TypeError, "not str"),
        ({"prompt": "p"}, ValueError, 'the input: no candidates were found: one of the keys "candidates"'),
        ([INPUTS[0], {"prompt": "p", "candidates": []}], ValueError, "item 1: there are no candidates"),
        ({"prompt": "p", "candidates": ["a", None]}, TypeError, "the input, candidate 1: a candidate must be"),
        ({"prompt": 1, "candidates": ["a"]}, TypeError, "the input: a prompt must be"),
    ],
)
def test_bad_input_is_named(traveller: LlmBlendingPipeline, inputs: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        traveller(inputs)


@pytest.mark.parametrize(
    "name",
    [name for name, shape in SHAPES.items() if "conversation_a" not in shape.record and "chosen" not in shape.record],
)
def test_it_reads_the_names_that_the_package_reads(traveller: LlmBlendingPipeline, name: str) -> None:
    shape = SHAPES[name]
    if shape.record.get("winner_tie") is not None or "error" in shape.record:
        pytest.skip("a shape, not a name")
    found = traveller.preprocess(shape.record)
    assert (found.source, set(found.texts)) == (shape.source, shape.candidates)
    assert dict(zip(found.texts, found.models, strict=True)) == (shape.models or dict.fromkeys(shape.candidates))


def test_two_prompts_that_differ_are_refused(traveller: LlmBlendingPipeline) -> None:
    with pytest.raises(ValueError, match='the input: "prompt" and "question" both say the prompt, and differ'):
        traveller({**INPUTS[0], "question": "Another?"})


def test_unknown_options_fail(traveller: LlmBlendingPipeline) -> None:
    with pytest.raises(ValueError, match=r"no option topk; it has .*top_k"):
        traveller(INPUTS[0], topk=2)
    with pytest.raises(ValueError, match="top_k=1; fusing takes 2"):
        traveller(INPUTS[0], top_k=1)
    with pytest.raises(ValueError, match="num_return_sequences=2: a fusion is one text"):
        traveller(INPUTS[0], generation={"num_return_sequences": 2})
    with pytest.raises(TypeError, match="generation must be a mapping of options"):
        traveller(INPUTS[0], generation="x")


def test_where_the_package_is_its_own_pipeline_runs_and_needs_no_trust(checkpoints: Path) -> None:
    """Saved configurations name the code beside the weights; transformers would ask for trust to run it."""
    made = pipeline(model=str(checkpoints / "ranker"), fuser=None)
    assert isinstance(made, BlenderPipeline)
    assert '"pipeline_llm_blending.LlmBlendingPipeline"' in (checkpoints / "ranker" / "config.json").read_text()


def test_every_configuration_has_its_own_table_of_pipelines() -> None:
    """`transformers.pipeline` puts classes into it, which no JSON file can hold."""
    first, second = PairRankerConfig(), PairRankerConfig()
    first.custom_pipelines["llm-blending"]["pt"] = (object,)
    assert second.custom_pipelines["llm-blending"]["pt"] == ["AutoModel"]


def test_the_fuser_is_that_which_the_ranker_names(checkpoints: Path, tmp_path: Path) -> None:
    model, processor = build_ranker(fuser=str(checkpoints / "fuser"))
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    expected = Blender.from_pretrained(tmp_path, checkpoints / "fuser", device="cpu").blend("2 + 2?", ["4", "5"])
    assert expected.fused is not None
    assert Blender.from_pretrained(tmp_path, device="cpu").blend("2 + 2?", ["4", "5"]) == expected
    record = {"prompt": "2 + 2?", "candidates": ["4", "5"]}
    assert pipeline("llm-blending", model=str(tmp_path), device="cpu")(record) == expected.to_dict()
    made = LlmBlendingPipeline(model=model, processor=processor, device="cpu")
    assert made(record) == close(expected.to_dict())
    assert pipeline("llm-blending", model=str(tmp_path), fuser=None, device="cpu")(record)["fused"] is None
