"""The ranker in ONNX Runtime: the same scores, and errors that name what is wrong."""

import json
import multiprocessing
import os
import pickle
import shutil
import sys
from pathlib import Path

import onnx
import pytest
import torch
from onnxruntime.quantization import quantize_dynamic

from blender_hf import Blender, BlenderError, CheckpointError, InputError
from blender_hf.engine.scorer import PairScorer, Presentation
from blender_hf.export.onnx_ranker import (
    OnnxPairRanker,
    _device_of,
    exported_distinct_token_weight,
    load_onnx_ranker,
    provider_options,
    quantises_batch,
)
from blender_hf.loading.checkpoints import HubOptions, load_ranker
from blender_hf.modeling import PairRankerConfig
from tests.conftest import build_ranker, example_texts
from tests.export.conftest import separate_ranker

TEXTS = example_texts()
PAIRS = [Presentation(TEXTS[0], TEXTS[1], TEXTS[2]), Presentation("hello!", "hi!", "no"), Presentation("", "a", "")]
HUB = HubOptions()
# How far the scores of these pairs, which reach 8, may be from those in float32.
FILES = {"model.onnx": 1e-4, "model_fp16.onnx": 0.05, "model_int8.onnx": 0.2}
# And from those of the same pairs alone: a difference of rounding moves a number across a step of the coarse ones.
NEIGHBOURS = {"model.onnx": 1e-5, "model_fp16.onnx": 5e-3, "model_int8.onnx": 5e-3}


def scorer(folder: Path, file_name: str) -> PairScorer:
    return PairScorer(*load_onnx_ranker(folder, HUB, file_name=file_name))


@pytest.mark.parametrize(("file_name", "tolerance"), FILES.items())
def test_scores_are_those_of_torch(ranker_folder: Path, file_name: str, tolerance: float) -> None:
    expected = PairScorer(*build_ranker()).score(PAIRS)
    assert scorer(ranker_folder, file_name).score(PAIRS) == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize(("file_name", "precision"), NEIGHBOURS.items())
def test_a_score_does_not_depend_on_its_neighbours(ranker_folder: Path, file_name: str, precision: float) -> None:
    found = scorer(ranker_folder, file_name)
    alone = [found.score([pair])[0] for pair in PAIRS]
    assert found.score(PAIRS) == pytest.approx(alone, abs=precision, rel=0)


@pytest.mark.parametrize(("file_name", "tolerance"), FILES.items())
def test_encodings_are_those_of_torch_whatever_is_in_the_batch(
    separate_folder: Path, file_name: str, tolerance: float
) -> None:
    model, processor = load_onnx_ranker(separate_folder, HUB, file_name=file_name)
    assert not model.shares_prompts
    batch = processor(["hello!", TEXTS[0], ""], ["hi!", TEXTS[1], "a"])
    found = model(**batch).encodings
    with torch.no_grad():
        expected = separate_ranker()[0](**batch).encodings
    torch.testing.assert_close(found, expected, atol=tolerance * 2, rtol=0.0)
    alone = [model(**processor([prompt], [text])).encodings for prompt, text in (("hello!", "hi!"), ("", "a"))]
    torch.testing.assert_close(found[::2], torch.cat(alone), atol=NEIGHBOURS[file_name], rtol=0.0)


def test_rankings_by_encodings_are_those_of_torch(separate_folder: Path) -> None:
    expected = Blender.from_pretrained(separate_folder, None, device="cpu").rank(TEXTS[0], TEXTS[1:5])
    blender = Blender.from_pretrained(separate_folder, None, backend="onnx")
    found = blender.rank(TEXTS[0], TEXTS[1:5])
    assert (found.order, found.n_encodings, found.schedule) == (expected.order, 4, "full")
    assert found.scores == pytest.approx(expected.scores, abs=1e-4)
    assert blender.compare(TEXTS[0], *TEXTS[1:3]).logit == found.logits[0][1]


@pytest.mark.parametrize(
    ("folder", "settings", "message"),
    [
        ("ranker_folder", {"candidate_encoding": "separate"}, r"gives logits, and .*='separate'.* gives encodings"),
        (
            "separate_folder",
            {"candidate_encoding": "joint", "preference_dim": 0, "shared_prompt": False},
            r"gives encodings, and .*='joint'.* gives logits",
        ),
        ("separate_folder", {"preference_dim": 6}, r"are 2 x 5 numbers .*, and the configuration says 2 x 7"),
        ("separate_folder", {"n_tasks": 1}, r"are 2 x 5 numbers .*, and the configuration says 1 x 5"),
        ("separate_folder", {"shared_prompt": False}, r"exported with shared_prompt=True, and .* says False"),
        ("ranker_folder", {"pooling": "mean"}, r"exported with pooling='marker', and .* says 'mean'"),
    ],
)
def test_a_file_of_another_kind_than_its_configuration_is_refused(
    folder: str, settings: dict[str, object], message: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    shutil.copytree(request.getfixturevalue(folder) / "onnx", tmp_path, dirs_exist_ok=True)
    stated = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**stated, **settings}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=message) as caught:
        load_onnx_ranker(tmp_path, HUB)
    assert "\n" not in str(caught.value)


def test_a_file_whose_scales_span_the_batch_is_run_pair_by_pair(ranker_folder: Path, tmp_path: Path) -> None:
    """`quantize_dynamic` scales by what else is in the batch; such files are what others make."""
    for path in (ranker_folder / "onnx").glob("*.json"):
        shutil.copy(path, tmp_path)
    quantize_dynamic(ranker_folder / "onnx" / "model.onnx", tmp_path / "model.onnx")
    assert quantises_batch(tmp_path / "model.onnx")
    found = scorer(tmp_path, "model.onnx")
    alone = [found.score([pair])[0] for pair in PAIRS]
    assert found.score(PAIRS) == alone
    found.model._one_by_one = False
    assert found.score(PAIRS) != alone


def test_our_files_are_run_in_batches(ranker_folder: Path) -> None:
    assert not any(quantises_batch(ranker_folder / "onnx" / name) for name in FILES)


def test_int8_is_smaller(ranker_folder: Path) -> None:
    sizes = {name: (ranker_folder / "onnx" / name).stat().st_size for name in FILES}
    assert sizes["model_int8.onnx"] < sizes["model.onnx"]
    assert sizes["model_fp16.onnx"] < sizes["model.onnx"]


def test_truncation_can_be_set(ranker_folder: Path) -> None:
    model, processor = load_onnx_ranker(ranker_folder, HUB, truncation={"max_pair_length": 64})
    assert processor.max_pair_length == model.config.max_pair_length == 64
    with pytest.raises(InputError, match="no setting length"):
        load_onnx_ranker(ranker_folder, HUB, truncation={"length": 64})


@pytest.mark.parametrize("place", ["top", "onnx"])
def test_the_file_may_lie_at_the_top_or_under_onnx(ranker_folder: Path, place: str) -> None:
    folder = ranker_folder / "onnx" if place == "top" else ranker_folder
    assert load_onnx_ranker(folder, HUB)[0].session.get_outputs()[0].name == "logits"


def test_a_missing_file_is_named(ranker_folder: Path, checkpoints: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no model\.onnx.*blender-hf export onnx"):
        load_onnx_ranker(checkpoints / "ranker", HUB)
    with pytest.raises(CheckpointError, match=r"has no other\.onnx"):
        load_onnx_ranker(ranker_folder, HUB, file_name="other.onnx")
    with pytest.raises(CheckpointError, match="can't load the ranker"):
        load_onnx_ranker(ranker_folder / "nothing", HubOptions(local_files_only=True))


def test_a_wrong_provider_is_named(ranker_folder: Path) -> None:
    with pytest.raises(InputError, match=r"no provider 'GPU' here; it has .*CPUExecutionProvider"):
        load_onnx_ranker(ranker_folder, HUB, provider="GPU")


@pytest.mark.parametrize("kept", [0, 100, 50_000])
def test_a_damaged_file_is_named(ranker_folder: Path, tmp_path: Path, kept: int) -> None:
    damaged = tmp_path / "model.onnx"
    damaged.write_bytes((ranker_folder / "onnx" / "model.onnx").read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"model\.onnx"):
        OnnxPairRanker(damaged, build_ranker()[0].config)


@pytest.mark.parametrize(("inputs", "outputs"), [(["input_ids"], ["logits"]), (["input_ids", "attention_mask"], ["x"])])
def test_the_graph_of_another_model_is_refused(tmp_path: Path, inputs: list[str], outputs: list[str]) -> None:
    values = [
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, ["n", "m"]) for name in names]
        for names in (inputs, outputs)
    ]
    nodes = [onnx.helper.make_node("Identity", ["input_ids"], outputs)]
    graph = onnx.helper.make_model(
        onnx.helper.make_graph(nodes, "encoder", *values),
        opset_imports=[onnx.helper.make_opsetid("", 18)],
        ir_version=9,
    )
    onnx.save(graph, tmp_path / "model.onnx")
    with pytest.raises(CheckpointError, match="not an exported PairRanker: it maps input_ids"):
        OnnxPairRanker(tmp_path / "model.onnx", build_ranker()[0].config)


def test_without_the_runtime_the_error_names_the_extra(ranker_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BlenderError, match=r"pip install 'blender-hf\[onnxruntime\]'"):
        load_onnx_ranker(ranker_folder, HUB)


def test_threads_are_those_of_torch(ranker_folder: Path) -> None:
    model, _ = load_onnx_ranker(ranker_folder, HUB)
    assert model.session.get_session_options().intra_op_num_threads == torch.get_num_threads()


def test_tensors_are_where_the_provider_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _device_of("CPUExecutionProvider").type == "cpu"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert _device_of("CUDAExecutionProvider").type == "cpu", "torch has no GPU to share"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 1)
    assert _device_of("TensorrtExecutionProvider") == torch.device("cuda", 1)
    assert provider_options("TensorrtExecutionProvider") == {"device_id": 1}


def test_float32_is_as_exact_as_in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen on an H200: logits were off by 0.003, for ONNX Runtime takes TF32 unless it is told not to."""
    assert provider_options("CPUExecutionProvider") == {}
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    assert provider_options("CUDAExecutionProvider") == {"device_id": 0, "use_tf32": 0}
    monkeypatch.setattr("torch.get_float32_matmul_precision", lambda: "high")
    assert provider_options("CUDAExecutionProvider") == {"device_id": 0, "use_tf32": 1}


def test_inputs_may_be_views_of_others(ranker_folder: Path) -> None:
    model, processor = load_onnx_ranker(ranker_folder, HUB)
    batch = processor(["hello!"] * 2, ["hi!", "no"], ["no", "hi!"])
    wide = {name: torch.stack([tensor, torch.zeros_like(tensor)], dim=-1)[..., 0] for name, tensor in batch.items()}
    assert not wide["input_ids"].is_contiguous()
    assert torch.equal(model(**wide).logits, model(**batch).logits)


def test_inputs_may_be_of_any_type_of_whole_numbers(ranker_folder: Path) -> None:
    """As with torch: the binding itself would read other numbers from the same memory."""
    model, processor = load_onnx_ranker(ranker_folder, HUB)
    batch = processor(["hello!"] * 2, ["hi!", "no"], ["no", "hi! " * 9])
    ids, mask = batch["input_ids"], batch["attention_mask"]
    expected = model(**batch).logits
    assert torch.equal(model(ids.int(), mask.bool()).logits, expected)
    alone = ids[1:, : int(mask[1].sum())]
    torch.testing.assert_close(model(alone).logits, expected[1:], atol=1e-5, rtol=1e-5)


def test_logits_of_another_type_are_refused(ranker_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blender_hf.export.onnx_ranker.OUTPUT_TYPES", {"tensor(bfloat16)": ()})
    with pytest.raises(CheckpointError, match=r"are tensor\(float\); a ranker's are tensor\(bfloat16\)"):
        load_onnx_ranker(ranker_folder, HUB)


@pytest.mark.parametrize("states_it", [True, False])
def test_a_preference_that_is_changed_after_the_export_counts(
    ranker_folder: Path, tmp_path: Path, states_it: bool
) -> None:
    """The graph has that of the export; where a file does not state it, the configuration beside it does."""
    folder = tmp_path / "ranker"
    shutil.copytree(ranker_folder, folder)
    path = folder / "onnx" / "model.onnx"
    if not states_it:
        graph = onnx.load(path)
        del graph.metadata_props[:]
        onnx.save(graph, path)
    assert exported_distinct_token_weight({}, path.parent, PairRankerConfig(distinct_token_weight=9.0)) == 0.0
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**settings, "distinct_token_weight": 3.0}), encoding="utf-8")
    expected = PairScorer(*load_ranker(folder, HUB, device="cpu")).score(PAIRS)
    assert scorer(folder, "model.onnx").score(PAIRS) == pytest.approx(expected, abs=1e-4)
    assert expected != pytest.approx(scorer(ranker_folder, "model.onnx").score(PAIRS), abs=1e-2)


def test_a_file_of_earlier_weights_is_refused(ranker_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ranker"
    shutil.copytree(ranker_folder, folder)
    build_ranker(seed=1)[0].save_pretrained(folder)
    with pytest.raises(
        CheckpointError, match=r"model_int8\.onnx was made of other weights than those in .*ranker; remove"
    ):
        load_onnx_ranker(folder, HUB, file_name="model_int8.onnx")
    assert load_onnx_ranker(folder / "onnx", HUB)  # that folder is another checkpoint, and whole


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_fork_and_a_copy_have_sessions_of_their_own(ranker_folder: Path) -> None:
    """A fork waited forever for the threads of its parent's session, which could not be pickled either."""
    blender = Blender.from_pretrained(ranker_folder, None, backend="onnx")
    ranking = blender.rank("2 + 2?", ["4", "5", "6"])
    assert pickle.loads(pickle.dumps(blender)).rank("2 + 2?", ["4", "5", "6"]).scores == ranking.scores
    results = multiprocessing.get_context("fork").SimpleQueue()
    process = multiprocessing.get_context("fork").Process(
        target=lambda: results.put(blender.rank("2 + 2?", ["4", "5", "6"]).scores)
    )
    process.start()
    process.join(60)
    assert process.exitcode == 0, process.kill()
    assert results.get() == pytest.approx(ranking.scores, abs=1e-5)
