"""Check that the examples of the page show what the models can do, with those that the page offers first.

    python -m benchmarks.showcase

The examples are in blender_hf/examples/showcase.jsonl, written for the page and the documents and never to be trained
on; `ratings` say what a person thinks of the candidates. An example passes if the ranker prefers the candidate of the
highest rating, clearly, to each other one. In at least one the ranker must prefer the fused text, clearly, to that
candidate. The tab Compare opens with the first two candidates of the first example, which must be no tie either.
It prints a line of JSON an example, and ends with 1 if one fails. Run it again when a default model has changed.
"""

import argparse
import json
from collections.abc import Mapping
from typing import Any

from blender_hf.data.examples import SHOWCASE
from blender_hf.data.labelled import LabelledPrompt
from blender_hf.data.labelled_formats import read_labelled
from blender_hf.loading.checkpoints import DEFAULT_FUSER, DEFAULT_RANKER
from blender_hf.space.models import Models
from blender_hf.space.service import Service
from blender_hf.space.settings import FusionSettings, RankingSettings

# Least probability that the best candidate, or the fused text, is better than another.
CLEAR = 0.6


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ranker", default=DEFAULT_RANKER, help="(default: that of the page)")
    parser.add_argument("--fuser", default=DEFAULT_FUSER, help="(default: that of the page)")
    options = parser.parse_args(arguments)
    service = Service(Models([options.ranker], [options.fuser]))
    found = []
    for prompt in read_labelled(SHOWCASE):
        found.append(shown(service, prompt))
        print(json.dumps(found[-1]), flush=True)
    faults = faults_of(found)
    print(json.dumps({"ranker": options.ranker, "fuser": options.fuser, "examples": len(found), "faults": faults}))
    return 1 if faults else 0


def shown(service: Service, prompt: LabelledPrompt) -> dict[str, Any]:
    """Return what the page shows of an example."""
    settings = RankingSettings()
    ranking = service.rank(prompt.item, settings)
    best = best_of(prompt)
    others = [index for index in range(len(prompt.item.candidates)) if index != best]
    fused = service.fuse(prompt.item, ranking, settings, FusionSettings())
    new = fused is not None and fused.text not in prompt.item.texts
    return {
        "id": prompt.id,
        "order": list(ranking.order),
        "best": best,
        "least_probability": round(min(ranking.probability(best, other) for other in others), 3),
        "first_two": round(abs(ranking.probability(0, 1) - 0.5) + 0.5, 3),
        "fused_probability": round(fused.comparison.probability, 3) if fused is not None and new else None,
    }


def best_of(prompt: LabelledPrompt) -> int:
    """Return the index of the candidate of the highest rating."""
    [ratings] = prompt.scores.values()
    return max(range(len(ratings)), key=lambda index: ratings[index] or 0.0)


def faults_of(examples: list[Mapping[str, Any]]) -> list[str]:
    """Return what undersells the models, in words."""
    found = [
        f"{example['id']}: the best candidate beats another with {example['least_probability']} alone"
        for example in examples
        if example["least_probability"] < CLEAR
    ]
    if not any((example["fused_probability"] or 0.0) >= CLEAR for example in examples):
        found.append(f"no fused text beats the best candidate with {CLEAR}")
    if examples[0]["first_two"] < CLEAR:
        found.append(f"{examples[0]['id']}: Compare opens with {examples[0]['first_two']} for the better answer")
    return found


if __name__ == "__main__":
    raise SystemExit(main())
