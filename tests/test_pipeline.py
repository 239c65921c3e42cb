"""`pipeline("llm-blending")`, as users of transformers call it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from transformers import pipeline
from transformers.pipelines.pt_utils import KeyDataset

from blender_hf import Blender, BlenderPipeline, InputError, InputTypeError
from blender_hf.modeling.pipeline_llm_blending import LlmBlendingPipeline
from tests.conftest import example_texts

TEXTS = example_texts()
INPUTS = [
    {"prompt": TEXTS[0], "candidates": list(TEXTS[1:4])},
    {"prompt": [{"role": "user", "content": "2 + 2?"}], "candidates": ["4", {"text": "5", "model": "parrot"}]},
    {"prompt": "cat", "instruction": "Translate.", "candidates": ["Katze"]},
]


@pytest.fixture(scope="module")
def pipe(checkpoints: Path) -> BlenderPipeline:
    return pipeline("llm-blending", model=str(checkpoints / "ranker"), fuser=str(checkpoints / "fuser"), device="cpu")


def test_the_result_is_that_of_the_blender(pipe: BlenderPipeline, checkpoints: Path) -> None:
    blender = Blender.from_pretrained(checkpoints / "ranker", checkpoints / "fuser", device="cpu")
    assert isinstance(pipe, BlenderPipeline)
    assert pipe(INPUTS[0]) == blender.blend(INPUTS[0]["prompt"], INPUTS[0]["candidates"]).to_dict()


def test_a_single_input_gives_a_dictionary(pipe: BlenderPipeline) -> None:
    result = pipe(INPUTS[1])
    assert result["output"] in (result["best"], result["fused"])
    assert result["ranking"]["models"] == [None, "parrot"]


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_lists_generators_and_datasets_agree(pipe: BlenderPipeline, batch_size: int) -> None:
    expected = [pipe(record)["output"] for record in INPUTS]
    assert [r["output"] for r in pipe(INPUTS, batch_size=batch_size)] == expected
    assert [r["output"] for r in pipe((x for x in INPUTS), batch_size=batch_size)] == expected
    texts = [{"prompt": "p", "candidates": ["a", "b"]}, {"prompt": "q", "candidates": ["c"]}]
    table = datasets.Dataset.from_list(texts)
    assert [r["output"] for r in pipe(table, batch_size=batch_size)] == [r["output"] for r in pipe(texts)]


def test_an_empty_list_gives_an_empty_list(pipe: BlenderPipeline) -> None:
    assert pipe([]) == []


def test_a_generator_is_read_as_results_are_taken(pipe: BlenderPipeline) -> None:
    def endless() -> Iterator[dict[str, Any]]:
        while True:
            yield INPUTS[2]

    results = pipe(endless(), batch_size=2)
    assert [next(results)["output"] for _ in range(3)] == ["Katze"] * 3


def test_options_of_the_call_and_of_the_pipeline(pipe: BlenderPipeline, checkpoints: Path) -> None:
    assert len(pipe(INPUTS[0], top_k=2)["fused_from"]) == 2
    assert pipe(INPUTS[0], fallback=False)["returned"] == "fused"
    assert set(pipe(INPUTS[0], aggregation="max_wins")["ranking"]["scores"]) <= {0.0, 0.5, 1.0, 1.5, 2.0}
    always = pipeline(
        "llm-blending", model=str(checkpoints / "ranker"), fuser=str(checkpoints / "fuser"), fallback=False, top_k=2
    )
    result = always(INPUTS[0])
    assert (result["returned"], len(result["fused_from"])) == ("fused", 2)


def test_names_of_columns(checkpoints: Path, pipe: BlenderPipeline, caplog: pytest.LogCaptureFixture) -> None:
    record = {"frage": INPUTS[0]["prompt"], "candidates": INPUTS[0]["candidates"], "foo": 1}
    assert pipe(record, columns={"prompt": "frage"}) == pipe(INPUTS[0])
    assert caplog.messages == ['the inputs: not read: "foo"']
    always = pipeline("llm-blending", model=str(checkpoints / "ranker"), fuser=None, columns={"prompt": "frage"})
    assert always([record])[0]["best"] == always.blender.rank(INPUTS[0]["prompt"], INPUTS[0]["candidates"]).best
    with pytest.raises(InputError, match="unknown role 'promt'"):
        pipe(record, columns={"promt": "frage"})


def test_without_a_fuser_it_ranks(checkpoints: Path) -> None:
    result = pipeline("llm-blending", model=str(checkpoints / "ranker"), fuser=None)(INPUTS[0])
    assert (result["returned"], result["fused"]) == ("best", None)


def test_progress(pipe: BlenderPipeline, capfd: pytest.CaptureFixture[str]) -> None:
    pipe(INPUTS, progress=True)
    assert "3/3" in capfd.readouterr().err


@pytest.mark.parametrize("dtype", ["bfloat16", torch.float32])
def test_the_precision_is_that_which_was_asked_for(checkpoints: Path, dtype: Any) -> None:
    made = pipeline("llm-blending", model=str(checkpoints / "ranker"), fuser=str(checkpoints / "fuser"), dtype=dtype)
    wanted = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    assert {p.dtype for p in made.model.parameters()} == {wanted}
    assert made(INPUTS[0])["output"]


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ("a text", InputTypeError, "not str"),
        (None, InputTypeError, "not NoneType"),
        ({"prompt": "p"}, InputError, 'the input: no candidates were found: one of the keys "candidates"'),
        ([INPUTS[0], {"prompt": "p", "candidates": []}], InputError, "item 1: there are no candidates"),
        ([INPUTS[0], ["p", ["a"]]], InputTypeError, "item 1: expected a mapping"),
        ({"prompt": "p", "candidates": "ab"}, InputTypeError, "must be a list of strings"),
    ],
)
def test_bad_input_is_named(pipe: BlenderPipeline, inputs: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        pipe(inputs)


def test_unknown_options_fail(pipe: BlenderPipeline, checkpoints: Path) -> None:
    with pytest.raises(InputError, match=r"no option topk; it has .*top_k"):
        pipe(INPUTS[0], topk=2)
    with pytest.raises(InputError, match="no option mode"):
        pipeline("llm-blending", model=str(checkpoints / "ranker"), fuser=None, mode="full")


def test_datasets_that_have_only_places_are_read(pipe: BlenderPipeline) -> None:
    """`KeyDataset` is how the guides of transformers name a column; it has no `__iter__`."""
    column = KeyDataset([{"x": record} for record in INPUTS], "x")
    assert list(pipe(column)) == pipe(INPUTS)


@pytest.mark.parametrize("remote", [False, True], ids=["the package's", "the one that travels"])
def test_a_saved_pipeline_ranks_alike(checkpoints: Path, tmp_path: Path, remote: bool) -> None:
    kind = LlmBlendingPipeline if remote else BlenderPipeline
    ranks = pipeline("llm-blending", model=str(checkpoints / "ranker"), fuser=None, pipeline_class=kind)
    ranks.save_pretrained(tmp_path / "saved")
    again = pipeline("llm-blending", model=str(tmp_path / "saved"), fuser=None)
    assert again(INPUTS[0])["ranking"]["order"] == list(ranks(INPUTS[0])["ranking"]["order"])


def test_ranking_only_the_best_k_may_be_asked_for(checkpoints: Path) -> None:
    ranks = pipeline("llm-blending", model=str(checkpoints / "ranker"), fuser=None)
    record = {"prompt": TEXTS[0], "candidates": list(TEXTS[1:9])}
    few = ranks(record, schedule="knockout", top_k=1)["ranking"]["n_comparisons"]
    assert few == 7 < ranks(record, schedule="knockout", top_k=3)["ranking"]["n_comparisons"]
    with pytest.raises(InputError, match=r"fallback, generation can do nothing .*ranks only"):
        ranks(record, fallback=False, generation={})


@pytest.mark.parametrize("size", [0, -1, "2"])
def test_a_batch_has_at_least_one_prompt(pipe: BlenderPipeline, size: object) -> None:
    with pytest.raises(InputError, match=f"batch_size={size!r}; at least one"):
        pipe(INPUTS, batch_size=size)
