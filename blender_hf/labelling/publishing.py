"""Upload of preference data to the Hub, with a card that describes how it was made."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import DatasetCardData, HfApi

from blender_hf.data.writing import table_format
from blender_hf.export.hub import upload

from .settings import LabelSettings

CARD = """\
---
{metadata}
---

# {name}

{units} by [blender-hf](https://pypi.org/project/blender-hf), format `{form}`.

| setting | value |
| --- | --- |
{settings}
"""


def publish(
    output: Path,
    repo_id: str,
    settings: LabelSettings,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
) -> str:
    """Upload the output of a job in one commit, as a part of the split `train`.

    Each shard has its own file, so all shards of a job can share a repository. An existing card is kept.
    """
    shard, suffix = settings.shard, table_format(output).suffix
    with TemporaryDirectory() as made:
        data = Path(made, "data")
        data.mkdir()
        name = f"train-{shard.number - 1:05d}-of-{shard.of:05d}{suffix}"
        # A link, not a copy: the file may be large.
        (data / name).symlink_to(output.absolute())
        if not _has_card(repo_id, token):
            Path(made, "README.md").write_text(_card(repo_id, settings), encoding="utf-8")
        return upload(
            Path(made), repo_id, token=token, private=private, repo_type="dataset", commit_message=f"Upload {name}"
        )


def _has_card(repo_id: str, token: str | bool | None) -> bool:
    try:
        return HfApi(token=token).file_exists(repo_id, "README.md", repo_type="dataset")
    # Whatever is wrong with the Hub, the upload says it better.
    except Exception:
        return False


def _card(repo_id: str, settings: LabelSettings) -> str:
    form = settings.output_format
    metadata = DatasetCardData(
        tags=["blender-hf", "preference", settings.form],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}],
    )
    rows = "\n".join(f"| {name} | {value} |" for name, value in _described(settings).items())
    return CARD.format(
        metadata=metadata.to_yaml(),
        name=repo_id.split("/")[-1],
        units=f"{form.unit.capitalize()}s, labelled",
        form=settings.form,
        settings=rows,
    )


def _described(settings: LabelSettings) -> Mapping[str, Any]:
    """Return the settings for the card; nothing of the machine."""
    filters, schedule = settings.filters, settings.ranking.schedule
    ranker = Path(settings.ranking.ranker)
    told = {
        # The path of a local folder stays private.
        "ranker": ranker.name if ranker.is_dir() else ranker,
        "revision": settings.ranking.loading.get("revision"),
        "schedule": schedule.name,
        "orders": schedule.orders,
        "aggregation": settings.ranking.aggregation,
        "pairs": settings.pairs if settings.form == "dpo" else None,
        "min_margin": filters.min_margin,
        "min_probability": filters.min_probability,
        "no_ties": filters.no_ties or None,
        "drop_flips": filters.drop_flips or None,
        "min_candidates": filters.min_candidates,
    }
    return {name: value for name, value in told.items() if value is not None}
