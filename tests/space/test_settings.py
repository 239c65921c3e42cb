"""What comes from outside as settings: null is the default, and another type is said to be one."""

from typing import Any

import pytest

from blender_hf.errors import InputError, InputTypeError
from blender_hf.space.settings import FusionSettings, RankingSettings

pytestmark = pytest.mark.once


def test_null_is_the_default() -> None:
    assert RankingSettings.chosen(schedule=None, top_k=None, tie_threshold=0) == RankingSettings(tie_threshold=0)
    assert FusionSettings.chosen(max_new_tokens=None, num_beams=2) == FusionSettings(num_beams=2)


@pytest.mark.parametrize(
    ("settings", "name", "value"),
    [
        (RankingSettings, "schedule", ["full"]),
        (RankingSettings, "aggregation", 3),
        (RankingSettings, "top_k", "2"),
        (RankingSettings, "top_k", 2.5),
        (RankingSettings, "top_k", True),
        (RankingSettings, "tie_threshold", "x"),
        (FusionSettings, "max_new_tokens", 2.5),
        (FusionSettings, "num_beams", "1"),
    ],
)
def test_another_type_is_said_to_be_one(settings: Any, name: str, value: Any) -> None:
    with pytest.raises(InputTypeError, match=f"{name}=.*give a"):
        settings.chosen(**{name: value})


@pytest.mark.parametrize(
    "build",
    [
        lambda: RankingSettings("best"),
        lambda: RankingSettings(aggregation="sum"),
        lambda: RankingSettings("knockout", top_k=0),
        lambda: RankingSettings(tie_threshold=0.6),
        lambda: FusionSettings(max_new_tokens=100_000),
        lambda: FusionSettings(num_beams=0),
    ],
)
def test_settings_out_of_range_are_errors(build: object) -> None:
    with pytest.raises(InputError):
        build()
