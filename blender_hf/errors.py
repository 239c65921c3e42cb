"""Errors that users can act on, and what words them: each message says what is wrong, where, and what to do."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, TypeVar

Value = TypeVar("Value")


class BlenderError(Exception):
    """Base of the errors that this package raises on purpose."""


class InputError(BlenderError, ValueError):
    """A prompt, a candidate or an option has a value that can't be used; the message names the item."""


class InputTypeError(BlenderError, TypeError):
    """A prompt, a candidate or an option has the wrong type; the message says what was expected."""


class CheckpointError(BlenderError, OSError):
    """A checkpoint can't be found, read, or lacks weights; the message says which and what to do."""


class HubError(BlenderError, OSError):
    """The Hub can't be reached or refuses; the message says what it answered and what to do."""


class GenerationError(BlenderError, RuntimeError):
    """A language model gave no answer, or a server no score; the message says which and why."""


class ModelOutputError(BlenderError, ArithmeticError):
    """A model produced NaN or infinite numbers, so its results would mean nothing."""


def chosen(table: Mapping[str, Value], name: object, what: str) -> Value:
    """Return an entry of a table by its name.

    Raises:
        InputError: If there is none of that name; the message lists those there are.
    """
    if not isinstance(name, str) or name not in table:
        raise InputError(f"unknown {what} {name!r}; use one of {', '.join(table)}")
    return table[name]


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its name if it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def require(module: str, extra: str, purpose: str, alternative: str = "") -> Any:
    """Return an optional module, imported."""
    try:
        return import_module(module)
    except ImportError:
        package = module.partition(".")[0].replace("_", "-")
        raise BlenderError(f"{purpose} needs {package}: pip install 'blender-hf[{extra}]'{alternative}") from None
