"""What the libraries report while our programs run."""


def quieten_libraries() -> None:
    """Let transformers report errors alone, without progress bars.

    For programs, which may speak for the libraries: what these report of loading is of no use there.
    """
    # It takes seconds to import, and a command's `--help` has no use for it.
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
