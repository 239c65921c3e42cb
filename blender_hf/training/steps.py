"""The steps of a training run, from a YAML file: typed settings, with `transformers.HfArgumentParser`.

A file of one document is one step; each further document is a step that continues from those before it.
"""

import contextlib
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from transformers import HfArgumentParser, TrainingArguments

from blender_hf.errors import InputError
from blender_hf.loading.checkpoints import has_bfloat16

from .settings import INFINITE, Limits, check_limits, renamed

# What transformers would find out only after the training has begun.
TRAINER_LIMITS: Limits = {
    "learning_rate": (0, INFINITE),
    "per_device_train_batch_size": (1, INFINITE),
    "per_device_eval_batch_size": (1, INFINITE),
    "gradient_accumulation_steps": (1, INFINITE),
    "label_smoothing_factor": (0, 0.99),
}
# Where transformers 4 keeps the precision of the last arguments, for all that follow; and what it was before any.
PRECISION = "ACCELERATE_MIXED_PRECISION"
GIVEN_PRECISION = os.environ.get(PRECISION)


@dataclass(frozen=True)
class Step:
    """The given settings of one step of a training run, the dataclasses they belong to, and their name in messages."""

    where: str
    classes: tuple[Any, ...]
    given: Mapping[str, Any]

    def settings(self) -> tuple[Any, ...]:
        """Return one new instance of each dataclass.

        Making transformers' arguments changes process-wide state, so make them just before their training.
        """
        _restore_precision()
        argv = [
            part
            for key, value in {**_own_defaults(self.classes), **self.given}.items()
            if value is not None
            for part in _arguments(key, value)
        ]
        complaints = io.StringIO()
        parser = HfArgumentParser(self.classes, allow_abbrev=False)
        try:
            # argparse writes what is wrong to stderr and exits; here it becomes an error of ours.
            with contextlib.redirect_stderr(complaints):
                made = tuple(parser.parse_args_into_dataclasses(argv))
            for instance in made:
                if isinstance(instance, TrainingArguments):
                    check_limits(instance, TRAINER_LIMITS)
        except SystemExit:
            reason = complaints.getvalue().strip().rpartition("error: ")[2]
            raise InputError(f"{self.where}: {reason}") from None
        except ValueError as error:
            raise InputError(f"{self.where}: {error}") from None
        return made


def read_steps(path: str | Path, classes: Sequence[Any], overrides: Sequence[str] = ()) -> list[Step]:
    """Read the steps of a training run, and check the settings of all of them."""
    documents = _read_documents(path)
    changes = [_override(text, len(documents)) for text in overrides]
    steps = []
    for number, document in enumerate(documents, 1):
        where = f"{path}, step {number}" if len(documents) > 1 else str(path)
        own = {key: value for place, key, value in changes if place in (None, number)}
        given = {**_named(document, classes, where), **_named(own, classes, where)}
        step = Step(where, tuple(classes), given)
        step.settings()
        steps.append(step)
    return steps


def _named(given: Mapping[str, Any], classes: Sequence[Any], where: str) -> dict[str, Any]:
    """Return settings under the names of fields; an unknown one, or one under two names, is an error."""
    known = {f.name for kind in classes for f in fields(kind) if f.init}
    try:
        found = renamed(given)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None
    for key in found:
        if key not in known:
            own = sorted({f.name for kind in classes if not issubclass(kind, TrainingArguments) for f in fields(kind)})
            raise InputError(
                f"{where}: there is no setting {key!r}; there are {', '.join(own)}, and those of transformers' "
                "TrainingArguments"
            )
    return {key: _with_bare_no(key, _as_columns(key, value)) for key, value in found.items()}


def _as_columns(key: str, value: Any) -> Any:
    """Return names of columns, which may be a mapping in YAML, as the list that they are."""
    if key != "columns" or not isinstance(value, Mapping):
        return value
    return [f"{role}={','.join(names) if isinstance(names, list) else names}" for role, names in value.items()]


def _with_bare_no(key: str, value: Any) -> Any:
    """Return the name of a strategy, or of Norwegian, which YAML reads as false: a bare `no`."""
    if key == "languages" and value is not None:
        return ["no" if item is False else item for item in (value if isinstance(value, list) else [value])]
    return "no" if value is False and key.endswith("_strategy") else value


def _override(text: str, n_steps: int) -> tuple[int | None, str, Any]:
    """Return the step that an override is for, None for all, and its key and value."""
    name, found, value = text.partition("=")
    if not found:
        raise InputError(f"{text!r} is no setting; give KEY=VALUE")
    number, dot, key = name.strip().partition(".")
    documents = _decoded(value, repr(text))
    chosen = documents[0] if documents else None
    if not (dot and number.isdecimal()):
        return None, name.strip(), chosen
    if not 1 <= int(number) <= n_steps:
        raise InputError(f"{text!r} is for step {number}, and there are {n_steps}")
    return int(number), key, chosen


def _restore_precision() -> None:
    if GIVEN_PRECISION is None:
        os.environ.pop(PRECISION, None)
    else:
        os.environ[PRECISION] = GIVEN_PRECISION


def _own_defaults(classes: Iterable[Any]) -> dict[str, Any]:
    """Return our defaults for the trainer's arguments."""
    # Without a GPU transformers 4 rejects bf16, and by default it reports to every service that is installed.
    defaults = {"use_cpu": not torch.accelerator.is_available(), "report_to": "none"}
    checkpointing = {f.name: f.default for kind in classes for f in fields(kind) if f.name.endswith("_checkpointing")}
    if checkpointing.get("gradient_checkpointing") and "activation_checkpointing" in checkpointing:
        # TRL's default, by the name that transformers 6 will have: by the other it warns.
        defaults["activation_checkpointing"] = True
    # TRL trains in bf16 by default; emulated, a step takes ten times as long.
    return defaults if has_bfloat16(_device()) else {**defaults, "bf16": False}


def _device() -> torch.device:
    return torch.accelerator.current_accelerator() or torch.device("cpu")


def _arguments(key: str, value: Any) -> list[str]:
    """Return a setting as arguments of a command line.

    They go through argparse, and not through `HfArgumentParser.parse_dict`, because it converts strings to the types of
    the fields: PyYAML reads `1e-5`, which has no dot, as a string.
    """
    if isinstance(value, list | tuple):
        return [f"--{key}", *map(str, value)] if value else []
    if isinstance(value, Mapping):
        return [f"--{key}", json.dumps(value)]
    # One argument: a value that begins with a dash would else be taken for an option.
    return [f"--{key}={value}"]


def _read_documents(path: str | Path) -> list[dict[str, Any]]:
    """Return the mappings of a YAML file, one a document."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"can't read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not valid YAML: {error}") from None
    # A last `---` is followed by an empty document.
    found = [value for value in _decoded(text, str(path)) if value is not None]
    if not found or not all(isinstance(value, Mapping) for value in found):
        raise InputError(f'{path}: expected settings, one "key: value" a line')
    return [{str(key): item for key, item in value.items()} for value in found]


def _decoded(text: str, where: str) -> list[Any]:
    """Return the documents of a YAML string; raises `InputError` if it is invalid, or gives a key twice."""
    import yaml

    try:
        found = list(yaml.safe_load_all(text))
        for node in yaml.compose_all(text, Loader=yaml.SafeLoader):
            _check_each_key_once(node, where)
    except InputError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from None
    return found


def _check_each_key_once(node: Any, where: str) -> None:
    """Reject a key that is given twice: YAML would silently take the last."""
    if getattr(node, "id", None) != "mapping":
        return
    seen: set[str] = set()
    for key, value in node.value:
        if key.value in seen:
            raise InputError(f"{where}: the setting {key.value!r} is given twice; keep one")
        seen.add(key.value)
        _check_each_key_once(value, where)
