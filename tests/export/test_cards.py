"""The card of a published checkpoint: what is stated stays, what is missing is added, figures become results."""

from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from blender_hf.export.cards import card_text, find_card
from blender_hf.loading.checkpoints import locate

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


MODEL_CARDS = Path(__file__).parents[2] / "model_cards"


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


@pytest.mark.parametrize("kind", ["ranker", "fuser", "causal fuser"])
def test_a_model_without_a_card_gets_a_short_one_without_results(kind: str) -> None:
    card = card_text(kind, "org/small")
    assert card.count("# small\n") == 1
    assert "model-index" not in metadata(card)
    assert "license" not in metadata(card)  # nobody knows it, so nobody states it


def test_a_card_is_completed_once() -> None:
    once = card_text("ranker", "org/pair-ranker", CARD)
    assert card_text("ranker", "org/pair-ranker", once) == once


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("ranker", "pair-ranker-mini", [f"accuracy, {n} of presentation" for n in ("both orders", "one order")]),
        (
            "fuser",
            "gen-fuser-mini",
            [f"{m} of {t}" for m in ("ROUGE-L", "chrF") for t in ("the fused text", "what is returned")],
        ),
    ],
)
def test_the_cards_of_the_bundled_models_have_results(kind: str, name: str, expected: list[str]) -> None:
    """Their blocks of figures have several tables, of which one is by source."""
    text = (MODEL_CARDS / f"{name}.md").read_text(encoding="utf-8")
    assert find_card(locate(name), None) == text
    results = ModelCard(card_text(kind, f"org/{name}", text), ignore_metadata_errors=False).data.eval_results
    assert {result.metric_name for result in results} == set(expected)
    sources = {result.dataset_name for result in results}
    assert {"vicuna80", "mean over sources"} <= sources
    assert len(results) == len(sources) * len(expected)
    for result in results:
        (row, *_) = [line for line in text.splitlines() if line.startswith(f"| {result.dataset_name} |")]
        assert result.metric_value in [float(cell) for cell in row.split("|")[3:-1]]


def test_only_numbers_are_results() -> None:
    cells = ["", "**0.7**", "70 %", "n/a", "nan", "0.5", "1"]
    rows = "\n".join(f"| s{i} | {cell} |" for i, cell in enumerate(cells))
    other, ruler = "| other | both orders |\n|---|---|\n| x | 0.9 |", "|---|---|"
    tables = f"{other}\n\n| source | both orders |\n{ruler}\n{rows}\n| short |\n"
    text = f"<!-- figures: written by x -->\n{tables}<!-- end of figures -->\n"
    results = ModelCard(card_text("ranker", "org/x", text)).data.eval_results
    assert [(result.dataset_name, result.metric_value) for result in results] == [("s5", 0.5), ("s6", 1.0)]


@pytest.mark.parametrize("other", ["org/ranker-large", "my-org/ranker", "org/ranker.v2", "org/ranker/x"])
def test_another_repository_is_not_this_one(other: str) -> None:
    assert "## From the Hub" in card_text("ranker", "org/ranker", f"# Mine\n\nSee {other}.\n")


def test_a_sentence_may_end_with_the_repository() -> None:
    assert "## From the Hub" not in card_text("ranker", "org/ranker", "# Mine\n\nLoad org/ranker.\n")


def test_metadata_behind_a_mark_and_a_single_tag() -> None:
    card = card_text("ranker", "org/x", "\ufeff---\nlicense: mit\ntags: preference\n---\n# Mine\n")
    assert card.count("---\n") == 2
    assert metadata(card)["license"] == "mit"
    assert metadata(card)["tags"] == ["preference", "llm-blending", "reward-model"]
