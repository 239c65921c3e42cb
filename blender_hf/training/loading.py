"""Reads training data once for all models: labelled prompts of any format, with what was skipped and why."""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blender_hf.data.columns import columns_from_text
from blender_hf.data.labelled import LabelledPrompt
from blender_hf.data.labelled_formats import read_labelled
from blender_hf.errors import InputError

from .run_folder import RunFolder
from .settings import DataSettings

logger = logging.getLogger(__name__)
MAX_REASONS = 5
UNSTATED = "not stated"
# Keys of `metrics.json`.
LICENCES, SEEN, SKIPPED = "licences", "eval prompts trained on", "skipped records"


@dataclass(frozen=True)
class Subsample:
    """A fraction of the prompts, chosen by a seeded hash: the same in every run and on every machine."""

    fraction: float = 1.0
    seed: int = 0

    def __contains__(self, prompt: str) -> bool:
        """Return whether the text of a prompt is in the subsample."""
        if self.fraction >= 1:
            return True
        digest = hashlib.sha256(f"{self.seed}:{prompt}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < self.fraction * 2**64


def subsample_of_run(folder: str | Path) -> Subsample | None:
    """Return the subsample that a run was trained on; None for all prompts, or a checkpoint that is not a run."""
    run = RunFolder(Path(folder))
    if not run.is_begun:
        return None
    settings = run.description()["settings"]
    subsample = Subsample(settings.get("train_fraction", 1.0), settings.get("train_fraction_seed", 0))
    return subsample if subsample.fraction < 1 else None


@dataclass
class LoadedData:
    """Labelled prompts, and for each record that can't be used the reason why it was skipped."""

    prompts: list[LabelledPrompt] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def load_training_data(settings: DataSettings) -> LoadedData:
    """Read the prompts that the settings select for training."""
    loaded = _load(settings.data, settings.split, settings)
    subsample = Subsample(settings.train_fraction, settings.train_fraction_seed)
    selected = [
        prompt
        for prompt in loaded.prompts
        if prompt.source not in settings.leave_out
        and (not settings.languages or prompt.lang in settings.languages)
        and prompt.item.source in subsample
    ]
    if (measured := next((prompt for prompt in selected if prompt.benchmark is not None), None)) is not None:
        raise InputError(
            f"{measured.item.where} is of the benchmark {measured.benchmark}, whose scores would mean nothing for a "
            "model that was trained on it; leave it out of data, and name it in eval_data"
        )
    if not selected:
        raise InputError(
            "no record is left to train on; see data, leave_out, languages and train_fraction in the settings"
        )
    return LoadedData(selected, loaded.skipped)


def load_eval_data(settings: DataSettings) -> LoadedData:
    """Read the prompts that a model is evaluated on; none if the settings name none."""
    return _load(settings.eval_data, settings.eval_split, settings)


def data_facts(data: LoadedData, eval_data: LoadedData, used: Iterable[str], measured: Iterable[str]) -> dict[str, Any]:
    """Return what `metrics.json` says of the data: licences and counts, with the texts of the prompts really used."""
    texts = set(used)
    records = (prompt for prompt in data.prompts if prompt.item.source in texts)
    return {
        LICENCES: dict(Counter(prompt.license or UNSTATED for prompt in records).most_common()),
        SEEN: len(texts & set(measured)),
        SKIPPED: {"data": list(data.skipped), "eval_data": list(eval_data.skipped)},
    }


def _load(sources: Sequence[str], split: str | None, settings: DataSettings) -> LoadedData:
    loaded = LoadedData()
    skipped = None if settings.strict else loaded.skipped
    columns = columns_from_text(",".join(settings.columns)) if settings.columns else None
    for source in sources:
        for prompt in read_labelled(source, split=split, limit=settings.limit, skipped=skipped, columns=columns):
            if not _prefers_only_itself(prompt):
                loaded.prompts.append(prompt)
                continue
            reason = f"{prompt.item.where}: the better and the worse answer are the same text"
            if skipped is None:
                raise InputError(f"{reason}; strict=false skips such records")
            skipped.append(reason)
    if loaded.skipped:
        shown = "; ".join(loaded.skipped[:MAX_REASONS])
        logger.warning("skipped %d records that can't be used: %s", len(loaded.skipped), shown)
    return loaded


def _prefers_only_itself(prompt: LabelledPrompt) -> bool:
    """Return whether every decided pair of a record, of which there is one, has the same text twice."""
    texts, decided = prompt.item.texts, [pair for pair in prompt.pairs if pair.label != 0.5]
    return bool(decided) and all(texts[pair.a] == texts[pair.b] for pair in decided)
