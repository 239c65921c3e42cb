"""What the libraries report and show while they work for us, and how numbers are worded."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

# The name of our logger, and of our group of progress bars among those of the Hub's client.
OWN = "blender_hf"
# Seconds of loading before there is a progress bar: a small model is there sooner.
PATIENCE = 2.0


def quiet() -> None:
    """Let this package, transformers and the Hub's client report errors alone, without progress bars.

    For programs and notebooks that have their own output; once, before or after models are loaded. Without it, the
    switches of the libraries hold: the logger `blender_hf` of `logging`, `TRANSFORMERS_VERBOSITY`, and for
    progress bars `HF_HUB_DISABLE_PROGRESS_BARS`, which wins over all.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars

    logging.getLogger(OWN).setLevel(logging.ERROR)
    quieten_libraries()
    if constants.HF_HUB_DISABLE_PROGRESS_BARS is None:
        disable_progress_bars(OWN)


def quieten_libraries() -> None:
    """Let transformers and the Hub's client report errors alone, without progress bars.

    For our own programs, which may speak for the libraries: what these report of loading is of no use there. Our own
    progress bars stay.
    """
    # These take seconds to import, and a command's `--help` has no use for them.
    from huggingface_hub import constants
    from huggingface_hub.utils import enable_progress_bars
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    if constants.HF_HUB_DISABLE_PROGRESS_BARS is None:
        enable_progress_bars(OWN)


@contextmanager
def patient_progress_bars() -> Iterator[None]:
    """Let transformers show a progress bar only of what takes longer than `PATIENCE`."""
    from transformers.utils import logging as transformers_logging

    library: Any = transformers_logging
    if not hasattr(library, "set_tqdm_hook"):  # transformers 4
        impatient, library.tqdm = library.tqdm, partial(library.tqdm, delay=PATIENCE)
        try:
            yield
        finally:
            library.tqdm = impatient
        return
    earlier: Any = None

    def patient(factory: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        settings = {"delay": PATIENCE, **kwargs}
        return factory(*args, **settings) if earlier is None else earlier(factory, args, settings)

    earlier = library.set_tqdm_hook(patient)
    try:
        yield
    finally:
        library.set_tqdm_hook(earlier)


def counted(number: int, noun: str, nouns: str | None = None) -> str:
    """Return a number with its noun, in the singular or the plural.

    >>> counted(1, "prompt"), counted(0, "prompt"), counted(2, "reply", "replies")
    ('1 prompt', '0 prompts', '2 replies')
    """
    return f"{number} {noun if number == 1 else nouns or f'{noun}s'}"
