"""The folder of a run: what was asked for, on which data and with which code, what came out, and a finished card."""

import json
import math
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import blender_hf
from blender_hf.data.jobs import replacing
from blender_hf.data.sources import digest
from blender_hf.errors import InputError

SETTINGS_FILE, RUN_FILE, METRICS_FILE, CARD_FILE = "settings.yaml", "run.json", "metrics.json", "README.md"
CHECKPOINTS = "trainer"
PACKAGES = ("blender-hf", "torch", "transformers", "accelerate", "datasets", "peft", "trl")
# What the trainer writes last into a checkpoint.
TRAINER_STATE = "trainer_state.json"


@dataclass(frozen=True)
class Run:
    """A run of a training.

    Args:
        folder: Where everything of it goes; the trained checkpoint lies at its top.
        given: The settings as they were given.
    """

    folder: Path
    given: Mapping[str, Any]

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints of the trainer are."""
        return self.folder / CHECKPOINTS

    def begin(self, settings: Any, *, resume: bool) -> None:
        """Write down what the run is made of, before the work begins.

        Args:
            settings: The settings of the model and its data.
            resume: Whether to go on with a run that was interrupted.

        Raises:
            InputError: If the folder holds another run, or holds one and it is not to be resumed.
        """
        if not resume:
            self.check_free()
        described = self._described(settings)
        self._check_same(described)
        self.folder.mkdir(parents=True, exist_ok=True)
        _write_yaml(self.folder / SETTINGS_FILE, described["settings"])
        _write_json(self.folder / RUN_FILE, described)

    def check_free(self) -> None:
        """Check that the folder holds no run, which would be overwritten.

        Raises:
            InputError: If it does.
        """
        if self._begun:
            raise InputError(
                f"{self.folder} holds a run already; give --resume to go on with it, or another output_dir"
            )

    def check_same(self, settings: Any) -> None:
        """Check that the run in the folder, if there is one, was begun with the same settings and data.

        Args:
            settings: The settings of the model and its data.

        Raises:
            InputError: If it was not: going on with it would be neither the one nor the other.
        """
        self._check_same(self._described(settings))

    @property
    def is_finished(self) -> bool:
        """Whether the run has come to its end: its card is written last."""
        return self._begun and (self.folder / CARD_FILE).is_file()

    def last_checkpoint(self, phase: str = "") -> str | None:
        """Return where an interrupted phase can be taken up again, or None if it has not come so far.

        It is the newest checkpoint that is whole: one that a kill left half written is passed over, and written anew.
        """
        whole = [folder for folder in (self.checkpoints / phase).glob("checkpoint-*") if _is_whole(folder)]
        return str(max(whole, key=_step_of)) if whole else None

    def abandon(self) -> None:
        """Take back what `begin` wrote, if nothing came of the run, so that the folder can be used again."""
        made = [self.folder / METRICS_FILE, *self.checkpoints.rglob("*")]
        if any(path.is_file() for path in made):
            return
        for name in (RUN_FILE, SETTINGS_FILE):
            (self.folder / name).unlink(missing_ok=True)

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Write what was measured."""
        _write_json(self.folder / METRICS_FILE, metrics)

    def metrics_text(self) -> str:
        """Return what `write_metrics` wrote, JSON."""
        return (self.folder / METRICS_FILE).read_text(encoding="utf-8")

    def write_card(self, text: str) -> None:
        """Write the card of the checkpoint."""
        with replacing(self.folder / CARD_FILE) as file:
            file.write(text.encode())

    def description(self) -> dict[str, Any]:
        """Return what `begin` wrote."""
        return json.loads((self.folder / RUN_FILE).read_text(encoding="utf-8"))

    def _described(self, settings: Any) -> dict[str, Any]:
        prints = {source: fingerprint(source) for source in [*settings.data, *settings.eval_data]}
        return {
            "settings": _resolved(settings, self.given),
            "data": prints,
            "git_revision": git_revision(),
            "versions": _versions(),
        }

    def _check_same(self, now: Mapping[str, Any]) -> None:
        before = self.description() if self._begun else now
        changed = [
            key
            for name in ("settings", "data")
            for key in {*before[name], *now[name]}
            if before[name].get(key) != now[name].get(key)
        ]
        if changed:
            raise InputError(
                f"{self.folder} holds a run with another {', '.join(sorted(changed))}; use the settings of its "
                f"{SETTINGS_FILE}, or another output_dir"
            )

    @property
    def _begun(self) -> bool:
        return (self.folder / RUN_FILE).is_file()


def fingerprint(source: str) -> str:
    """Return what identifies data: the SHA-256 of a file, of the files of a folder, or the id of a data set."""
    path = Path(source)
    return f"sha256:{digest(path, algorithm='sha256')}" if path.exists() else f"hub:{source}"


def git_revision() -> str | None:
    """Return the commit of this package's repository, with a mark if files differ from it; None without git."""
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
    """Return all settings of ours, and those of the trainer that were given; its defaults are those of its version."""
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
