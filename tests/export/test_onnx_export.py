"""Export of each backbone, on whichever stack this is, judged by ONNX Runtime itself."""

import shutil
from itertools import product
from pathlib import Path

import onnxruntime
import pytest
import torch
from transformers import BertConfig, BertModel

from blender_hf import (
    Blender,
    BlenderError,
    CheckpointError,
    InputError,
    ModelOutputError,
    PairRanker,
    PairRankerProcessor,
)
from blender_hf.export.graph import has_optimum
from blender_hf.export.onnx_export import export_onnx
from blender_hf.export.onnx_ranker import OnnxPairRanker, load_onnx_ranker
from blender_hf.export.provenance import statement_of
from blender_hf.loading.checkpoints import HubOptions
from tests.conftest import (
    BACKBONES,
    SMALL,
    build_fuser,
    build_ranker,
    build_separate_ranker,
    example_texts,
    ranker_processor,
)
from tests.generation.tiny_models import build_chat_ranker
from tests.stacks.families import config_of

TEXTS = example_texts()
PAIRS = ([TEXTS[0], "hello!", ""], [TEXTS[1], "hi!", "a"], [TEXTS[2], "f**k off!", ""])
POOLINGS = ("marker", "mean")
# The tracer of transformers 5 takes ten times as long, so there each pooling meets two of the backbones.
EVERY, ALTERNATING = list(product(BACKBONES, POOLINGS)), list(zip(BACKBONES, POOLINGS * 2, strict=True))
# Backbones that encode each candidate by itself, besides the one of `separate_folder`, and how they are pooled.
POOLING_OF = {
    **{"llama": "last", "roberta": "mean", "deberta-v2": "marker"},
    **{"modernbert": "marker", "mpnet": "mean", "qwen3": "mean"},
}
# The folders of a ranker and of its export, and how each is loaded.
BACKENDS = {"ranker": {"device": "cpu", "dtype": "float32"}, "onnx": {"backend": "onnx"}}
without_optimum = pytest.mark.skipif(has_optimum(), reason="for where Optimum is not installed")
with_optimum = pytest.mark.skipif(not has_optimum(), reason="Optimum's exporter needs transformers 4.57")


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "pooling"), EVERY if has_optimum() else ALTERNATING)
def test_every_backbone_is_exported_with_free_axes(kind: str, pooling: str, tmp_path: Path) -> None:
    model, processor = build_ranker(kind, pooling=pooling, n_tasks=2)
    for part in (model, processor):
        part.save_pretrained(tmp_path / "ranker")
    found = export_onnx(tmp_path / "ranker", tmp_path / "onnx")["model.onnx"]
    assert (found.n_logits, found.longest) == (20, 96)
    assert found.difference < 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "model.onnx")
    assert [node.name for node in session.get_inputs()] == ["input_ids", "attention_mask"]
    assert [node.name for node in session.get_outputs()] == ["logits"]
    assert all(isinstance(size, str) for node in session.get_inputs() for size in node.shape)
    for n_pairs in (1, 3):
        batch = processor(*(texts[:n_pairs] for texts in PAIRS))
        logits = session.run(None, {name: tensor.numpy() for name, tensor in batch.items()})[0]
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(logits), model(**batch).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", POOLING_OF if has_optimum() else ["llama"])
def test_encodings_of_every_backbone_are_exported_with_free_axes(kind: str, tmp_path: Path) -> None:
    backbone = config_of(kind, len(ranker_processor().tokenizer))
    model, processor = build_separate_ranker(backbone, pooling=POOLING_OF[kind], preference_dim=2)
    for part in (model, processor):
        part.save_pretrained(tmp_path / "ranker")
    found = export_onnx(tmp_path / "ranker", tmp_path / "onnx")["model.onnx"]
    assert (found.n_logits, found.longest) == (190, 80)
    assert found.difference < 1e-3
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "model.onnx")
    assert all(isinstance(size, str) for node in session.get_inputs() for size in node.shape)
    [output] = session.get_outputs()
    assert (output.name, output.shape[1:]) == ("encodings", [1, 3])
    for n_rows in (1, 3):
        batch = processor(*(texts[:n_rows] for texts in PAIRS[:2]))
        encodings = session.run(None, {name: tensor.numpy() for name, tensor in batch.items()})[0]
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(encodings), model(**batch).encodings, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_a_ranker_of_chat_templates_is_exported(tmp_path: Path) -> None:
    model, processor = build_chat_ranker(preference_dim=2)
    model.save_pretrained(tmp_path / "ranker", processor=processor)
    found = export_onnx(tmp_path / "ranker", tmp_path / "onnx")["model.onnx"]
    assert found.longest == 144
    blenders = [Blender.from_pretrained(tmp_path / name, None, **options) for name, options in BACKENDS.items()]
    asked = [PAIRS[0][0], [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello!"}]]
    torch_rankings, onnx_rankings = (blender.rank(asked, [PAIRS[1], PAIRS[2]]) for blender in blenders)
    for one, other in zip(torch_rankings, onnx_rankings, strict=True):
        assert other.scores == pytest.approx(one.scores, abs=1e-4)
    batch = processor(*(texts[:2] for texts in PAIRS[:2]))
    running, _ = load_onnx_ranker(tmp_path / "onnx", HubOptions())
    with pytest.raises(ValueError, match="give the token_type_ids of its processor"):
        running(batch["input_ids"], batch["attention_mask"])
    model.config.layout = "markers"
    with pytest.raises(CheckpointError, match="with layout='markers' maps input_ids, attention_mask to"):
        OnnxPairRanker(tmp_path / "onnx" / "model.onnx", model.config)


@pytest.mark.slow
def test_a_symmetric_ranker_is_exported(tmp_path: Path) -> None:
    model, processor = build_ranker(symmetric=True, pooling="mean", distinct_token_weight=1.5)
    for part in (model, processor):
        part.save_pretrained(tmp_path / "ranker")
    assert export_onnx(tmp_path / "ranker", tmp_path / "onnx")["model.onnx"].difference < 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "model.onnx")
    logits = [
        session.run(None, {name: tensor.numpy() for name, tensor in processor(PAIRS[0], a, b).items()})[0]
        for a, b in (PAIRS[1:], PAIRS[:0:-1])
    ]
    assert abs(logits[0] + logits[1]).max() < 1e-4
    # The graph has the preference of the export; one that is changed later counts as it does in torch.
    running, _ = load_onnx_ranker(tmp_path / "onnx", HubOptions())
    for ranker in (model, running):
        ranker.config.distinct_token_weight = -2.0
    batch = processor(*PAIRS)
    with torch.no_grad():
        torch.testing.assert_close(running(**batch).logits, model(**batch).logits, atol=1e-4, rtol=1e-4)


def test_the_folder_has_what_running_needs(ranker_folder: Path) -> None:
    onnx = ranker_folder / "onnx"
    assert PairRankerProcessor.from_pretrained(onnx).max_pair_length == 96
    assert {"config.json", "tokenizer.json"} <= {path.name for path in onnx.iterdir()}
    assert not list(onnx.glob("*.safetensors"))


def test_a_plain_encoder_is_refused(tmp_path: Path) -> None:
    BertModel(BertConfig(**SMALL, vocab_size=50)).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="ranker"):
        export_onnx(tmp_path, tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def test_what_a_tracer_raises_becomes_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in build_ranker():
        part.save_pretrained(tmp_path)

    def forward(*_: object, **__: object) -> None:
        raise RuntimeError("no such kernel\nand more")

    monkeypatch.setattr(PairRanker, "forward", forward)
    with pytest.raises(CheckpointError, match="can't be exported: ") as caught:
        export_onnx(tmp_path, tmp_path / "onnx")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_farther_off_than_accepted_is_removed(ranker_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelOutputError, match=r"model_int8\.onnx was removed: .*larger tolerance for int8"):
        export_onnx(ranker_folder, tmp_path, precisions=("int8",), tolerances={"int8": 1e-9})
    assert (tmp_path / "model.onnx").is_file()
    assert not (tmp_path / "model_int8.onnx").exists()


@pytest.fixture
def traced(ranker_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The exported ranker, whose graph stands for what the tracer would write, which takes long on transformers 5."""

    def trace(model: PairRanker, path: Path, opset: int) -> None:
        shutil.copy(ranker_folder / "onnx" / "model.onnx", path)

    for name in ("optimum", "transformers"):
        monkeypatch.setattr(f"blender_hf.export.onnx_export._trace_with_{name}", trace)
    return ranker_folder


def test_what_no_pair_can_have_is_not_asked_for(traced: Path, tmp_path: Path) -> None:
    """The encoder's 128 positions are enough for a prompt and two candidates of 40 tokens each."""
    model, processor = build_ranker()
    model.config.max_pair_length = processor.max_pair_length = 2048
    for part in (model, processor):
        part.save_pretrained(tmp_path / "ranker")
    assert export_onnx(tmp_path / "ranker", tmp_path / "onnx")["model.onnx"].longest == 120


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_is_not_proved_does_not_stay(
    traced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def interrupted(*_: object) -> None:
        raise error("in the middle\nand more")

    monkeypatch.setattr("blender_hf.export.onnx_export.check_ranker", interrupted)
    with pytest.raises(CheckpointError if error is RuntimeError else error, match="in the middle") as caught:
        export_onnx(traced, tmp_path / "onnx")
    assert ("\n" in str(caught.value)) == (error is KeyboardInterrupt)
    assert not (tmp_path / "onnx").exists()


def test_a_ranker_whose_longest_pair_has_no_positions_is_refused(traced: Path, tmp_path: Path) -> None:
    model, processor = build_ranker()
    for settings in (model.config, processor):
        settings.max_pair_length, settings.max_candidate_length = 2048, 1024  # its encoder has 128
    for part in (model, processor):
        part.save_pretrained(tmp_path / "ranker")
    with pytest.raises(CheckpointError, match="pairs may have 2048 tokens, but the encoder has 128 positions"):
        export_onnx(tmp_path / "ranker", tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def test_an_export_into_its_own_folder_changes_nothing_there(traced: Path, tmp_path: Path) -> None:
    model, processor = build_ranker()
    model.half().float().half().save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    export_onnx(tmp_path, tmp_path, tolerances={"float32": 0.1})  # the graph has not been rounded
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert after.pop("model.onnx")
    assert after == before


def test_an_export_beside_files_of_other_weights_is_refused(traced: Path, tmp_path: Path) -> None:
    stale = tmp_path / "onnx" / "model_int8.onnx"
    shutil.copytree(traced / "onnx", stale.parent)
    for part in build_ranker(seed=1):
        part.save_pretrained(tmp_path)
    before = {path: path.read_bytes() for path in stale.parent.iterdir()}
    with pytest.raises(InputError, match=r"model_fp16\.onnx was made of other weights"):
        export_onnx(tmp_path, stale.parent)
    assert {path: path.read_bytes() for path in stale.parent.iterdir()} == before


@pytest.mark.parametrize("output", ["file", "file/onnx"])
def test_a_folder_that_can_not_be_written_is_said(tmp_path: Path, output: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"can't write .*file is a file"):
        export_onnx("pair-ranker-mini", tmp_path / output)


def test_every_file_says_what_it_was_made_of(ranker_folder: Path) -> None:
    expected = statement_of(build_ranker()[0])
    for path in (ranker_folder / "onnx").glob("*.onnx"):
        found = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
        assert expected.items() <= found.items(), path


def test_options_that_do_not_exist(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no precision 'int4' of an ONNX file; use float32, float16, int8"):
        export_onnx(tmp_path, tmp_path, precisions=("int4",))
    for opset in (9, 24, 99):
        with pytest.raises(InputError, match=f"opset={opset}; use 18 to 23"):
            export_onnx(tmp_path, tmp_path / "onnx", opset=opset)
    assert not (tmp_path / "onnx").exists()
    with pytest.raises(InputError, match="no precision 'int4'"):
        export_onnx(tmp_path, tmp_path, tolerances={"int4": 0.1})
    with pytest.raises(InputError, match="above 0"):
        export_onnx(tmp_path, tmp_path, tolerances={"int8": float("nan")})
    with pytest.raises(CheckpointError, match="can't load the model"):
        export_onnx(tmp_path / "nothing", tmp_path / "onnx", options=HubOptions(local_files_only=True))


def test_half_precision_of_what_is_larger_than_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with more than 2 GB, at a smaller scale: the weights lie beside both graphs."""
    for module in ("quantization", "onnx_export"):
        monkeypatch.setattr(f"blender_hf.export.{module}.MAX_BYTES_INSIDE", 1000)
    for part in build_ranker():
        part.save_pretrained(tmp_path)
    found = export_onnx(tmp_path, tmp_path / "onnx", precisions=("float16",))
    assert found.keys() == {"model.onnx", "model_fp16.onnx"}
    assert (tmp_path / "onnx" / "model_fp16.onnx_data").is_file()


def test_a_fuser_has_one_precision(tmp_path: Path) -> None:
    build_fuser()[0].save_pretrained(tmp_path)
    with pytest.raises(InputError, match="int8: only a ranker"):
        export_onnx(tmp_path, tmp_path / "onnx", precisions=("int8",))


@without_optimum
def test_a_fuser_says_what_exports_it(tmp_path: Path) -> None:
    build_fuser()[0].save_pretrained(tmp_path)
    with pytest.raises(BlenderError, match=r"needs transformers 4\.57: pip install"):
        export_onnx(tmp_path, tmp_path / "onnx")


@with_optimum
@pytest.mark.slow
def test_a_fuser_has_an_encoder_and_decoders(fuser_folder: Path) -> None:
    names = {path.name for path in (fuser_folder / "onnx").glob("*.onnx")}
    assert names >= {"encoder_model.onnx", "decoder_model_merged.onnx"}
