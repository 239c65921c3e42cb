"""The steps of a training, from a YAML file: typed settings, with `transformers.HfArgumentParser`.

A file of one document is one step; each further document is one that goes on from those before it.
"""

import contextlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from transformers import HfArgumentParser, TrainingArguments

from blender_hf.errors import InputError
from blender_hf.loading.checkpoints import has_bfloat16

from .settings import INFINITE, Limits, check_limits
from .yaml_files import decoded, read_documents

# What transformers finds out when the training has begun.
TRAINER_LIMITS: Limits = {
    "learning_rate": (0, INFINITE),
    "per_device_train_batch_size": (1, INFINITE),
    "per_device_eval_batch_size": (1, INFINITE),
    "gradient_accumulation_steps": (1, INFINITE),
    "label_smoothing_factor": (0, 0.99),
}
# A name of transformers 4, and that of 5, where a number of steps below 1 is a share of them.
RENAMED = {"warmup_ratio": "warmup_steps"}
# Where transformers 4 keeps the precision of the last training, for all that follow; and what it was before any.
PRECISION = "ACCELERATE_MIXED_PRECISION"
GIVEN_PRECISION = os.environ.get(PRECISION)


@dataclass(frozen=True)
class Step:
    """What one step of a training is told.

    Args:
        where: What its settings are called in errors.
        kinds: The dataclasses whose fields they are; one is a `transformers.TrainingArguments`.
        given: The settings that are given, by their names.
    """

    where: str
    kinds: tuple[type, ...]
    given: Mapping[str, Any]

    def settings(self) -> tuple[Any, ...]:
        """Return one new instance of each dataclass.

        Those of transformers say, when they are made, how the next training runs: make them just before it.

        Raises:
            InputError: If a value has the wrong type, or can't be.
        """
        _forget_precision()
        argv = [
            part
            for key, value in {**_own_defaults(), **self.given}.items()
            if value is not None
            for part in _arguments(key, value)
        ]
        complaints = io.StringIO()
        parser = HfArgumentParser(self.kinds, allow_abbrev=False)
        try:
            # argparse writes what is wrong to stderr and leaves; here it becomes an error of ours.
            with contextlib.redirect_stderr(complaints):
                made = tuple(parser.parse_args_into_dataclasses(argv))
            for kind in made:
                if isinstance(kind, TrainingArguments):
                    check_limits(kind, TRAINER_LIMITS)
        except SystemExit:
            reason = complaints.getvalue().strip().rpartition("error: ")[2]
            raise InputError(f"{self.where}: {reason}") from None
        except ValueError as error:
            raise InputError(f"{self.where}: {error}") from None
        return made


def read_steps(path: str | Path, kinds: Sequence[type], overrides: Sequence[str] = ()) -> list[Step]:
    """Read the steps of a training, and check their settings before any of them is begun.

    Args:
        path: A YAML file, whose documents are the steps.
        kinds: The dataclasses whose fields the keys are; one is a `transformers.TrainingArguments`.
        overrides: `KEY=VALUE` texts that overrule the file in each step; `2.KEY=VALUE` does so in the second alone.

    Returns:
        The steps.

    Raises:
        InputError: If the file can't be read, a key is unknown or given twice, or a value has the wrong type.
    """
    documents = read_documents(path)
    changes = [_override(text, len(documents)) for text in overrides]
    steps = []
    for number, document in enumerate(documents, 1):
        where = f"{path}, step {number}" if len(documents) > 1 else str(path)
        own = {key: value for place, key, value in changes if place in (None, number)}
        step = Step(where, tuple(kinds), _named({**document, **own}, kinds, where))
        step.settings()
        steps.append(step)
    return steps


def _named(given: Mapping[str, Any], kinds: Sequence[type], where: str) -> dict[str, Any]:
    """Return settings by the names of fields, with values as these are written.

    Raises:
        InputError: If there is no such field.
    """
    known = {f.name for kind in kinds for f in fields(kind) if f.init}
    given = {key if key in known else RENAMED.get(key, key): value for key, value in given.items()}
    for key in given:
        if key not in known:
            own = sorted({f.name for kind in kinds if not issubclass(kind, TrainingArguments) for f in fields(kind)})
            raise InputError(
                f"{where}: there is no setting {key!r}; there are {', '.join(own)}, and those of transformers' "
                "TrainingArguments"
            )
    return {key: _as_text(key, value) for key, value in given.items()}


def _as_text(key: str, value: Any) -> Any:
    """Return the name of a strategy, or of Norwegian: to YAML a bare `no` is a truth value."""
    if key == "languages" and value is not None:
        return ["no" if item is False else item for item in (value if isinstance(value, list) else [value])]
    return "no" if value is False and key.endswith("_strategy") else value


def _override(text: str, n_steps: int) -> tuple[int | None, str, Any]:
    """Return the step that a text of the command line is for, None for all, and its key and value."""
    name, found, value = text.partition("=")
    if not found:
        raise InputError(f"{text!r} is no setting; give KEY=VALUE")
    number, dot, key = name.strip().partition(".")
    documents = decoded(value, repr(text))
    chosen = documents[0] if documents else None
    if not (dot and number.isdecimal()):
        return None, name.strip(), chosen
    if not 1 <= int(number) <= n_steps:
        raise InputError(f"{text!r} is for step {number}, and there are {n_steps}")
    return int(number), key, chosen


def _forget_precision() -> None:
    if GIVEN_PRECISION is None:
        os.environ.pop(PRECISION, None)
    else:
        os.environ[PRECISION] = GIVEN_PRECISION


def _own_defaults() -> dict[str, Any]:
    """Return what the trainer's arguments are here where nothing is said."""
    # Without a GPU transformers 4 takes bf16 for a wish for one, and reports to every service that is installed.
    defaults = {"use_cpu": not torch.accelerator.is_available(), "report_to": "none"}
    # TRL trains in bf16 where nothing is said; emulated, a step takes ten times as long.
    return defaults if has_bfloat16(_device()) else {**defaults, "bf16": False}


def _device() -> torch.device:
    return torch.accelerator.current_accelerator() or torch.device("cpu")


def _arguments(key: str, value: Any) -> list[str]:
    if isinstance(value, list | tuple):
        return [f"--{key}", *map(str, value)] if value else []
    if isinstance(value, Mapping):
        return [f"--{key}", json.dumps(value)]
    # One argument: a value that begins with a dash is none of its own.
    return [f"--{key}={value}"]
