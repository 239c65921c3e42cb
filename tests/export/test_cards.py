"""The card of a published checkpoint: what is stated stays, what is missing is added, figures become results."""

import pytest
import yaml

from blender_hf.export.cards import card_text

CARD = """\
---
license: apache-2.0
base_model: org/encoder
datasets:
- org/data
tags:
- preference
- mine
---

# ours

<!-- figures: written by benchmarks/ranker_dev.py -->
| source | pairs | both orders | one order | flips |
|---|--:|--:|--:|--:|
| hh_rlhf (helpful) | 400 | 0.651 | 0.640 | 0.120 |
| mean over sources |  | 0.700 | 0.690 | 0.110 |

A note.
<!-- end of figures -->
"""


def metadata(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def test_what_the_card_states_stays_and_what_it_lacks_is_added() -> None:
    card = card_text("ranker", "org/pair-ranker", CARD)
    data = metadata(card)
    assert (data["license"], data["base_model"], data["datasets"]) == ("apache-2.0", "org/encoder", ["org/data"])
    assert (data["library_name"], data["pipeline_tag"]) == ("transformers", "text-ranking")
    assert data["tags"] == ["preference", "mine", "llm-blending", "reward-model"]
    assert CARD.split("---\n")[2].strip() in card
    assert 'pipeline(model="org/pair-ranker", trust_remote_code=True)' in card


def test_figures_become_results() -> None:
    (index,) = metadata(card_text("ranker", "org/pair-ranker", CARD))["model-index"]
    assert index["name"] == "pair-ranker"
    found = {
        (result["dataset"]["name"], metric["name"].split(", ")[1], metric["value"])
        for result in index["results"]
        for metric in result["metrics"]
    }
    both, one = "both orders of presentation", "one order of presentation"
    assert found == {
        ("hh_rlhf (helpful)", both, 0.651),
        ("hh_rlhf (helpful)", one, 0.64),
        ("mean over sources", both, 0.7),
        ("mean over sources", one, 0.69),
    }
    assert {result["task"]["type"] for result in index["results"]} == {"text-ranking"}


@pytest.mark.parametrize("kind", ["ranker", "fuser"])
def test_a_model_without_a_card_gets_a_short_one_without_results(kind: str) -> None:
    card = card_text(kind, "org/small")
    assert card.count("# small\n") == 1
    assert "model-index" not in metadata(card)
    assert "license" not in metadata(card)  # nobody knows it, so nobody states it


def test_a_card_is_completed_once() -> None:
    once = card_text("ranker", "org/pair-ranker", CARD)
    assert card_text("ranker", "org/pair-ranker", once) == once
