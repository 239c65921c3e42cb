"""Where results go, and the summary of a run."""

import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from blender_hf.errors import InputError
from blender_hf.logs import counted

from .command import Options

# Suffixes of formats in which lines are not written.
UNWRITABLE = frozenset(
    (".parquet", ".arrow", ".feather", ".csv", ".tsv", ".xlsx", ".xls", ".json", ".zip", ".zst", ".bz2", ".xz", ".orc")
)


def check_records(options: Options) -> Path | None:
    """Check the input and output of a command that reads records; return the output, None for stdout."""
    if options.output is None:
        if sys.stdout is None:
            raise InputError("the standard output is closed: name a file with --output")
        if options.json:
            raise InputError("--json prints the summary on stdout, where the records go; add --output")
    elif Path(options.output).is_dir():
        raise InputError(f"can't write {options.output}: it is a folder")
    if options.file != "-":
        check_readable(options.file)
    if options.output is None:
        return None
    if getattr(options, "format", "jsonl") == "jsonl":
        check_writable(options.output)
    return checked_output(options.output, options.file)


def check_writable(path: str | Path) -> None:
    """Reject a file whose name promises another format than lines; devices, pipes and names without one are left alone.

    Raises:
        InputError: If it does; the message says what can be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix in UNWRITABLE:
        raise InputError(
            f"{path}: this command writes JSON Lines, not {suffix}; name a .jsonl or .jsonl.gz file (`blender-hf "
            "label` also writes .parquet)"
        )


def check_readable(name: str) -> None:
    """Reject a file that does not exist, before the libraries that read it are imported; pipes are left alone."""
    try:
        Path(name).stat()
    except OSError as error:
        raise InputError(f"can't read {name}: {error.strerror}") from None


def checked_output(name: str, source: str | None = None) -> Path:
    """Return the file or folder to write, which must not be the input itself, in an existing folder."""
    output = Path(name)
    if source is not None and output.exists() and Path(source).exists() and output.samefile(source):
        raise InputError(f"{output} is the input itself; write to another place")
    if not output.absolute().parent.is_dir():
        raise InputError(f"can't write {output}: its folder does not exist")
    return output


def checked_folder(name: str, source: str | None = None) -> Path:
    """Return the folder to write, as `checked_output` does."""
    folder = checked_output(name, source)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"can't write into {folder}: it is a file; name a folder")
    return folder


def log(text: str) -> None:
    """Write a line to the logs."""
    sys.stderr.write(f"blender-hf: {text}\n")


def report(options: Options, parts: Sequence[str], summary: Mapping[str, object]) -> None:
    """Log the summary of a run, if it has any part that is not empty; with `--json`, also print it on stdout."""
    if line := "; ".join(part for part in parts if part):
        log(line)
    if options.json:
        sys.stdout.write(json.dumps(summary, ensure_ascii=False) + "\n")


def allows_progress(options: Options) -> bool:
    """Return whether progress bars are neither switched off by --quiet nor by HF_HUB_DISABLE_PROGRESS_BARS."""
    from huggingface_hub.constants import HF_HUB_DISABLE_PROGRESS_BARS

    return not (options.quiet or HF_HUB_DISABLE_PROGRESS_BARS)


def shows_progress(options: Options) -> bool:
    """Return whether to show a progress bar while results are written: not across those that a person reads.

    They stand on stdout, in the terminal or page by page, and the bar on stderr.
    """
    stdout_is_read = sys.stdout.isatty() or getattr(options, "format", "jsonl") != "jsonl"
    return allows_progress(options) and not (options.output is None and stdout_is_read)


def unread_text(n_prompts: int) -> str:
    """Return the part of a summary that tells of text that a model could not read."""
    return f"{counted(n_prompts, 'prompt')} with text that the model can't read (see unread)" if n_prompts else ""


class Tally:
    """What became of the records of a run, and the time since it began."""

    def __init__(self, **counts: int) -> None:
        self._started = time.monotonic()
        # By name, or by name and model or verdict.
        self.counts: Counter[str | tuple[str, str | None]] = Counter(counts)
        # How often something failed, by whom and why.
        self.reasons: defaultdict[str, Counter[str]] = defaultdict(Counter)
        # The records without a result.
        self.failed: list[str | int] = []

    @property
    def seconds(self) -> float:
        """The time since the run began."""
        return round(time.monotonic() - self._started, 3)
