"""Records of the bundled judgments, written in the formats of others."""

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

from blender_hf.evaluation.metrics import SurfaceMetric
from tests.evaluation.conftest import judged_records

VERDICTS = {1: "A is better", 0: "Same good", -1: "B is better"}
# Tell "same bad" from "same good", which the judgments do not say, by the place of the pair.
BAD = "Same bad"


def mixinstruct_records(
    metrics: Sequence[str] = ("rougeL", "chrf"), *, on_the_hub: bool = False
) -> list[dict[str, Any]]:
    """Return the judged records as MixInstruct has them: scores of metrics, and a verdict on every pair.

    Args:
        metrics: Names of surface metrics that stand in the records as scores.
        on_the_hub: Whether nested values are texts of JSON, as the data set on the Hub has `cmp_results`.
    """
    return [_mixinstruct(record, metrics, on_the_hub) for record in judged_records()]


@cache
def _scores(metric: str, candidate: str, reference: str) -> float:
    return SurfaceMetric(metric)([candidate], [reference])[0]


def _mixinstruct(record: dict[str, Any], metrics: Sequence[str], on_the_hub: bool) -> dict[str, Any]:
    models, texts = zip(*((c["model"], c["text"]) for c in record["candidates"]), strict=True)
    scores = {name: [_scores(name, text, record["reference"]) for text in texts] for name in metrics}
    candidates = [
        {
            "decoding_method": "top_p_sampling",
            "model": model,
            "text": text,
            "scores": {name: found[n] for name, found in scores.items()},
        }
        for n, (model, text) in enumerate(zip(models, texts, strict=True))
    ]
    verdicts: dict[str, str] = {}
    for pair in record["pairs"]:
        verdict = VERDICTS[pair["label"]] if pair["label"] or (pair["a"] + pair["b"]) % 2 else BAD
        if f"{models[pair['b']]},{models[pair['a']]}" not in verdicts:
            verdicts.setdefault(f"{models[pair['a']]},{models[pair['b']]}", verdict)
    for a, model in enumerate(models):
        for b in range(a + 1, len(models)):
            known = {f"{model},{models[b]}", f"{models[b]},{model}"}
            if not known & verdicts.keys():
                # Two pairs of a prompt were judged by nobody; the longer text stands in for a judge.
                verdicts[f"{model},{models[b]}"] = VERDICTS[1 if len(texts[a]) > len(texts[b]) else -1]
    return {
        "id": f"mix/{record['id']}",
        "instruction": "Answer the question.",
        "input": record["prompt"],
        "output": record["reference"],
        "candidates": candidates,
        "cmp_results": json.dumps(verdicts) if on_the_hub else verdicts,
    }


def chosen_and_rejected() -> list[dict[str, Any]]:
    """Return a decided pair of each record as a preference of texts."""
    found = []
    for record in judged_records():
        pair = next(pair for pair in record["pairs"] if pair["label"])
        better, worse = ("a", "b") if pair["label"] > 0 else ("b", "a")
        texts = {
            side: record["candidates"][pair[key]]["text"] for side, key in (("chosen", better), ("rejected", worse))
        }
        found.append({"prompt": record["prompt"], **texts})
    return found
