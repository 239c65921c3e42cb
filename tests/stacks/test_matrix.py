"""The same checkpoint gives the same tokens and scores on transformers 4 and 5, whichever of them saved it.

`make stacks` makes the checkpoints with both environments, see `tests/stacks/make.py`; `make test` does it first.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import pipeline

from blender_hf import Blender, GenFuser, GenFuserProcessor, LocalLLM
from blender_hf.engine.scorer import Presentation
from blender_hf.errors import CheckpointError
from blender_hf.evaluation.learned_metrics import BartScore
from blender_hf.generation.local import LocalModel
from blender_hf.generation.sampling import Sampling
from blender_hf.inputs import make_item
from blender_hf.loading.baselines import DualEncoder, MlmScorer
from blender_hf.modeling.configurations import MAJOR_VERSION
from blender_hf.modeling.tokenizer_files import load_tokenizer
from tests.stacks.families import ENCODERS
from tests.stacks.make import CANDIDATES, N_NEW_TOKENS, PROMPT, RECORD, TEXTS, Case, cases

ROOT = Path(__file__).parent.parent.parent / "build" / "stacks"
MAKERS = ("4", "5")
# Families that a version of transformers computes in one way alone; the others have sdpa too.
WITHOUT_SDPA = {
    4: ("deberta-v2", "electra", "mpnet", "mt5", "rembert", "t5", "t5-untied", "xlnet"),
    5: ("deberta-v2", "gemma2", "mpnet", "rembert", "xlnet"),
}
ITEM = make_item(PROMPT, list(CANDIDATES))


@pytest.fixture(scope="module", autouse=True)
def _made() -> None:
    if missing := [maker for maker in MAKERS if not (ROOT / maker).is_dir()]:
        reason = f"build/stacks/{missing[0]} is missing: run `make stacks`"
        (pytest.fail if os.environ.get("BLENDER_HF_STACKS") == "required" else pytest.skip)(reason)


def cells() -> Iterator[Any]:
    for maker in MAKERS:
        for case in cases():
            # By itself transformers chooses sdpa where there is one.
            for way in ("eager", None):
                yield pytest.param(maker, case, way, id=f"{case} by {maker}, {way or 'default'}")


@pytest.mark.parametrize(("maker", "case", "attention"), list(cells()))
def test_tokens_and_scores_are_those_of_the_maker(maker: str, case: Case, attention: str | None) -> None:
    folder = ROOT / maker / str(case)
    expected = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    if attention == "eager":
        tokenizer = load_tokenizer(str(folder))
        assert tokenizer(list(TEXTS), add_special_tokens=False)["input_ids"] == expected["tokens"]
    if (refusal := refusal_of(maker, case)) is not None:
        with pytest.raises((CheckpointError, ValueError, OSError), match=refusal):
            FOUND[case.kind](str(folder), attention)
        return
    found = FOUND[case.kind](str(folder), attention)
    assert found.keys() <= expected.keys()
    for name, values in found.items():
        assert values == (pytest.approx(expected[name], rel=1e-5, abs=1e-5) if name == "scores" else expected[name])


def refusal_of(maker: str, case: Case) -> str | None:
    """Return what is said of a checkpoint that this version of transformers can't compute; None where it can."""
    if maker == "5" and MAJOR_VERSION < 5 and case.family in ("mt5", "t5-untied", "own"):
        return r"missing from the checkpoint.*lm_head\.weight.*load it with transformers 5"
    return None


@pytest.mark.parametrize("family", WITHOUT_SDPA[MAJOR_VERSION])
def test_attention_that_a_family_does_not_have_is_refused(family: str) -> None:
    kind = "reward" if family in ENCODERS else "language"
    [case] = [case for case in cases() if (case.kind, case.family, case.saved) == (kind, family, True)]
    with pytest.raises(CheckpointError, match=r"does not support an attention implementation .*eager"):
        FOUND[kind](str(ROOT / str(MAJOR_VERSION) / str(case)), "sdpa")


def _reward(folder: str, attention: str | None) -> dict[str, Any]:
    blender = Blender.from_pretrained(folder, None, device="cpu", attn_implementation=attention)
    assert attention is None or blender.ranker.model.config._attn_implementation == attention
    return {"scores": list(blender.rank(PROMPT, list(CANDIDATES)).scores)}


def _pair(folder: str, attention: str | None) -> dict[str, Any]:
    blender: Any = Blender.from_pretrained(folder, None, device="cpu", attn_implementation=attention)
    orders = ((0, 1), (1, 0), (0, 2), (2, 1))
    return {"scores": blender.scorer.score([Presentation(PROMPT, CANDIDATES[a], CANDIDATES[b]) for a, b in orders])}


def _separate(folder: str, attention: str | None) -> dict[str, Any]:
    blender: Any = Blender.from_pretrained(folder, None, device="cpu", attn_implementation=attention)
    processor = blender.scorer.processor
    [source] = processor.encode_prompts([PROMPT])
    rows = [processor.encode_candidate(source, ids) for ids in processor.encode_texts(CANDIDATES)]
    return {"scores": blender.scorer.encode(rows).flatten().tolist()}


def _language(folder: str, attention: str | None) -> dict[str, Any]:
    llm = LocalLLM(folder, device="cpu", dtype="float32", attn_implementation=attention)
    requests = [[{"role": "user", "content": text}] for text in CANDIDATES]
    done = LocalModel(llm).start(requests, Sampling(max_new_tokens=N_NEW_TOKENS)).result()
    return {"texts": [getattr(outcome, "text", "") for [outcome] in done]}  # stripped, as answers are


def _fuser(folder: str, attention: str | None) -> dict[str, Any]:
    model = GenFuser.from_pretrained(folder, attn_implementation=attention).eval()
    processor = GenFuserProcessor.from_pretrained(folder)
    inputs = processor([PROMPT], [list(CANDIDATES)])
    written = model.generate(**inputs, max_new_tokens=N_NEW_TOKENS, do_sample=False)
    return {"ids": inputs["input_ids"][0].tolist(), "texts": [processor.decode_text(written[0])]}


def _pointwise(kind: Any, folder: str, attention: str | None) -> dict[str, Any]:
    scorer = kind.from_pretrained(folder, device="cpu", attn_implementation=attention)
    return {"scores": list(scorer.scores([ITEM])[0])}


def _bartscore(folder: str, attention: str | None) -> dict[str, Any]:
    metric = BartScore(folder, device="cpu", attn_implementation=attention)
    return {"scores": metric(list(CANDIDATES), [PROMPT] * len(CANDIDATES))}


FOUND: dict[str, Any] = {
    "reward": _reward,
    "pair": _pair,
    "separate": _separate,
    "chat": _separate,
    "language": _language,
    "fuser": _fuser,
    "masked": lambda folder, attention: _pointwise(MlmScorer, folder, attention),
    "embedding": lambda folder, attention: _pointwise(DualEncoder, folder, attention),
    "bartscore": _bartscore,
}


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("name", ["reward_bert_backend_as it is", "reward_qwen2_qwen-digits_as it is"])
def test_the_pipeline_reads_them_too(name: str, maker: str) -> None:
    """transformers loads the tokenizer of a pipeline by itself, where it can."""
    folder = ROOT / maker / name
    options = {"fuser": None, "device": "cpu", "model_kwargs": {"attn_implementation": "eager"}}
    pipe: Any = pipeline("llm-blending", model=str(folder), **options)
    found = pipe({"prompt": PROMPT, "candidates": list(CANDIDATES)})["ranking"]["scores"]
    assert found == pytest.approx(json.loads((folder / RECORD).read_text())["scores"], rel=1e-5, abs=1e-5)
    assert pipe.model.config._attn_implementation == "eager"
