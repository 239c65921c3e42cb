"""The arithmetic of the studies of the paper's open questions, on data that can be checked by hand."""

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import BertModel

from benchmarks.fuser_dev import chrf, examples_of
from benchmarks.studies import candidates, common, cost, domains, similarity, temperature
from benchmarks.studies.candidates import Ensemble
from benchmarks.studies.gold_scores import NEW_BASELINE, OLD_BASELINE, of_two_judges, strengths_of
from blender_hf import Blender
from blender_hf.data.labelled import JudgedPair, LabelledPrompt
from blender_hf.inputs import Item, make_item
from tests.conftest import backbone_config, build_ranker, encoder_tokenizer

pytestmark = pytest.mark.once

NAN = float("nan")


def prompt_of(
    labels: dict[tuple[int, int], float], texts: Sequence[str] = ("aaa", "bb", "c"), name: str = "p", **known: object
) -> LabelledPrompt:
    models, soft = known.pop("models", ("x", "y", "z")), known.pop("soft", {})
    candidates = [{"text": text, "model": model} for text, model in zip(texts, models, strict=True)]  # type: ignore[arg-type]
    pairs = tuple(JudgedPair(a, b, label, soft_label=soft.get((a, b))) for (a, b), label in labels.items())
    return LabelledPrompt(name, make_item("?", candidates), pairs, **known)  # type: ignore[arg-type]


class Longest:
    """The longer answer is better."""

    def __init__(self) -> None:
        self.asked = 0

    def scores(self, items: list) -> list[list[float]]:
        self.asked += len(items)
        return [[float(len(text)) for text in item.texts] for item in items]


def test_a_draw_keeps_decided_pairs_alone_and_no_source_drowns_another() -> None:
    pairs = {(0, 1): 1.0, (0, 2): 0.5, (1, 2): 0.0}
    prompts = [prompt_of(pairs, name=str(k), source="large") for k in range(5)]
    prompts.append(prompt_of({(0, 1): 1.0}, name="s", source="small"))
    prompts.append(prompt_of({(0, 1): 0.5}, name="tie", source="small"))
    drawn = common.sample_pairs(prompts, 4, seed=0)
    by_source = {source: [p for p in drawn if p.source == source] for source in ("large", "small")}
    assert sum(len(prompt.pairs) for prompt in by_source["large"]) == 4
    assert [prompt.id for prompt in by_source["small"]] == ["s"]
    assert all(pair.label != 0.5 for prompt in drawn for pair in prompt.pairs)
    assert drawn == common.sample_pairs(prompts, 4, seed=0)


def test_logits_are_asked_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "_fingerprint", lambda model: "longest")
    ranker = Longest()
    made = Blender(ranker)
    blender = Namespace(scorer=made.scorer, ranker=made.ranker)
    blender.scorer.model = None
    prompts = [prompt_of({(0, 1): 1.0, (2, 0): 1.0})]
    file = tmp_path / "new" / "logits.jsonl"
    first = common.pair_logits(prompts, common.Logits(blender, file))
    assert first == [[1.0, -2.0]]
    asked = ranker.asked
    assert common.pair_logits(prompts, common.Logits(blender, file)) == first
    assert ranker.asked == asked
    monkeypatch.setattr(common, "_fingerprint", lambda model: "another")
    common.pair_logits(prompts, common.Logits(blender, file))
    assert ranker.asked > asked


def test_whatever_changes_a_logit_changes_the_name_under_which_it_is_kept() -> None:
    model, _ = build_ranker()
    names = [common._fingerprint(model)]
    for setting, value in (("distinct_token_weight", 1.5), ("cross_candidate_bias", -1.0), ("max_pair_length", 50)):
        setattr(model.config, setting, value)
        names.append(common._fingerprint(model))
    assert len(set(names)) == 4
    assert common._fingerprint(build_ranker()[0]) == names[0]


def test_costs_are_ratios_of_medians_to_pointwise_with_as_many_candidates() -> None:
    seconds = {("full", 3): [9.0, 2.0, 4.0], ("pointwise", 3): [2.0, 2.0, 8.0], ("full", 5): [9.0]}
    assert cost.ratios({**seconds, ("pointwise", 5): [3.0]}) == {
        ("full", 3): 2.0,
        ("pointwise", 3): 1.0,
        ("full", 5): 3.0,
        ("pointwise", 5): 1.0,
    }


def test_memory_is_that_of_the_fork_that_does_the_work() -> None:
    idle = cost.peak_of(lambda: None)
    assert cost.peak_of(lambda: bytearray(b"\x01") * (200 * 2**20)) > idle + 150
    assert cost.peak_of(lambda: None) < idle + 50


def test_the_pointwise_model_has_the_encoder_of_the_ranker() -> None:
    blender = Blender.from_pretrained("pair-ranker-mini", None)
    ranker = blender.scorer.model
    model = cost.reward_model_of(ranker)
    ids = torch.tensor([[101, 2023, 102]])
    with torch.inference_mode():
        ours, theirs = ranker.backbone(input_ids=ids), model.base_model(input_ids=ids)
    assert model.config.num_labels == 1
    assert torch.equal(ours.last_hidden_state, theirs.last_hidden_state)
    scored = Blender(model, blender.scorer.processor.tokenizer).rank("2 + 2?", ["4", "5"])
    assert len(scored.scores) == 2


LOGITS = [[NAN, 1.0, -9.0], [-1.0, NAN, 2.0], [9.0, -2.0, NAN]]


def ensemble() -> object:

    return Ensemble(prompt_of({}), (0, 1, 2), (0.2, 0.9, 0.4), (0.6, 0.3, 0.7), LOGITS)


def test_members_of_a_smaller_ensemble_are_ranked_among_themselves() -> None:
    # The first beats the second; among all three it is the last, for it loses to the third by far.
    assert candidates.ranked([0, 1], LOGITS) == [0, 1]
    assert candidates.ranked([0, 1, 2], LOGITS) == [2, 1, 0]
    found = candidates.qualities([1, 0], ensemble())
    chosen = {"longest": 0.2, "best single model": 0.2, "chosen": 0.2}
    assert found == {"any one": pytest.approx(0.55), **chosen, "oracle": 0.9}


def test_sizes_are_means_over_the_first_of_every_order() -> None:
    orders = candidates.strongest_first(ensemble(), Namespace())
    assert orders == [[2, 0, 1]]
    row = candidates.row_of(ensemble(), [[2, 0, 1], [1, 0, 2]], (2, 3, 4))
    assert row["chosen, 2"] == (pytest.approx((0.4 + 0.2) / 2), 1.0)
    assert row["best single model, 2"] == (pytest.approx((0.4 + 0.2) / 2), 1.0)
    assert row["oracle, 3"] == (0.9, 1.0)
    assert row["gain, 3"] == (0.0, 1.0)
    assert not any(name.endswith("4") for name in row)
    options = Namespace(seed=0, orders=4)
    assert candidates.random_orders(ensemble(), options) == candidates.random_orders(ensemble(), options)
    assert all(sorted(order) == [0, 1, 2] for order in candidates.random_orders(ensemble(), options))


def test_the_fuser_reads_the_best_members_and_never_the_reference() -> None:
    class Last:
        def fuse(self, prompt: str, candidates: list[str]) -> Namespace:
            read.append(candidates)
            return Namespace(text=candidates[-1])

    read: list[list[str]] = []
    texts = ("red green blue", "one two three", "red green")
    whole = Ensemble(prompt_of({}, texts, reference=texts[0]), (0, 1, 2), (1.0, 0.0, 0.5), (0.0,) * 3, LOGITS)
    (row,) = candidates.fused_rows([whole], (2, 3), Last(), seed=0)  # type: ignore[arg-type]
    assert read == [["one two three", "red green"]]
    assert row["ROUGE-L chosen, 2"] == (0.0, 1.0)
    assert row["ROUGE-L fused, 2"] == row["ROUGE-L oracle, 2"] == (pytest.approx(80.0), 1.0)
    assert "ROUGE-L chosen, 3" not in row


def test_what_only_the_older_judge_saw_counts_as_its_verdicts_usually_do() -> None:
    models = (NEW_BASELINE, OLD_BASELINE, "x", "y", "z")
    texts = ("n", "o", "x", "y", "z")
    pairs = {(0, 2): 0.5, (0, 3): 0.5, (1, 2): 0.5, (1, 3): 0.5, (1, 4): 0.5}
    # The newer judge gives 0.4 to x and 0.1 to y; the older one says that x wins, y loses, and z ties.
    shares = {(0, 2): 0.6, (0, 3): 0.9, (1, 2): 0.0, (1, 3): 1.0, (1, 4): 0.5}
    prompt = prompt_of(pairs, texts, name="p", models=models, soft=shares)
    assert of_two_judges([prompt])[0] == pytest.approx((0.5, 0.25, 0.4, 0.1, 0.25))
    strengths = strengths_of([("x", "y"), ("x", "y"), ("x", "w")], [(1.0, 0.2), (0.5, 0.4), (0.0, None)])
    assert strengths[0] == pytest.approx((0.25, 0.4))
    assert strengths[2] == (0.75, pytest.approx(2.1 / 5))


def test_domains_count_pairs_and_stand_beside_the_length_rule() -> None:
    row = domains.row_of(prompt_of({(0, 1): 0.0, (0, 2): 1.0}), [-1.0, -1.0])
    assert row == {"ranker": (1.0, 2.0), "longer is better": (1.0, 2.0), "difference": (0.0, 2.0)}
    better = {"ranker": (1.0, 1.0), "longer is better": (0.0, 1.0), "difference": (1.0, 1.0)}
    groups = domains.grouped(["chat", "safety", "chat"], [row, better, better], seed=0)
    assert groups["chat"]["ranker"].value == pytest.approx(2 / 3)
    assert groups["chat"]["ranker"].n == 3
    assert "| safety | 1 | 1.000 | 0.000 | 1.000 |" in domains.table_of("domain", groups).markdown()
    assert (domains.domain_of("gsm8k"), domains.domain_of("elsewhere")) == ("mathematics", "elsewhere")
    assert len(domains.DOMAIN_OF) == 15


def test_similarity_and_gaps_are_divided_into_equal_bins() -> None:
    assert similarity.equal_bins([5.0, 1.0, 2.0, 9.0], 2) == [[1, 2], [0, 3]]
    assert similarity.equal_bins([1.0, 1.0, 1.0], 3) == [[0, 1, 2]]
    assert similarity.similarity("the same", "the same") == pytest.approx(100)
    assert similarity.similarity("abc", "xyz") == 0
    assert similarity.similarity("a cat", "a cat sat") == similarity.similarity("a cat sat", "a cat")
    scored = prompt_of({(0, 2): 1.0}, source="ultrafeedback", scores={"score": (9.0, 7.0, 4.5)})
    assert similarity.gap_of_scores(scored, scored.pairs[0]) == 4.5
    soft = {(0, 1): 0.75, (0, 2): 0.0, (3, 1): 0.0}
    known = {"models": (NEW_BASELINE, *"xyz"), "soft": soft, "source": "alpaca_eval"}
    judged = prompt_of({(0, 1): 1.0, (0, 2): 0.0, (3, 1): 0.0}, "abcd", **known)
    # They beat the baseline with 0.25 and 1, and the baseline itself with 0.5.
    assert [similarity.gap_of_preference(judged, pair) for pair in judged.pairs] == [0.25, 0.5, None]
    made = similarity.between_others(judged)
    assert [(pair.a, pair.b, pair.label) for pair in made.pairs] == [(0, 1, 1.0), (0, 2, 0.0), (1, 2, 0.0)]
    assert similarity.between_others(scored).pairs == ()
    # Without the pair itself the first wins once of once, and the second never.
    beaten = prompt_of({(0, 1): 0.0, (0, 2): 1.0, (2, 1): 1.0})
    assert similarity.gap_of_wins(beaten, beaten.pairs[0]) == 1.0
    assert similarity.gap_of_wins(beaten, beaten.pairs[1]) == 1.0
    assert similarity.equal_bins([1.0, 1.0, 1.0, 2.0], 3) == [[0, 1, 2], [3]]
    pairs = [pair for _ in range(12) for pair in similarity.pairs_of(scored, [2.0], scored)]
    assert similarity.by_gap(pairs, seed=0)["ultrafeedback"]["4.50 to 4.50"]["ranker"].value == 1.0
    assert [found["ranker"].n for found in similarity.within_sources(pairs, seed=0).values()] == [4, 4, 4]


class LongerLogits:
    """Stands for logits of a ranker that likes the longer answer."""

    def of(self, duels: Sequence[Item], title: str = "") -> list[float]:
        return [float(len(duel.texts[0]) - len(duel.texts[1])) for duel in duels]


def test_sampled_answers_are_judged_by_their_closeness_to_the_reference() -> None:
    reference = "one two three four"
    texts = ["one two three four", "one two", "one two", "five"]
    row = temperature.row_of(make_item("Count.", texts), reference, LongerLogits())
    close = [chrf(text, reference) for text in texts]
    assert row["different"] == (3.0, 4.0)
    assert row["any one"] == pytest.approx((sum(close) / 4, 1.0))
    assert row["chosen"] == row["best"] == (pytest.approx(100), 1.0)
    assert row["ranker"] == row["longer is better"] == (3.0, 3.0)
    lengths = [len(text) for text in dict.fromkeys(texts)]
    assert row["size of the logit"] == (2.0 * (max(lengths) - min(lengths)), 3.0)
    assert row["gap"][0] == pytest.approx(2 * (close[0] - close[3]))


def test_answers_that_are_as_close_are_no_pair() -> None:
    row = temperature.row_of(make_item("Count.", ["a b", "a b"]), "a b c", LongerLogits())
    assert row["different"] == (1.0, 2.0)
    assert "ranker" not in row


def test_the_fuser_samples_from_what_is_not_the_reference() -> None:
    prompts = [
        prompt_of({}, texts=("ref", "a", "b"), name="1", reference=" ref"),
        prompt_of({}, texts=("ref", "a", "a"), name="2", reference="ref"),
        prompt_of({}, name="3"),
    ]
    ((_, item, reference),) = examples_of(prompts, 5, seed=0)
    assert reference == "ref"
    assert temperature.fuser_input(item).texts == ("a", "b")


@pytest.mark.slow
def test_a_domain_is_left_out_of_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
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
    monkeypatch.setattr("sys.argv", ["domains.py", str(file), *given])
    domains.main()
    printed = capsys.readouterr().out
    assert "| mathematics | 4 |" in printed.partition("### Left out of training")[2]
    trained = {
        file.parent.name: json.loads(file.read_text(encoding="utf-8"))["training pairs"]
        for file in (tmp_path / "runs").glob("*/metrics.json")
    }
    assert trained == {"everything-3": 6, "without-mathematics-3": 3}
