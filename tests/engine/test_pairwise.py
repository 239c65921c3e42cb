"""Objects of the user's own that compare pairs, with `logits` or `alogits`."""

import asyncio
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blender_hf import Blender, InputError, InputTypeError, ModelOutputError, Presentation
from blender_hf.data.labelled_formats import read_labelled
from blender_hf.data.sources import FileSource
from blender_hf.evaluation.evaluate import LENGTH, evaluate
from blender_hf.evaluation.predictors import predictor_of
from blender_hf.integrations.trl import pairwise_reward
from blender_hf.labelling.job import label
from blender_hf.labelling.settings import LabelSettings, RankingSettings
from tests.evaluation.conftest import JUDGED

pytestmark = pytest.mark.once
CANDIDATES = ["bb", "a", "dddd", "ccc", "a"]
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}]


class Longer:
    """Prefers the longer candidate, and by `bias` the one that is presented first."""

    logit_temperature = 2.0

    def __init__(self, bias: float = 0.25) -> None:
        self.bias = bias
        self.calls: list[list[Presentation]] = []

    def logits(self, presentations: Sequence[Presentation]) -> Sequence[float]:
        self.calls.append(list(presentations))
        return [len(p.first) - len(p.second) + self.bias for p in presentations]


class LongerElsewhere:
    """The same over a network."""

    logit_temperature = 2.0

    def __init__(self, delays: dict[str, float] | None = None, failing: str | None = None) -> None:
        self.delays = delays or {}
        self.failing = failing
        self.finished: list[str] = []
        self.cancelled: list[str] = []

    async def alogits(self, presentations: Sequence[Presentation]) -> list[float]:
        source = presentations[0].source
        try:
            await asyncio.sleep(self.delays.get(source, 0))
        except asyncio.CancelledError:
            self.cancelled.append(source)
            raise
        if source == self.failing:
            raise ConnectionError("the line is down")
        self.finished.append(source)
        return Longer().logits(presentations)  # type: ignore[return-value]


@pytest.fixture(params=[Longer, LongerElsewhere])
def blender(request: pytest.FixtureRequest) -> Blender:
    return Blender(request.param())


def test_every_method_takes_it(blender: Blender) -> None:
    ranking = blender.rank("q", CANDIDATES)
    assert ranking.order == (2, 3, 0, 1, 4)
    assert ranking.ranks == (3, 4, 1, 2, 4)
    assert ranking.logits[0][1] == 1.25
    assert ranking.logits[1][0] == -0.75
    assert ranking.comparisons[0][1] == 1.0
    assert (ranking.logits[1][4], ranking.comparisons[1][4]) == (0.0, 0.0), "equal texts tie without a question"
    assert (ranking.n_comparisons, ranking.n_encodings, ranking.unread) == (6, 12, None)
    assert (ranking.temperature, ranking.flip_rate, ranking.n_cycles) == (2.0, 0.0, 0)
    assert blender.best_of_n("q", CANDIDATES) == "dddd"
    assert blender.worst_of_n("q", CANDIDATES) == "a"
    assert blender.reward("q", CANDIDATES[:2], reference="ccc") == [-1.0, -2.0]
    assert blender.group_reward("q", ["a", "bb"]) == [-1.0, 1.0]
    comparison = blender.compare("q", "a", "bb")
    assert (comparison.logit_ab, comparison.logit_ba, comparison.preferred) == (-0.75, 1.25, "b")
    assert blender.compare("q", "same", "same").preferred == "tie"
    assert blender.rank([], []) == []
    json.dumps(ranking.to_dict(), allow_nan=False)


@pytest.mark.parametrize("schedule", ["full", "knockout", "bubble", "adaptive"])
def test_schedules_choose_the_pairs(blender: Blender, schedule: str) -> None:
    ranking = blender.rank("q", CANDIDATES, schedule=schedule, orders="one")
    assert ranking.best == "dddd"
    assert ranking.flip_rate is None
    assert ranking.n_encodings == ranking.n_comparisons <= 6
    assert ranking.schedule == schedule


def test_it_gets_texts_conversations_and_both_orders() -> None:
    ranker = Longer()
    Blender(ranker).rank(CHAT, ["a", "bb"], instructions="Add up.")
    [[one, other]] = ranker.calls
    assert {(one.first, one.second), (other.first, other.second)} == {("a", "bb"), ("bb", "a")}
    assert "Add up." in one.source
    assert [message["role"] for message in one.messages] == ["system", "user"]
    assert one == Presentation(one.source, one.first, one.second), "the texts identify a pair"


def test_the_comparisons_of_all_prompts_go_to_it_together() -> None:
    ranker = Longer()
    Blender(ranker).rank(["p", "q"], [["a", "bb", "ccc"]] * 2, schedule="knockout")
    assert [len(call) for call in ranker.calls] == [4, 4]


def test_a_position_bias_is_reported() -> None:
    assert Blender(Longer(bias=1.5)).rank("q", ["a", "bb"]).flip_rate == 1.0
    assert Blender(Longer(bias=1.5)).compare("q", "a", "bb").flipped


def test_no_item_waits_for_the_comparisons_of_another() -> None:
    """A knockout of eight has three rounds; those of the quick prompt end before the first of the slow one."""
    ranker = LongerElsewhere({"slow": 0.3})
    candidates = ["x" * n for n in range(1, 9)]
    started = time.monotonic()
    slow, quick = Blender(ranker).rank(["slow", "quick"], [candidates] * 2, schedule="knockout")
    assert slow.best == quick.best == candidates[-1]
    assert ranker.finished == ["quick"] * 3 + ["slow"] * 3
    assert time.monotonic() - started < 2.5


def test_an_error_is_raised_and_ends_the_others() -> None:
    ranker = LongerElsewhere({"slow": 30.0}, failing="bad")
    with pytest.raises(ConnectionError, match="the line is down"):
        Blender(ranker).rank(["slow", "bad"], [["a", "bb"]] * 2)
    assert ranker.cancelled == ["slow"]


async def _awaited(blender: Blender) -> list[Any]:
    return list(
        await asyncio.gather(
            blender.arank("q", CANDIDATES), blender.acompare("q", "a", "bb"), blender.abest_of_n("q", CANDIDATES)
        )
    )


def test_it_can_be_awaited(blender: Blender) -> None:
    found = asyncio.run(_awaited(blender))
    assert found == [blender.rank("q", CANDIDATES), blender.compare("q", "a", "bb"), "dddd"]


def test_threads_take_turns() -> None:
    class Careful(Longer):
        busy = False

        def logits(self, presentations: Sequence[Presentation]) -> Sequence[float]:
            assert not self.busy
            self.busy = True
            time.sleep(0.005)
            self.busy = False
            return super().logits(presentations)

    blender, errors = Blender(Careful()), []

    def work() -> None:
        try:
            blender.rank("q", CANDIDATES)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


@pytest.mark.parametrize(
    "given", [np.array([1.0, -1.0]), torch.tensor([1.0, -1.0]), (1, -1)], ids=["numpy", "torch", "tuple"]
)
def test_any_numbers_will_do(given: Any) -> None:
    class Fixed:
        def logits(self, presentations: Sequence[Presentation]) -> Any:
            return given

    assert Blender(Fixed()).compare("q", "a", "b").logit == 1.0


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ([1.0], InputError, "1 logits for 2 presentations"),
        (None, InputTypeError, "gave None for 2 presentations"),
        (["x", "y"], InputTypeError, "must give a number for each"),
        ([float("nan"), 0.0], ModelOutputError, "NaN"),
    ],
)
def test_what_is_no_logits_is_named(given: Any, error: type[Exception], message: str) -> None:
    class Bad:
        def logits(self, presentations: Sequence[Presentation]) -> Any:
            return given

    class BadElsewhere:
        async def alogits(self, presentations: Sequence[Presentation]) -> Any:
            return given

    for ranker in (Bad(), BadElsewhere()):
        with pytest.raises(error, match=message):
            Blender(ranker).rank("q", ["a", "b"])


def test_a_temperature_that_is_none_is_named() -> None:
    ranker = Longer()
    ranker.logit_temperature = 0.0
    with pytest.raises(InputError, match=r"logit_temperature is 0\.0"):
        Blender(ranker).rank("q", ["a", "b"])


def test_what_is_no_ranker_is_told_the_methods() -> None:
    with pytest.raises(InputTypeError, match=r"logits\(presentations\) or alogits\(presentations\), not object"):
        Blender(object())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="Longer scores by itself"):
        Blender(Longer(), max_batch_tokens=9)


def test_it_blends(checkpoints: Path) -> None:
    blender = Blender.from_pretrained(Longer(), checkpoints / "fuser", device="cpu")
    blend = blender.blend("q", ["a", "bb", "ccc"])
    assert blend.ranking.best == "ccc"
    assert blend.comparison == blender.compare("q", blend.fused or "", "ccc")


def test_it_is_evaluated_as_a_pair_ranker_is() -> None:
    found = evaluate(list(read_labelled(JUDGED)), {"mine": predictor_of(Blender(Longer(bias=0.5)))}).rankers
    assert found["mine"].figures["accuracy"] == found[LENGTH].figures["accuracy"]
    assert found["mine"].figures["flips"].value == 0.0
    assert found["mine"].calibration is not None


def test_it_labels(tmp_path: Path) -> None:
    data, output = tmp_path / "data.jsonl", tmp_path / "out.jsonl"
    data.write_text(json.dumps({"prompt": "q", "candidates": ["a", "ccc", "bb"]}) + "\n")
    settings = LabelSettings(RankingSettings({"ranker": LongerElsewhere()}))
    assert label(FileSource(data), output, settings)["rows"] == 1
    row = json.loads(output.read_text())
    assert (row["chosen"], row["rejected"]) == ("ccc", "a")
    settings = LabelSettings(RankingSettings({"ranker": Longer()}))
    with pytest.raises(InputError, match="Longer"):
        label(FileSource(data), output, settings)


def test_it_is_a_reward_in_trl() -> None:
    rewards = pairwise_reward(Longer())(["q", "q"], ["a", "ccc"])
    assert rewards == [-2.0, 2.0]
