"""The hand-written pairs of benchmarks/obvious_pairs.jsonl, and the script that measures rankers on them."""

import json
from collections import Counter, defaultdict
from statistics import fmean

import pytest

from benchmarks import obvious
from benchmarks.obvious import ALL, PAIRS, Verdict, by_category, habits_of, load, misses, table_of, verdicts_of
from blender_hf import Comparison
from blender_hf.data.labelled import LabelledPrompt
from blender_hf.data.labelled_formats import read_labelled
from blender_hf.engine.results import Truncation
from tests.conftest import EXAMPLES

pytestmark = pytest.mark.once

PROMPTS = list(read_labelled(PAIRS))
CATEGORIES: dict[str, list[LabelledPrompt]] = defaultdict(list)
for _prompt in PROMPTS:
    CATEGORIES[_prompt.source].append(_prompt)


def better_and_worse(prompt: LabelledPrompt) -> tuple[str, str]:
    [pair] = prompt.pairs
    texts = prompt.item.texts
    return (texts[pair.a], texts[pair.b]) if pair.label == 1 else (texts[pair.b], texts[pair.a])


def share_of_longer(prompts: list[LabelledPrompt]) -> float:
    leads = [len(better) - len(worse) for better, worse in map(better_and_worse, prompts)]
    return fmean(0.5 if lead == 0 else float(lead > 0) for lead in leads)


def judged(prompt: LabelledPrompt, logit: float) -> Verdict:
    return Verdict(prompt, Comparison(logit, -logit, Truncation(0, (0, 0))))


def test_each_record_is_one_decided_pair_of_two_answers() -> None:
    assert len(PROMPTS) >= 300
    for prompt in PROMPTS:
        [pair] = prompt.pairs
        better, worse = better_and_worse(prompt)
        assert (pair.a, pair.b) == (0, 1), prompt.id
        assert pair.label in (0.0, 1.0), prompt.id
        assert better.strip() not in ("", worse.strip()), prompt.id
        assert prompt.item.source.strip(), prompt.id


def test_each_category_has_enough_pairs_in_both_places_and_of_both_lengths() -> None:
    assert len(CATEGORIES) == 22
    for category, prompts in CATEGORIES.items():
        assert 15 <= len(prompts) <= 30, category
        assert 0.45 <= share_of_longer(prompts) <= 0.55, category
        longer = [prompt for prompt in prompts if share_of_longer([prompt]) == 1]
        # The place tells nothing of the quality among those with a longer better answer, either.
        for group in (prompts, longer):
            n_first = sum(prompt.pairs[0].label == 1 for prompt in group)
            assert abs(2 * n_first - len(group)) <= 1, category
    assert fmean(prompt.pairs[0].label for prompt in PROMPTS) == 0.5


def test_the_languages() -> None:
    counts = Counter(prompt.lang for prompt in PROMPTS)
    assert set(counts) == {"en", "de", "fr", "es", "zh", "ja"}
    assert 0.08 <= 1 - counts["en"] / len(PROMPTS) <= 0.16
    assert min(counts.values()) >= 5


def test_no_pair_stands_twice_nor_in_the_example_file() -> None:
    ids = [prompt.id for prompt in PROMPTS]
    asked = [prompt.item.source.casefold() for prompt in PROMPTS]
    assert len(set(ids)) == len(ids)
    assert len(set(asked)) == len(asked)
    better = [better_and_worse(prompt)[0] for prompt in PROMPTS]
    long = [text for text in better if len(text) > 30]
    assert len(set(long)) == len(long)
    example = EXAMPLES.read_text(encoding="utf-8").casefold()
    assert not [text for text in asked if json.dumps(text, ensure_ascii=False)[1:-1] in example]


def test_the_length_rule_is_no_better_than_chance() -> None:
    found = by_category(verdicts_of(load("length", PROMPTS), PROMPTS), seed=0)
    assert found[ALL].value == share_of_longer(PROMPTS)
    assert 0.48 <= found[ALL].value <= 0.52
    assert found[ALL].low < 0.5 < found[ALL].high


def test_figures_of_a_ranker_that_is_always_right_and_of_one_that_is_always_wrong() -> None:
    right = [judged(prompt, 1.0 if prompt.pairs[0].label == 1 else -1.0) for prompt in PROMPTS]
    wrong = [judged(prompt, -verdict.comparison.logit) for prompt, verdict in zip(PROMPTS, right, strict=True)]
    for verdicts, value in ((right, 1.0), (wrong, 0.0)):
        found = by_category(verdicts, seed=0)
        assert list(found) == [*CATEGORIES, ALL]
        assert {figure.value for figure in found.values()} == {value}
        habits = habits_of(verdicts)
        n_empty = sum(verdict.against_empty for verdict in verdicts)
        assert n_empty >= len(CATEGORIES["empty answer"])
        assert habits["empty answers that win or tie"] == f"{0 if value else n_empty} of {n_empty}"
        assert habits["first candidate preferred"] == 0.5
        assert habits["right where it is shorter"] == habits["right where the better answer is longer"] == value
    text = table_of({"right": by_category(right, 0), "wrong": by_category(wrong, 0)}).markdown()
    assert f"| {ALL} | {len(PROMPTS)} | 1.000 (1.000 to 1.000) | 0.000 (0.000 to 0.000) |" in text


def test_misses_show_the_pair_and_a_tie_is_half_right() -> None:
    first = PROMPTS[0]
    tie = judged(first, 0.0)
    assert tie.credit == 0.5
    shown = misses({"coin": [tie], "good": [judged(first, 9.0 if first.pairs[0].label == 1 else -9.0)]})
    assert shown.startswith(
        f"coin misses 1:\n{first.id}: {first.item.source!r}\n  better: {better_and_worse(first)[0]!r}"
    )
    assert shown.endswith("good misses 0:")


def test_the_script_measures_rankers_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["obvious.py", "--rankers", "length", "random", "--misses"])
    obvious.main()
    printed = capsys.readouterr().out
    assert printed.startswith("length misses ")
    result = json.loads(printed.splitlines()[-1])
    assert result["sections"][0]["columns"].keys() == {"the worse answer", "pairs", "length", "random"}
    assert result["sections"][0]["rows"][-1][1] == len(PROMPTS)
