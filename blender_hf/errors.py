"""Errors that users can act on: each message says what is wrong, where, and what to do."""


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
    """A language model gave no answer; the message says which and why."""


class ModelOutputError(BlenderError, ArithmeticError):
    """A model produced NaN or infinite numbers, so its results would mean nothing."""
