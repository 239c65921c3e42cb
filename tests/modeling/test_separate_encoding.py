"""Rankers that encode each candidate once: their encodings, their logits, and what they share."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import PretrainedConfig

from blender_hf import Blender, CheckpointError, PairRanker, PairRankerConfig, PairRankerProcessor
from blender_hf.modeling import CandidateEncoding
from blender_hf.modeling.configuration_pair_ranker import SHARING_ENCODERS
from blender_hf.modeling.ranking_math import compare_encodings
from blender_hf.modeling.separate_encoding import read_rows
from tests.conftest import (
    LENGTHS,
    backbone_config,
    build_ranker,
    build_separate_ranker,
    example_texts,
    ranker_processor,
)
from tests.stacks.families import DECODERS, ENCODERS, MadeFrom, config_of, random_model

PROMPTS = [example_texts()[0], "hello!", ""]
# Of which prompt, and what it says.
ROWS = [(0, "Yes, it is."), (0, "no"), (1, example_texts()[1][:90]), (2, "x"), (2, ""), (0, example_texts()[2][:60])]
FAMILIES = (*ENCODERS, *DECODERS)


def family(kind: str) -> PretrainedConfig:
    return config_of(kind, len(ranker_processor().tokenizer))


def rows_of(processor: PairRankerProcessor) -> list[CandidateEncoding]:
    prompts, texts = processor.encode_prompts(PROMPTS), processor.encode_texts([text for _, text in ROWS])
    return [processor.encode_candidate(prompts[row[0]], ids) for row, ids in zip(ROWS, texts, strict=True)]


def encode_alone(model: PairRanker, processor: PairRankerProcessor) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([model(**processor.pad_candidates([row])).encodings for row in rows_of(processor)])


def encode_behind_prompts(model: PairRanker, processor: PairRankerProcessor) -> torch.Tensor:
    encodings = rows_of(processor)
    first = {prompt: encoding.prompt_ids for (prompt, _), encoding in zip(ROWS, encodings, strict=True)}
    with torch.no_grad():
        prompts = model.read_prompts(**processor.pad([first[prompt] for prompt in range(len(PROMPTS))]))
        # The last candidates first, in two batches, from the same prompts.
        parts = [
            model.encode_after(
                prompts,
                torch.tensor([prompt for prompt, _ in ROWS[part]]),
                **processor.pad([encoding.candidate_ids for encoding in encodings[part]]),
            )
            for part in (slice(3, None), slice(0, 3))
        ]
    return torch.cat([parts[1], parts[0]])


@pytest.mark.parametrize("kind", FAMILIES)
def test_an_encoding_depends_on_the_prompt_and_the_candidate_alone(kind: str) -> None:
    model, processor = build_separate_ranker(family(kind))
    alone = encode_alone(model, processor)
    assert alone.shape == (len(ROWS), 1, 5)
    for some in ([0, 1, 2, 3, 4, 5], [5, 0]):
        with torch.no_grad():
            together = model(**processor.pad_candidates([rows_of(processor)[row] for row in some])).encodings
        torch.testing.assert_close(together, alone[some], atol=1e-5, rtol=1e-5)
    swapped = processor(["Another prompt entirely", PROMPTS[0]], [ROWS[0][1], "Quite another answer."])
    with torch.no_grad():
        changed = model(**swapped).encodings
    assert (changed - alone[0]).abs().amax(dim=(1, 2)).min() > 1e-3


@pytest.mark.parametrize("kind", [*DECODERS, *SHARING_ENCODERS])
@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_a_prompt_is_read_once_for_all_of_its_candidates(kind: str, pooling: str) -> None:
    model, processor = build_separate_ranker(family(kind), shared_prompt=True, pooling=pooling)
    assert model.shares_prompts
    torch.testing.assert_close(
        encode_behind_prompts(model, processor), encode_alone(model, processor), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("shared", [True, False])
def test_only_a_shared_prompt_is_read_without_the_candidate(shared: bool) -> None:
    model, processor = build_separate_ranker(family("bert"), shared_prompt=shared)
    assert model.shares_prompts == shared
    batch = processor.pad_candidates(rows_of(processor)[:2])
    with torch.no_grad():
        prompts, _ = read_rows(model.backbone, model.config, batch["input_ids"], batch["attention_mask"].bool())
    assert torch.allclose(prompts[0], prompts[1], atol=1e-5) == shared


def test_logits_are_negated_exactly_by_a_swap_and_express_a_circle() -> None:
    encodings = torch.randn(6, 1, 2, 9, generator=torch.Generator().manual_seed(0))
    logits = compare_encodings(encodings, encodings.transpose(0, 1))
    assert logits.shape == (6, 6, 2)
    assert torch.equal(logits, -logits.transpose(0, 1))
    assert not torch.diagonal(logits).any()
    # Three unit vectors a third of a circle apart: each beats the next, none by its score.
    turns = np.arange(3) * 2 * np.pi / 3
    circle = np.stack([np.zeros(3), np.cos(turns), np.sin(turns)], axis=-1)[:, None]
    beats = compare_encodings(circle[:, None], circle[None, :])[..., 0]
    assert min(beats[0, 1], beats[1, 2], beats[2, 0]) > 0.5


def test_without_preference_embeddings_a_logit_is_a_difference_of_scores() -> None:
    model, processor = build_separate_ranker(family("bert"), preference_dim=0)
    encodings = encode_alone(model, processor)
    assert encodings.shape == (len(ROWS), 1, 1)
    pairs = torch.tensor(list(itertools.combinations(range(len(ROWS)), 2)))
    with torch.no_grad():
        logits = model(**processor.pad_candidates(rows_of(processor)), pairs=pairs).logits
    torch.testing.assert_close(logits, (encodings[pairs[:, 0]] - encodings[pairs[:, 1]])[:, 0, 0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("n_tasks", [1, 3])
def test_the_loss_is_that_of_pairs(n_tasks: int) -> None:
    model, processor = build_separate_ranker(family("bert"), shared_prompt=True, n_tasks=n_tasks)
    pairs, labels = torch.tensor([[0, 1], [4, 3], [5, 0]]), torch.tensor([1.0, 0.0, 0.3])
    output = model(**processor.pad_candidates(rows_of(processor)), pairs=pairs, labels=labels)
    logits = compare_encodings(output.encodings[pairs[:, 0]], output.encodings[pairs[:, 1]])
    wanted = functional.binary_cross_entropy_with_logits(logits, labels[:, None].expand(-1, n_tasks))
    torch.testing.assert_close(output.loss, wanted)
    torch.testing.assert_close(output.logits, logits.mean(dim=1))
    output.loss.backward()
    assert all(weight.grad is not None for weight in model.head.parameters())


def test_it_is_saved_and_loaded_with_all_of_its_weights(tmp_path: Path) -> None:
    model, processor = build_separate_ranker(family("bert"), shared_prompt=True)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = PairRanker.from_pretrained(tmp_path).eval()
    assert (loaded.config.candidate_encoding, loaded.config.preference_dim) == ("separate", 4)
    again = encode_alone(loaded, PairRankerProcessor.from_pretrained(tmp_path))
    torch.testing.assert_close(again, encode_alone(model, processor))


def test_a_tokenizer_without_padding_will_do() -> None:
    """Those of most decoders have none."""
    model, processor = build_separate_ranker(family("llama"))
    wanted = encode_alone(model, processor)
    processor.tokenizer.pad_token = None
    with torch.no_grad():
        found = model(**processor.pad_candidates(rows_of(processor))).encodings
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_what_is_cut_of_a_candidate_does_not_depend_on_others() -> None:
    processor = ranker_processor(max_pair_length=64, max_source_length=30, max_candidate_length=60)
    [source], [long, short] = processor.encode_prompts(["a " * 50]), processor.encode_texts(["b " * 90, "c"])
    cut = processor.encode_candidate(source, long)
    assert (len(cut.prompt_ids), len(cut)) == (30, 64)
    assert cut.truncated_source > 0
    assert cut.truncated_candidate == len(long) - (64 - 30 - 3)
    assert processor.encode_candidate(source, short).truncated_candidate == 0


def without(weights: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name: weight for name, weight in weights.items() if not name.startswith(prefix)}


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (
            lambda weights: without(weights, "head.preference"),
            {},
            r"2 missing .*head\.preference\.bias, head\.preference\.weight",
        ),
        (lambda weights: weights, {"preference_dim": 6}, r"2 of another shape .*head\.preference"),
        (lambda weights: weights, {"preference_dim": 0}, r"2 in the checkpoint but not in the model: head\.preference"),
        (
            lambda weights: weights,
            {"candidate_encoding": "joint", "preference_dim": 0},
            r"2 in the checkpoint but not in the model: head\.preference",
        ),
        (lambda weights: without(weights, "backbone."), {}, r"has nothing of the backbone: .* missing"),
        (lambda weights: without(weights, "head."), {}, r"has nothing of the head: .* missing"),
        (lambda weights: weights, {"candidate_encoding": "woven"}, r"this release knows joint, separate: .*upgrade"),
        (
            lambda weights: {name: weight + 0.01 * name.startswith("backbone.") for name, weight in weights.items()},
            {},
            "has another revision of the encoder than the one that its head was saved with",
        ),
    ],
)
def test_a_checkpoint_whose_parts_do_not_fit_is_refused_in_one_line(
    change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]],
    settings: dict[str, object],
    message: str,
    tmp_path: Path,
) -> None:
    model, processor = build_separate_ranker(family("bert"))
    model.save_pretrained(tmp_path, processor=processor)
    save_file(change(load_file(tmp_path / "model.safetensors")), tmp_path / "model.safetensors", {"format": "pt"})
    stated = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**stated, **settings}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=message) as caught:
        Blender.from_pretrained(tmp_path, None)
    assert "\n" not in str(caught.value)


def test_weights_of_a_ranker_of_pairs_have_no_preference_embeddings(tmp_path: Path) -> None:
    build_ranker()[0].save_pretrained(tmp_path)
    stated = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    changed = {**stated, "candidate_encoding": "separate", "preference_dim": 4}
    (tmp_path / "config.json").write_text(json.dumps(changed), encoding="utf-8")
    with pytest.raises(OSError, match=r"2 missing from the checkpoint .*head\.preference"):
        PairRanker.from_pretrained(tmp_path)


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float32])
def test_the_same_encoder_is_known_in_any_precision(stored: torch.dtype, tmp_path: Path) -> None:
    model = random_model(MadeFrom(PairRanker), build_separate_ranker(family("llama"))[0].config)
    model.save_pretrained(tmp_path)
    weights = {name: weight.to(stored) for name, weight in load_file(tmp_path / "model.safetensors").items()}
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    for dtype in ("auto", torch.float32, torch.bfloat16):
        loaded = PairRanker.from_pretrained(tmp_path, dtype=dtype)
        assert len(loaded.config.encoder_sample) == 5, "of each norm one"
    with torch.no_grad():
        loaded.backbone.norm.weight.add_(0.1)
    loaded.save_pretrained(tmp_path)
    assert PairRanker.from_pretrained(tmp_path).config.encoder_sample != model.config.encoder_sample


def test_weights_that_are_given_are_those_of_the_sample(tmp_path: Path) -> None:
    """As a training saves its model whose weights are spread over several processes."""
    model, processor = build_separate_ranker(family("bert"))
    weights = {name: 1.5 * weight for name, weight in model.state_dict().items()}
    model.save_pretrained(tmp_path, state_dict=dict(weights))  # which transformers 5 empties
    loaded = PairRanker.from_pretrained(tmp_path)
    torch.testing.assert_close(dict(loaded.state_dict()), weights)
    back = PairRanker.from_pretrained(None, config=model.config, state_dict=model.state_dict())
    torch.testing.assert_close(encode_alone(back, processor), encode_alone(model, processor))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"candidate_encoding": "apart"}, "candidate_encoding='apart'; this release knows joint, separate: .*upgrade"),
        ({"preference_dim": 8}, "preference_dim=8 is for candidate_encoding='separate'"),
        ({"shared_prompt": True}, "shared_prompt=True is for candidate_encoding='separate'"),
        ({"candidate_encoding": "separate", "symmetric": True}, "symmetric=True is for candidate_encoding='joint'"),
        ({"candidate_encoding": "separate", "distinct_token_weight": 1.5}, "distinct_token_weight=1.5 is for"),
        ({"candidate_encoding": "separate", "preference_dim": 3}, "preference_dim=3; use an even number"),
    ],
)
def test_settings_that_can_not_work_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PairRankerConfig(backbone_config=backbone_config("bert", 100), **settings)


def test_an_encoder_whose_prompts_can_not_be_read_apart_says_so() -> None:
    with pytest.raises(ValueError, match=r"shared_prompt=True with 'modernbert'.*bert, roberta"):
        PairRankerConfig(
            backbone_config=backbone_config("modernbert", 100), candidate_encoding="separate", shared_prompt=True
        )


def test_inputs_of_the_other_kind_are_refused() -> None:
    model, processor = build_separate_ranker(family("bert"))
    batch = processor(["p", "p"], ["a", "b"])
    with pytest.raises(ValueError, match="say with pairs which rows"):
        model(**batch, labels=torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match="2 prompts and 1 candidates"):
        processor(["p", "p"], ["a"])
    config = PairRankerConfig(backbone_config=model.config.backbone_config, **processor.special_token_ids(), **LENGTHS)
    with pytest.raises(ValueError, match="reads pairs together"):
        PairRanker(config)(**processor(["p"], ["a"], ["b"]), pairs=torch.tensor([[0, 1]]))
    with pytest.raises(ValueError, match=r"rows with two candidates, and .* one candidate for each prompt"):
        model(**processor(["p"], ["a"], ["b"]))
    with pytest.raises(ValueError, match=r"rows without a second candidate, and .* candidates_a and candidates_b"):
        PairRanker(config)(**processor(["p"], ["a"]))


def test_an_attention_without_masks_is_refused() -> None:
    model, processor = build_separate_ranker(family("bert"), shared_prompt=True)
    model.backbone.config._attn_implementation = "flex_attention"
    with pytest.raises(ValueError, match=r"a ranker with shared prompts adds a bias.*use 'sdpa'"):
        model(**processor(["p"], ["a"]))
