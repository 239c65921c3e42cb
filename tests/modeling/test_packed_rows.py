"""Packed rows: the encodings are those of whole rows, or the family is not read so."""

import pytest
import torch

from blender_hf import PairRanker, PairRankerProcessor
from blender_hf.modeling import CandidateEncoding
from blender_hf.modeling.packed_rows import packs_prompts
from blender_hf.training import prompt_rows
from blender_hf.training.prompt_rows import arrangement_of, behind_prompts, packed_rows, packs_of, whole_rows
from tests.conftest import build_separate_ranker, example_texts
from tests.generation.tiny_models import build_chat_ranker
from tests.stacks.families import DECODERS, ENCODERS

from .test_separate_encoding import family

# Local attention in some layers, to which a distance in a packed row is none in the text; and code that takes no mask.
NOT_PACKED = {"gemma2", "gemma3", "gpt_neo", "modernbert-decoder", "olmo3", "mistral", "stablelm"}
GROUPS = [("hello!", ["Yes, it is.", "no", example_texts()[1][:90]]), (example_texts()[0], ["x"]), ("", ["", "b c d"])]


def groups_of(processor: PairRankerProcessor) -> list[list[CandidateEncoding]]:
    prompts = processor.encode_prompts([prompt for prompt, _ in GROUPS])
    return [
        [processor.encode_candidate(prompt, ids) for ids in processor.encode_texts(texts)]
        for prompt, (_, texts) in zip(prompts, GROUPS, strict=True)
    ]


def encoded(model: PairRanker, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        return model(**batch).encodings


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", DECODERS)
def test_encodings_of_packed_rows_are_those_of_whole_rows(
    kind: str, attention: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = build_separate_ranker(family(kind))
    if not packs_prompts(model.backbone, model.config):
        assert kind in NOT_PACKED
        return
    model.set_attn_implementation(attention)
    groups = groups_of(processor)
    expected = encoded(model, whole_rows(groups, processor))
    torch.testing.assert_close(encoded(model, packed_rows(groups, processor)), expected, atol=1e-5, rtol=1e-5)
    # A prompt is repeated for candidates that do not fit.
    longest = max(len(row) for group in groups for row in group)
    monkeypatch.setattr(prompt_rows, "MAX_PACK_TOKENS", longest)
    split = packed_rows(groups, processor)
    assert len(split["input_ids"]) > len(groups)
    assert split["input_ids"].shape[1] == longest
    torch.testing.assert_close(encoded(model, split), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.once
@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("layout", ["markers", "chat"])
def test_all_parts_are_represented_as_in_whole_rows(layout: str, pooling: str) -> None:
    if layout == "chat":
        model, processor = build_chat_ranker(pooling=pooling)
    else:
        model, processor = build_separate_ranker(family("llama"), pooling=pooling)
    groups = groups_of(processor)
    expected = encoded(model, whole_rows(groups, processor))
    torch.testing.assert_close(encoded(model, packed_rows(groups, processor)), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.once
def test_rows_are_packed_where_the_model_reads_them_so() -> None:
    for kind in ENCODERS:
        assert arrangement_of(build_separate_ranker(family(kind))[0]) is whole_rows
    assert arrangement_of(build_separate_ranker(family("bert"), shared_prompt=True)[0]) is behind_prompts
    windowed, _ = build_separate_ranker(family("gemma3"))
    assert arrangement_of(windowed) is behind_prompts
    model, _ = build_separate_ranker(family("llama"))
    assert arrangement_of(model) is packed_rows
    model.backbone.config._attn_implementation = "flash_attention_2"
    assert arrangement_of(model) is behind_prompts


@pytest.mark.once
def test_packs_hold_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [CandidateEncoding((1, 2, 3), (5,) * n, 0, 0) for n in (4, 3, 1, 20, 2)]
    monkeypatch.setattr(prompt_rows, "MAX_PACK_TOKENS", 10)
    assert [[len(row.candidate_ids) for row in pack] for pack in packs_of(rows)] == [[4, 3], [1], [20], [2]]
    assert prompt_rows.n_tokens(rows, packed_rows) == 30 + 4 * 3
    assert prompt_rows.n_tokens(rows, whole_rows) == 30 + 5 * 3
    assert prompt_rows.n_tokens(rows, behind_prompts) == 30 + 3
