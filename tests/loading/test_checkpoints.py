"""Loading by name: what is bundled, what is in a folder, and clear words for what is neither."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, pipeline

import blender_hf
from blender_hf import Blender, CheckpointError, InputError, InputTypeError
from blender_hf.generation.local import LocalModel
from blender_hf.generation.specs import LocalLLM
from blender_hf.loading.checkpoints import (
    BASE_RANKER,
    BUNDLED,
    BUNDLED_LLM,
    check_processor,
    load_ranker,
    locate,
    pick_device,
    pick_dtype,
    set_truncation,
)
from blender_hf.modeling.pipeline_llm_blending import LlmBlendingPipeline
from tests.conftest import build_ranker, example_texts

TALK = [
    {"role": "user", "content": "I am going to Rome."},
    {"role": "assistant", "content": "How nice!"},
    {"role": "user", "content": "What could I see there?"},
]
LARGEST_FILE = 50 * 1024 * 1024


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_checkpoints_are_small_safe_and_name_no_path(name: str) -> None:
    folder = Path(locate(name))
    files = {path.name for path in folder.iterdir()}
    weights = "adapter_model.safetensors" if name == BASE_RANKER else "model.safetensors"
    assert {"config.json", weights, "tokenizer.json", "processor_config.json"} <= files
    assert not [file for file in files if Path(file).suffix not in (".json", ".safetensors", ".jinja")]
    for path in folder.iterdir():
        assert path.stat().st_size < LARGEST_FILE
        if path.name.endswith("config.json"):
            text = path.read_text(encoding="utf-8")
            assert "/" not in text.replace("</s>", "").replace('"../smollm2-135m"', ""), f"{path.name} names a path"


def test_the_bundled_ranker_knows_a_good_answer() -> None:
    """A smoke test of the trained weights; how good they are is measured by benchmarks/ranker_dev.py."""
    blender = Blender.from_pretrained(fuser=None)
    prompt, good = example_texts()[0], example_texts()[1]
    other_prompt, off_the_point = example_texts()[14], example_texts()[15]
    assert prompt != other_prompt
    assert blender.rank(prompt, [off_the_point, good, good[: len(good) // 3]]).order[0] == 1


def test_the_bundled_ranker_over_a_language_model_knows_what_an_answer_is() -> None:
    """Of the kinds of obvious pairs that it is sure of; how good it is is measured by benchmarks/obvious.py."""
    blender = Blender.from_pretrained(BASE_RANKER, None, device="cpu")
    prompts = ["What is the capital of France?", "Name a fruit that is red.", TALK]
    candidates = [
        ["France is a country in Europe.", "The capital of France is Paris.", "", "I can't help with that."],
        ["xk qpw zzv", "An apple.", "That's a great question!"],
        ["Ich wohne in Rom.", "You could see the Colosseum and the Forum."],
    ]
    assert [ranking.order[0] for ranking in blender.rank(prompts, candidates)] == [1, 1, 1]


def test_a_ranker_and_a_language_model_share_their_weights() -> None:
    language_model = LocalModel(LocalLLM(BUNDLED_LLM, device="cpu", dtype="float32")).model
    ranker = Blender.from_pretrained(BASE_RANKER, None, device="cpu").ranker.model
    shared = [
        ours.data_ptr() == theirs.data_ptr()
        for ours, theirs in zip(ranker.backbone.layers, language_model.model.layers, strict=True)
        for ours, theirs in zip(ours.parameters(), theirs.parameters(), strict=True)
    ]
    assert ranker.backbone.embed_tokens.weight.data_ptr() == language_model.model.embed_tokens.weight.data_ptr()
    # The lower layers, and of the upper ones the norms.
    assert sum(shared) == 16 * 9 + 14 * 2


def test_everything_works_with_the_bundled_defaults() -> None:
    result = pipeline("llm-blending")({"prompt": "2 + 2?", "candidates": ["It is 4.", "Bananas are yellow. Yes."]})
    assert result["output"]
    assert result["fused"]
    assert sorted(result["ranking"]["order"]) == [0, 1]


def test_float16_weights_are_computed_with_in_float32() -> None:
    blender = Blender.from_pretrained(device="cpu")
    assert {p.dtype for p in blender.scorer.model.parameters()} == {torch.float32}
    assert AutoModel.from_pretrained(locate("pair-ranker-mini"), dtype="auto").dtype == torch.float16


def test_a_name_that_is_nothing_is_one_clear_line() -> None:
    with pytest.raises(
        CheckpointError, match=r"can't load the ranker 'no/such-ranker'.*bundled pair-ranker-mini"
    ) as caught:
        Blender.from_pretrained("no/such-ranker", local_files_only=True)
    assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match="can't load the fuser '/no/such/folder'"):
        Blender.from_pretrained(fuser="/no/such/folder")


def test_a_fuser_is_no_ranker_and_the_other_way_round() -> None:
    with pytest.raises(CheckpointError, match="can't load the ranker 'gen-fuser-mini'"):
        Blender.from_pretrained("gen-fuser-mini")
    with pytest.raises(CheckpointError, match="can't load the fuser 'pair-ranker-mini'"):
        Blender.from_pretrained(fuser="pair-ranker-mini")


def test_a_checkpoint_without_its_head_is_refused(checkpoints: Path, tmp_path: Path) -> None:
    """PEER_FAULTS: a log line, then random scores."""
    from safetensors.torch import load_file, save_file

    for path in (checkpoints / "ranker").iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    whole = {name: weight for name, weight in weights.items() if not name.startswith("head.")}
    save_file(whole, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"4 missing from the checkpoint.*head\.dense"):
        Blender.from_pretrained(tmp_path)


def test_a_path_that_names_another_model_changes_nothing(checkpoints: Path, tmp_path: Path) -> None:
    """PEER_FAULTS: a path that contains "phi" or "llama" got another tokenizer, and trusted remote code."""
    folder = tmp_path / "llama-phi-ranker"
    folder.symlink_to(checkpoints / "ranker")
    expected = Blender.from_pretrained(checkpoints / "ranker", None).rank("p", ["a", "b"])
    assert Blender.from_pretrained(folder, None).rank("p", ["a", "b"]) == expected


def test_the_device_is_what_there_is() -> None:
    """PEER_FAULTS: AssertionError "Torch not compiled with CUDA enabled"."""
    assert pick_device(None).type in ("cpu", "cuda", "mps")
    assert pick_device("cpu") == torch.device("cpu")
    with pytest.raises(InputError, match="'abacus' can't be used here"):
        pick_device("abacus")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match=r"'cuda' can't be used here.*try 'cpu'"):
            pick_device("cuda")


def test_the_precision() -> None:
    cpu = torch.device("cpu")
    assert pick_dtype(None, cpu) == torch.float32
    assert pick_dtype("bfloat16", cpu) == torch.bfloat16
    for unusable in ("int8", "float33", "nn"):
        with pytest.raises(InputError, match=f"unknown dtype '{unusable}'"):
            pick_dtype(unusable, cpu)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": False, "avx2": True}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_auto_is_bfloat16_where_the_processor_has_it(
    capabilities: dict[str, bool], expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert pick_dtype("auto", torch.device("cpu")) == expected


def test_truncation_can_be_stated_at_loading(checkpoints: Path) -> None:
    given = {"max_source_length": 20, "source_truncation_side": "left"}
    model, processor = load_ranker(checkpoints / "ranker", device="cpu", truncation=given)
    for settings in (model.config, processor):
        assert (settings.max_source_length, settings.source_truncation_side) == (20, "left")
        assert (settings.max_pair_length, settings.max_candidate_length) == (96, 40), "the rest is the checkpoint's"
    pair = processor.encode_pair([*range(5, 105)], [7], [8])
    assert (pair.truncated_source, pair.input_ids[2]) == (83, 88)


@pytest.mark.parametrize(
    ("truncation", "error", "message"),
    [
        ({"source_maxlength": 20}, InputError, "no setting source_maxlength; use max_pair_length, max_source_length"),
        ({"max_source_length": 90}, InputError, "truncation: max_source_length=90 leaves fewer than 8 tokens per cand"),
        ({"max_source_length": "20"}, InputError, "truncation: max_source_length='20'; use a whole number"),
        ({"max_candidate_length": 3}, InputError, "truncation: max_candidate_length=3 leaves no room"),
        ({"source_truncation_side": "middle"}, InputError, "source_truncation_side='middle'; use one of left, right"),
        ([20], InputTypeError, "truncation must be a mapping.*not list"),
    ],
)
def test_truncation_that_cannot_be_used(
    truncation: Any, error: type[Exception], message: str, checkpoints: Path
) -> None:
    """PEER_FAULTS: `source_maxlength` and other options were silently ignored."""
    with pytest.raises(error, match=message):
        load_ranker(checkpoints / "ranker", device="cpu", truncation=truncation)


@pytest.mark.parametrize(
    ("kind", "config", "reach"),
    [
        ("bert", {}, 128),
        ("bert", {"symmetric": True}, 128),
        ("roberta", {}, 127),
        ("roberta", {"symmetric": True}, 127),
    ],
)
def test_the_longest_pair_that_is_let_through_can_be_read_and_a_longer_one_is_refused(
    kind: str, config: dict[str, Any], reach: int, tmp_path: Path
) -> None:
    """It went on until a long pair came, then "index 128 is out of bounds"; RoBERTa counts from its padding."""
    model, processor = build_ranker(kind, **config)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)

    def loaded(max_pair_length: int) -> Blender:
        lengths = {"max_pair_length": max_pair_length, "max_source_length": 60, "max_candidate_length": 60}
        return Blender.from_pretrained(tmp_path, None, device="cpu", truncation=lengths)

    with pytest.raises(InputError, match=rf"truncation: pairs may have {reach + 1} tokens, but.*has {reach} positions"):
        loaded(reach + 1)
    blender = loaded(reach)
    long = " ".join(example_texts())
    texts = blender.scorer.tokenise([long])
    assert len(blender.scorer.processor.encode_pair(*[texts[long]] * 3).input_ids) in (reach - 1, reach)
    assert blender.compare(long, long, long[1:]).truncated


def test_truncation_that_cannot_be_used_changes_nothing(checkpoints: Path) -> None:
    model, processor = load_ranker(checkpoints / "ranker", device="cpu")
    for wrong in ({"max_pair_length": 500}, {"max_candidate_length": 3}):
        with pytest.raises(InputError, match="truncation: "):
            set_truncation(model.config, processor, {"max_source_length": 300, "max_candidate_length": 200, **wrong})
        assert (processor.max_pair_length, processor.max_source_length, processor.max_candidate_length) == (96, 40, 40)


def test_lengths_that_a_checkpoint_states_beyond_its_positions_are_refused_and_can_be_overruled(tmp_path: Path) -> None:
    model, processor = build_ranker()
    processor.set_truncation(max_pair_length=2048, max_source_length=1224, max_candidate_length=1024)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    message = r"pairs may have 2048 tokens.*use max_pair_length=128 and max_source_length=64"
    with pytest.raises(CheckpointError, match=message):
        Blender.from_pretrained(tmp_path, None)
    with pytest.raises(CheckpointError, match=message):
        pipeline("llm-blending", model=str(tmp_path), fuser=None)
    fitting = {"max_pair_length": 128, "max_source_length": 64}
    assert Blender.from_pretrained(tmp_path, None, truncation=fitting).rank("p", ["a", "b"]).n_comparisons == 1


def test_encoders_without_a_table_of_positions_read_any_length(tmp_path: Path) -> None:
    lengths = {"max_pair_length": 4096, "max_source_length": 2000, "max_candidate_length": 2000}
    for kind in ("modernbert", "deberta-v2"):
        model, processor = build_ranker(kind)
        model.save_pretrained(tmp_path / kind)
        processor.save_pretrained(tmp_path / kind)
        _, loaded = load_ranker(tmp_path / kind, device="cpu", truncation=lengths)
        assert loaded.max_pair_length == 4096


@pytest.mark.parametrize("stated", [5, None])
def test_markers_that_are_not_those_of_the_tokenizer_are_refused(stated: int | None, tmp_path: Path) -> None:
    """Logits were off by more than 1, or the first ranking ended in an AttributeError."""
    model, processor = build_ranker()
    model.config.candidate1_token_id = stated
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    message = rf"do not fit: candidate1_token_id is {stated} in the configuration and \d+ in the tokenizer"
    with pytest.raises(CheckpointError, match=message):
        Blender.from_pretrained(tmp_path, None)
    with pytest.raises(CheckpointError, match=message):
        pipeline("llm-blending", model=str(tmp_path), fuser=None)
    with pytest.raises(ValueError, match="so they are not of one ranker"):
        LlmBlendingPipeline(model=model, processor=processor, device="cpu")


def test_a_tokenizer_with_more_tokens_than_the_encoder_has_is_refused(checkpoints: Path) -> None:
    model, processor = load_ranker(checkpoints / "ranker", device="cpu")
    processor.tokenizer.add_tokens(["<one more>"])
    with pytest.raises(CheckpointError, match=r"the tokenizer has \d+ tokens and the encoder \d+ embeddings"):
        check_processor(model.config, processor)


def test_options_are_closed() -> None:
    with pytest.raises(InputError, match="max_batch_tokens=0"):
        Blender.from_pretrained(fuser=None, max_batch_tokens=0)
    with pytest.raises(TypeError, match="no_such_option"):
        Blender.from_pretrained(no_such_option=1)


def test_every_public_name_can_be_imported() -> None:
    for name in blender_hf.__all__:
        assert getattr(blender_hf, name) is not None
    assert set(dir(blender_hf)) == set(blender_hf.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = blender_hf.no_such_name


def test_what_is_loaded_already_is_no_name() -> None:
    with pytest.raises(InputTypeError, match="not by a PairRanker; what is loaded already goes to Blender"):
        Blender.from_pretrained(build_ranker()[0], None)
