"""Rerankers of sentence-transformers that consist of several modules."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM, set_seed

from blender_hf import Blender, CheckpointError, InputError
from tests.conftest import SMALL
from tests.engine.test_pointwise import chat_tokenizer

sentence_transformers = pytest.importorskip("sentence_transformers")
pytestmark = pytest.mark.once

PROMPT, ANSWERS = "What is 2 + 2?", ["It is 4.", "Bananas.", "4"]


def saved(folder: Path, *, n_labels: int = 1) -> tuple[Any, Path]:
    """Return a small random Qwen3 that reranks by two of its logits, and the folder where it is saved."""
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.cross_encoder.modules import LogitScore

    set_seed(0)
    tokenizer = chat_tokenizer()
    sizes = {**SMALL, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": len(tokenizer)}
    language_model = Qwen3ForCausalLM(Qwen3Config(**sizes, pad_token_id=0))
    with torch.no_grad():
        language_model.lm_head.weight.normal_(std=5)
    language_model.save_pretrained(folder / "llm")
    tokenizer.save_pretrained(folder / "llm")
    read = Transformer(str(folder / "llm"), transformer_task="text-generation")
    if n_labels == 1:
        head: Any = LogitScore(true_token_id=5, false_token_id=6)
    else:
        head = Dense(len(tokenizer), n_labels, module_input_name="causal_logits", module_output_name="scores")
    model = sentence_transformers.CrossEncoder(modules=[read, head], device="cpu")
    model.save_pretrained(str(folder / "reranker"))
    return model, folder / "reranker"


def test_a_reranker_gives_its_log_odds(tmp_path: Path) -> None:
    model, folder = saved(tmp_path)
    blender = Blender.from_pretrained(folder, None, device="cpu")
    ranking = blender.rank(PROMPT, ANSWERS)
    # The library's own scores are their sigmoid.
    probabilities = model.predict([(PROMPT, answer) for answer in ANSWERS])
    assert torch.sigmoid(torch.tensor(ranking.scores)).tolist() == pytest.approx(probabilities.tolist(), abs=1e-4)
    assert len(set(ranking.scores)) == 3
    assert not ranking.truncated
    assert ranking.unread is None
    alone = blender.compare(PROMPT, ANSWERS[0], ANSWERS[1]).logit
    assert alone == pytest.approx(ranking.scores[0] - ranking.scores[1], abs=1e-4)


def test_what_is_too_long_for_a_reranker_is_reported(tmp_path: Path) -> None:
    _, folder = saved(tmp_path)
    found = Blender.from_pretrained(folder, None, device="cpu").rank(PROMPT, ["4", "word " * 200]).truncated
    assert found.prompt == 0
    assert found.candidates[0] == 0
    assert found.candidates[1] > 50


def test_what_does_not_apply_to_a_reranker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, folder = saved(tmp_path)
    for options, message in (
        ({"truncation": {"max_pair_length": 9}}, "a reranker states its own lengths"),
        ({"positive_label": 1}, "a reranker, which gives one score"),
        ({"max_batch_tokens": 9}, "scores by itself"),
    ):
        with pytest.raises(InputError, match=message):
            Blender.from_pretrained(folder, None, **options)
    _, several = saved(tmp_path / "several", n_labels=3)
    with pytest.raises(CheckpointError, match="this cross-encoder gives 3 scores a pair"):
        Blender.from_pretrained(several, None)
