"""A look at records before the work: how many there are, whether they can be used, whether they are conversations."""

from collections.abc import Callable
from dataclasses import replace
from itertools import islice

from blender_hf.data.sources import Source
from blender_hf.errors import InputError, InputTypeError

from .parts import entries_of
from .settings import LabelSettings


def check_records(source: Source, settings: LabelSettings, on_record: Callable[[], object]) -> int:
    """Check all records of a job.

    Args:
        source: Where they come from.
        settings: Of the job.
        on_record: Called after each record, for progress.

    Returns:
        How many there are, bad ones included.

    Raises:
        InputError: If some can't be used, and such are not passed over; the message names the first and their number.
    """
    count = n_bad = 0
    first: str | None = None
    for entry in entries_of(source, settings):
        count += 1
        try:
            entry.record()
        except (InputError, InputTypeError) as error:
            n_bad += 1
            first = first or str(error)
        on_record()
    if first is not None and not settings.skip_bad:
        raise InputError(f"{first} ({n_bad} bad in all; correct them, or give --skip-bad to log them and go on)")
    return count


def is_conversational(source: Source, settings: LabelSettings) -> bool:
    """Return whether rows hold chat messages: as the settings say, else as the first record that can be used does.

    All shards of a source find the same.
    """
    if settings.conversational is not None:
        return settings.conversational
    for entry in islice(source.entries(), settings.limit):
        try:
            return not isinstance(entry.record().item.prompt, str)
        except (InputError, InputTypeError):
            continue
    return False


def pinned(settings: LabelSettings) -> LabelSettings:
    """Name the commit of a ranker on the Hub, so that all workers, and a resumed job, load the same weights."""
    from huggingface_hub import HfApi

    loading = dict(settings.judge.loading)
    if loading.get("local_files_only"):
        return settings
    try:
        found = HfApi(token=loading.get("token")).model_info(settings.judge.ranker, revision=loading.get("revision"))
    # The Hub can't be reached: what is in the cache is used, under the name that was given.
    except Exception:
        return settings
    loading["revision"] = found.sha
    return replace(settings, judge=replace(settings.judge, loading=loading))
