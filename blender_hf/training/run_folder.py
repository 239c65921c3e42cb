"""The folder of a training run: its settings, the data and code behind it, its metrics, and a finished card."""

import json
import math
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import blender_hf
from blender_hf.data.jobs import replacing
from blender_hf.data.sources import digest
from blender_hf.errors import InputError

from .settings import renamed

SETTINGS_FILE, RUN_FILE, METRICS_FILE, CARD_FILE = "settings.yaml", "run.json", "metrics.json", "README.md"
CHECKPOINTS = "trainer"
PACKAGES = ("blender-hf", "torch", "transformers", "accelerate", "datasets", "peft", "trl")
# What the trainer writes last into a checkpoint.
TRAINER_STATE = "trainer_state.json"


@dataclass(frozen=True)
class RunFolder:
    """The folder of a training run, begun with some given settings; the trained checkpoint lies at its top."""

    path: Path
    given: Mapping[str, Any] = field(default_factory=dict)

    @property
    def checkpoints(self) -> Path:
        """Where the trainer's checkpoints are."""
        return self.path / CHECKPOINTS

    @property
    def is_begun(self) -> bool:
        """Whether the folder holds a run."""
        return (self.path / RUN_FILE).is_file()

    @property
    def is_finished(self) -> bool:
        """Whether the run has come to its end: its card is written last."""
        return self.is_begun and (self.path / CARD_FILE).is_file()

    def begin(self, settings: Any, *, resume: bool) -> None:
        """Record what the run is made of, before the work begins."""
        if not resume:
            self.check_free()
        described = self._described(settings)
        self._check_same(described)
        self.path.mkdir(parents=True, exist_ok=True)
        _write_yaml(self.path / SETTINGS_FILE, described["settings"])
        _write_json(self.path / RUN_FILE, described)

    def check_free(self) -> None:
        """Raise `InputError` if the folder holds a run, which would be overwritten."""
        if self.is_begun:
            raise InputError(f"{self.path} holds a run already; give --resume to continue it, or another output_dir")

    def check_same(self, settings: Any) -> None:
        """Raise `InputError` if the folder holds a run with other settings or data, which can't be continued."""
        self._check_same(self._described(settings))

    def last_checkpoint(self, phase: str = "") -> str | None:
        """Return the newest whole checkpoint of a phase, or None; one left half written by a kill is skipped."""
        whole = [folder for folder in (self.checkpoints / phase).glob("checkpoint-*") if _is_whole(folder)]
        return str(max(whole, key=_step_of)) if whole else None

    def abandon(self) -> None:
        """Undo `begin` if nothing came of the run, so that the folder can be used again."""
        made = [self.path / METRICS_FILE, *self.checkpoints.rglob("*")]
        if any(path.is_file() for path in made):
            return
        for name in (RUN_FILE, SETTINGS_FILE):
            (self.path / name).unlink(missing_ok=True)

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Write what was measured; NaN and infinity, which JSON lacks, become null."""
        _write_json(self.path / METRICS_FILE, metrics)

    def metrics_text(self) -> str:
        """Return what `write_metrics` wrote, JSON."""
        return (self.path / METRICS_FILE).read_text(encoding="utf-8")

    def write_card(self, text: str) -> None:
        """Write the card of the checkpoint."""
        with replacing(self.path / CARD_FILE) as file:
            file.write(text.encode())

    def description(self) -> dict[str, Any]:
        """Return what `begin` recorded, the settings under their present names."""
        found = json.loads((self.path / RUN_FILE).read_text(encoding="utf-8"))
        return {**found, "settings": renamed(found["settings"])}

    def _described(self, settings: Any) -> dict[str, Any]:
        prints = {source: fingerprint(source) for source in [*settings.data, *settings.eval_data]}
        return {
            "settings": _resolved(settings, self.given),
            "data": prints,
            "git_revision": git_revision(),
            "versions": _versions(),
        }

    def _check_same(self, now: Mapping[str, Any]) -> None:
        before = self.description() if self.is_begun else now
        changed = [
            key
            for name in ("settings", "data")
            for key in {*before[name], *now[name]}
            if before[name].get(key) != now[name].get(key)
        ]
        if changed:
            raise InputError(
                f"{self.path} holds a run with another {', '.join(sorted(changed))}; use the settings of its "
                f"{SETTINGS_FILE}, or another output_dir"
            )


def fingerprint(source: str) -> str:
    """Return what identifies data: the SHA-256 of a file or of the files of a folder, or the id of a dataset."""
    path = Path(source)
    return f"sha256:{digest(path, algorithm='sha256')}" if path.exists() else f"hub:{source}"


def git_revision() -> str | None:
    """Return the commit of this package's repository, marked if files differ from it; None without git."""
    folder = Path(blender_hf.__file__).resolve().parent
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return f"{commit}+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _resolved(settings: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return all our settings, and the trainer's given ones: its defaults belong to its version."""
    return {**asdict(settings), **{name: value for name, value in given.items() if name != "output_dir"}}


def _is_whole(checkpoint: Path) -> bool:
    try:
        state = json.loads((checkpoint / TRAINER_STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return _step_of(checkpoint) >= 0 and isinstance(state, dict)


def _step_of(checkpoint: Path) -> int:
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


def _write_yaml(path: Path, value: Mapping[str, Any]) -> None:
    import yaml

    with replacing(path) as file:
        file.write(yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True).encode())


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    with replacing(path) as file:
        file.write((json.dumps(_numbers(value), indent=2, ensure_ascii=False) + "\n").encode())


def _numbers(value: Any) -> Any:
    """Return a value with null for NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_numbers(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
