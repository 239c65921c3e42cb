"""The arithmetic of the scripts for the paper's open questions, on data that can be checked by hand."""

import json
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import BertModel

from blender_hf import Blender
from blender_hf.data.labelled import JudgedPair, LabelledPrompt
from blender_hf.inputs import Item, make_item
from tests.conftest import backbone_config, build_ranker, encoder_tokenizer

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NAN = float("nan")


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    pytest.importorskip("matplotlib")


def prompt_of(
    labels: dict[tuple[int, int], float], texts: Sequence[str] = ("aaa", "bb", "c"), name: str = "p", **known: object
) -> LabelledPrompt:
    models = known.pop("models", ("x", "y", "z"))
    candidates = [{"text": text, "model": model} for text, model in zip(texts, models, strict=True)]  # type: ignore[arg-type]
    pairs = tuple(JudgedPair(a=a, b=b, label=label) for (a, b), label in labels.items())
    return LabelledPrompt(name, make_item("?", candidates), pairs, **known)  # type: ignore[arg-type]


class Longest:
    """The longer answer is better."""

    def __init__(self) -> None:
        self.asked = 0

    def scores(self, items: list) -> list[list[float]]:
        self.asked += len(items)
        return [[float(len(text)) for text in item.texts] for item in items]


def test_a_draw_keeps_decided_pairs_alone_and_no_source_drowns_another() -> None:
    from questions import sample_pairs

    pairs = {(0, 1): 1.0, (0, 2): 0.5, (1, 2): 0.0}
    prompts = [prompt_of(pairs, name=str(k), source="large") for k in range(5)]
    prompts.append(prompt_of({(0, 1): 1.0}, name="s", source="small"))
    prompts.append(prompt_of({(0, 1): 0.5}, name="tie", source="small"))
    drawn = sample_pairs(prompts, 4, seed=0)
    by_source = {source: [p for p in drawn if p.source == source] for source in ("large", "small")}
    assert sum(len(prompt.pairs) for prompt in by_source["large"]) == 4
    assert [prompt.id for prompt in by_source["small"]] == ["s"]
    assert all(pair.label != 0.5 for prompt in drawn for pair in prompt.pairs)
    assert drawn == sample_pairs(prompts, 4, seed=0)


def test_logits_are_asked_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import questions

    monkeypatch.setattr(questions, "_fingerprint", lambda model: "longest")
    ranker = Longest()
    blender = Namespace(scorer=Blender(ranker).scorer)
    blender.scorer.model = None
    prompts = [prompt_of({(0, 1): 1.0, (2, 0): 1.0})]
    file = tmp_path / "new" / "logits.jsonl"
    first = questions.pair_logits(prompts, questions.Logits(blender, file))
    assert first == [[1.0, -2.0]]
    asked = ranker.asked
    assert questions.pair_logits(prompts, questions.Logits(blender, file)) == first
    assert ranker.asked == asked
    monkeypatch.setattr(questions, "_fingerprint", lambda model: "another")
    questions.pair_logits(prompts, questions.Logits(blender, file))
    assert ranker.asked > asked


def test_whatever_changes_a_logit_changes_the_name_under_which_it_is_kept() -> None:
    from questions import _fingerprint

    model, _ = build_ranker()
    names = [_fingerprint(model)]
    for setting, value in (("distinct_token_weight", 1.5), ("cross_candidate_bias", -1.0), ("max_pair_length", 50)):
        setattr(model.config, setting, value)
        names.append(_fingerprint(model))
    assert len(set(names)) == 4
    assert _fingerprint(build_ranker()[0]) == names[0]


def test_a_page_gets_the_figures_and_the_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from questions import draw, publish

    page = tmp_path / "page.md"
    page.write_text("Before.\n<!-- figures: written by s.py -->\nold\n<!-- end of figures -->\nAfter.\n")
    publish("s.py", "| 1 |", draw(1)[0], page)
    assert capsys.readouterr().out == "| 1 |\n"
    assert "](page.png)\n\n| 1 |\n<!-- end" in page.read_text()
    assert "old" not in page.read_text()
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")


def test_costs_are_ratios_of_medians_to_pointwise_with_as_many_candidates() -> None:
    from question_cost import ratios

    seconds = {("full", 3): [9.0, 2.0, 4.0], ("pointwise", 3): [2.0, 2.0, 8.0], ("full", 5): [9.0]}
    assert ratios({**seconds, ("pointwise", 5): [3.0]}) == {
        ("full", 3): 2.0,
        ("pointwise", 3): 1.0,
        ("full", 5): 3.0,
        ("pointwise", 5): 1.0,
    }


def test_memory_is_that_of_the_fork_that_does_the_work() -> None:
    from question_cost import peak_of

    idle = peak_of(lambda: None)
    assert peak_of(lambda: bytearray(b"\x01") * (200 * 2**20)) > idle + 150
    assert peak_of(lambda: None) < idle + 50


def test_the_pointwise_model_has_the_encoder_of_the_ranker() -> None:
    import torch
    from question_cost import reward_model_of

    blender = Blender.from_pretrained("pair-ranker-mini", None)
    ranker = blender.scorer.model
    model = reward_model_of(ranker)
    ids = torch.tensor([[101, 2023, 102]])
    with torch.inference_mode():
        ours, theirs = ranker.backbone(input_ids=ids), model.base_model(input_ids=ids)
    assert model.config.num_labels == 1
    assert torch.equal(ours.last_hidden_state, theirs.last_hidden_state)
    scored = Blender(model, blender.scorer.processor.tokenizer).rank("2 + 2?", ["4", "5"])
    assert len(scored.scores) == 2


LOGITS = [[NAN, 1.0, -9.0], [-1.0, NAN, 2.0], [9.0, -2.0, NAN]]


def ensemble() -> object:
    from question_candidates import Ensemble

    return Ensemble(prompt_of({}), (0, 1, 2), (0.2, 0.9, 0.4), (0.6, 0.3, 0.7), LOGITS)


def test_members_of_a_smaller_ensemble_are_ranked_among_themselves() -> None:
    from question_candidates import qualities, ranked

    # The first beats the second; among all three it is the last, for it loses to the third by far.
    assert ranked([0, 1], LOGITS) == [0, 1]
    assert ranked([0, 1, 2], LOGITS) == [2, 1, 0]
    found = qualities([1, 0], ensemble())
    chosen = {"longest": 0.2, "best single model": 0.2, "chosen": 0.2}
    assert found == {"any one": pytest.approx(0.55), **chosen, "oracle": 0.9}


def test_sizes_are_means_over_the_first_of_every_order() -> None:
    from question_candidates import random_orders, row_of, strongest_first

    orders = strongest_first(ensemble(), Namespace())
    assert orders == [[2, 0, 1]]
    row = row_of(ensemble(), [[2, 0, 1], [1, 0, 2]], (2, 3, 4))
    assert row["chosen, 2"] == (pytest.approx((0.4 + 0.2) / 2), 1.0)
    assert row["best single model, 2"] == (pytest.approx((0.4 + 0.2) / 2), 1.0)
    assert row["oracle, 3"] == (0.9, 1.0)
    assert row["gain, 3"] == (0.0, 1.0)
    assert not any(name.endswith("4") for name in row)
    options = Namespace(seed=0, orders=4)
    assert random_orders(ensemble(), options) == random_orders(ensemble(), options)
    assert all(sorted(order) == [0, 1, 2] for order in random_orders(ensemble(), options))


def test_the_fuser_reads_the_best_members_and_never_the_reference() -> None:
    from question_candidates import Ensemble, fused_rows

    class Last:
        def fuse(self, prompt: str, candidates: list[str]) -> Namespace:
            read.append(candidates)
            return Namespace(text=candidates[-1])

    read: list[list[str]] = []
    texts = ("red green blue", "one two three", "red green")
    whole = Ensemble(prompt_of({}, texts, reference=texts[0]), (0, 1, 2), (1.0, 0.0, 0.5), (0.0,) * 3, LOGITS)
    (row,) = fused_rows([whole], (2, 3), Last(), seed=0)  # type: ignore[arg-type]
    assert read == [["one two three", "red green"]]
    assert row["ROUGE-L chosen, 2"] == (0.0, 1.0)
    assert row["ROUGE-L fused, 2"] == row["ROUGE-L oracle, 2"] == (pytest.approx(80.0), 1.0)
    assert "ROUGE-L chosen, 3" not in row


def test_what_only_the_older_judge_saw_counts_as_its_verdicts_usually_do() -> None:
    from worth import NEW_BASELINE, OLD_BASELINE, of_two_judges, strengths_of

    models = (NEW_BASELINE, OLD_BASELINE, "x", "y", "z")
    texts = ("n", "o", "x", "y", "z")
    pairs = {(0, 2): 0.5, (0, 3): 0.5, (1, 2): 0.5, (1, 3): 0.5, (1, 4): 0.5}
    prompt = prompt_of(pairs, texts, name="p", models=models)
    # The newer judge gives 0.4 to x and 0.1 to y; the older one says that x wins, y loses, and z ties.
    shares = {(0, 2): 0.6, (0, 3): 0.9, (1, 2): 0.0, (1, 3): 1.0, (1, 4): 0.5}
    worth = of_two_judges([prompt], {("p", a, b): share for (a, b), share in shares.items()})[0]
    assert worth == pytest.approx((0.5, 0.25, 0.4, 0.1, 0.25))
    strengths = strengths_of([("x", "y"), ("x", "y"), ("x", "w")], [(1.0, 0.2), (0.5, 0.4), (0.0, None)])
    assert strengths[0] == pytest.approx((0.25, 0.4))
    assert strengths[2] == (0.75, pytest.approx(2.1 / 5))


def test_domains_count_pairs_and_stand_beside_the_length_rule() -> None:
    from question_domains import DOMAIN_OF, domain_of, grouped, markdown_of, row_of

    row = row_of(prompt_of({(0, 1): 0.0, (0, 2): 1.0}), [-1.0, -1.0])
    assert row == {"ranker": (1.0, 2.0), "longer is better": (1.0, 2.0), "difference": (0.0, 2.0)}
    better = {"ranker": (1.0, 1.0), "longer is better": (0.0, 1.0), "difference": (1.0, 1.0)}
    groups = grouped(["chat", "safety", "chat"], [row, better, better], seed=0)
    assert groups["chat"]["ranker"].value == pytest.approx(2 / 3)
    assert groups["chat"]["ranker"].n == 3
    assert "| safety | 1 | 1.000 | 0.000 | 1.000 |" in markdown_of("domain", groups)
    assert (domain_of("gsm8k"), domain_of("elsewhere")) == ("mathematics", "elsewhere")
    assert len(DOMAIN_OF) == 15


def test_similarity_and_gaps_are_divided_into_equal_bins() -> None:
    from question_similarity import (
        NEW_BASELINE,
        between_others,
        by_gap,
        equal_bins,
        gap_of_preference,
        gap_of_scores,
        gap_of_wins,
        pairs_of,
        similarity,
        within_sources,
    )

    assert equal_bins([5.0, 1.0, 2.0, 9.0], 2) == [[1, 2], [0, 3]]
    assert equal_bins([1.0, 1.0, 1.0], 3) == [[0, 1, 2]]
    assert similarity("the same", "the same") == pytest.approx(100)
    assert similarity("abc", "xyz") == 0
    assert similarity("a cat", "a cat sat") == similarity("a cat sat", "a cat")
    scored = prompt_of({(0, 2): 1.0}, source="ultrafeedback", scores={"score": (9.0, 7.0, 4.5)})
    assert gap_of_scores(scored, scored.pairs[0], {}) == 4.5
    judged = prompt_of({(0, 1): 1.0, (0, 2): 0.0, (3, 1): 0.0}, "abcd", models=(NEW_BASELINE, *"xyz"))
    judged = replace(judged, source="alpaca_eval")
    soft = {("p", 0, 1): 0.75, ("p", 0, 2): 0.0, ("p", 3, 1): 0.0}
    # They beat the baseline with 0.25 and 1, and the baseline itself with 0.5.
    assert [gap_of_preference(judged, pair, soft) for pair in judged.pairs] == [0.25, 0.5, None]
    made = between_others(judged, soft)
    assert [(pair.a, pair.b, pair.label) for pair in made.pairs] == [(0, 1, 1.0), (0, 2, 0.0), (1, 2, 0.0)]
    assert between_others(scored, {}).pairs == ()
    # Without the pair itself the first wins once of once, and the second never.
    beaten = prompt_of({(0, 1): 0.0, (0, 2): 1.0, (2, 1): 1.0})
    assert gap_of_wins(beaten, beaten.pairs[0], {}) == 1.0
    assert gap_of_wins(beaten, beaten.pairs[1], {}) == 1.0
    assert equal_bins([1.0, 1.0, 1.0, 2.0], 3) == [[0, 1, 2], [3]]
    pairs = [pair for _ in range(12) for pair in pairs_of(scored, [2.0], scored, {})]
    assert by_gap(pairs, seed=0)["ultrafeedback"]["4.50 to 4.50"]["ranker"].value == 1.0
    assert [found["ranker"].n for found in within_sources(pairs, seed=0).values()] == [4, 4, 4]


@pytest.mark.slow
class LongerLogits:
    """Stands for logits of a ranker that likes the longer answer."""

    def of(self, duels: Sequence[Item], title: str = "") -> list[float]:
        return [float(len(duel.texts[0]) - len(duel.texts[1])) for duel in duels]


def test_sampled_answers_are_judged_by_their_closeness_to_the_reference() -> None:
    from fuser_dev import chrf
    from question_temperature import row_of

    reference = "one two three four"
    texts = ["one two three four", "one two", "one two", "five"]
    row = row_of(make_item("Count.", texts), reference, LongerLogits())
    close = [chrf(text, reference) for text in texts]
    assert row["different"] == (3.0, 4.0)
    assert row["any one"] == pytest.approx((sum(close) / 4, 1.0))
    assert row["chosen"] == row["best"] == (pytest.approx(100), 1.0)
    assert row["ranker"] == row["longer is better"] == (3.0, 3.0)
    lengths = [len(text) for text in dict.fromkeys(texts)]
    assert row["size of the logit"] == (2.0 * (max(lengths) - min(lengths)), 3.0)
    assert row["gap"][0] == pytest.approx(2 * (close[0] - close[3]))


def test_answers_that_are_as_close_are_no_pair() -> None:
    from question_temperature import row_of

    row = row_of(make_item("Count.", ["a b", "a b"]), "a b c", LongerLogits())
    assert row["different"] == (1.0, 2.0)
    assert "ranker" not in row


def test_the_fuser_samples_from_what_is_not_the_reference() -> None:
    from question_temperature import draw_prompts, read_by_the_fuser

    prompts = [
        prompt_of({}, texts=("ref", "a", "b"), name="1", reference=" ref"),
        prompt_of({}, texts=("ref", "a", "a"), name="2", reference="ref"),
        prompt_of({}, name="3"),
    ]
    drawn = draw_prompts(prompts, 5, seed=0)
    assert [prompt.id for prompt in drawn] == ["1"]
    assert read_by_the_fuser(drawn[0]).texts == ("a", "b")


def test_a_domain_is_left_out_of_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import question_domains

    encoder, file = tmp_path / "encoder", tmp_path / "judged.jsonl"
    tokenizer = encoder_tokenizer()
    tokenizer.save_pretrained(encoder)
    BertModel(backbone_config("bert", len(tokenizer))).save_pretrained(encoder)
    pair, answers = {"a": 0, "b": 1, "label": 1}, [{"text": "It is four."}, {"text": "No."}]
    records = [
        {"id": k, "source": source, "prompt": f"{k} + 1?", "candidates": answers, "pairs": [pair]}
        for k, source in enumerate(["gsm8k", "oasst1"] * 4)
    ]
    file.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    options = {"--max-pairs-per-source": 4, "--encoder": encoder, "--train": file, "--leave-out": "mathematics"}
    options |= {"--train-pairs-per-source": 3, "--runs": tmp_path / "runs"}
    given = [str(part) for option in options.items() for part in option]
    monkeypatch.setattr("sys.argv", ["question_domains.py", str(file), *given])
    question_domains.main()
    printed = capsys.readouterr().out
    assert "| mathematics | 4 |" in printed.partition("### Left out of training")[2]
    trained = {
        file.parent.name: json.loads(file.read_text(encoding="utf-8"))["training pairs"]
        for file in (tmp_path / "runs").glob("*/metrics.json")
    }
    assert trained == {"everything-3": 6, "without-mathematics-3": 3}
