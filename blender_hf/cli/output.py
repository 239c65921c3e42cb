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

# Suffixes of formats that are not written, except by the commands that say so.
UNWRITABLE = frozenset(
    (".arrow", ".feather", ".csv", ".tsv", ".xlsx", ".xls", ".json", ".md", ".zip", ".zst", ".bz2", ".xz", ".orc")
)
# The formats for people, and the suffixes that ask for them.
READABLE = {"csv": ".csv", "markdown": ".md", "text": None}
# The suffixes that ask for records.
RECORDS = (".jsonl", ".ndjson", ".parquet")


def output_format(options: Options) -> str:
    """Return "jsonl" for records, in whatever file, or one of `READABLE`: as stated, else by the name of the output.

    Raises:
        InputError: If the name asks for another format than the one that is stated, or texts are left out of none.
    """
    suffix = _suffix(options.output or "")
    named = next((form for form, known in READABLE.items() if suffix == known), "jsonl" if suffix in RECORDS else None)
    if None not in (named, options.format) and named != options.format:
        raise InputError(
            f"{options.output}: its name asks for {suffix}, and --format for {options.format}; change one of them"
        )
    form = options.format or named or "jsonl"
    if options.no_texts and form != "jsonl":
        raise InputError(f"--no-texts is for JSON Lines and Parquet, not {form}; remove it")
    return form


def check_records(options: Options, readable: Mapping[str, str | None] | None = None) -> Path | None:
    """Check the input and output of a command that reads records; return the output, None for stdout.

    Args:
        options: The options of the command.
        readable: The formats that it writes for people, with their suffixes.
    """
    if options.output is None:
        if sys.stdout is None:
            raise InputError("the standard output is closed: name a file with --output")
        if options.json:
            raise InputError("--json prints the summary on stdout, where the records go; add --output")
    elif Path(options.output).is_dir():
        raise InputError(f"can't write {options.output}: it is a folder")
    if options.data != "-" and not _may_be_a_dataset(options.data):
        check_readable(options.data)
    if options.output is None:
        return None
    check_writable(options.output, [suffix for suffix in (readable or {}).values() if suffix is not None])
    return checked_output(options.output, options.data)


def check_writable(path: str | Path, readable: Sequence[str] = ()) -> None:
    """Reject a file whose name promises a format that is not written; names without a known suffix get JSON Lines.

    Raises:
        InputError: If it does; the message says what can be written.
    """
    suffix, is_compressed = _suffix(path), Path(path).suffix.lower() == ".gz"
    if suffix in UNWRITABLE.difference(readable) or (is_compressed and suffix == ".parquet"):
        also = "".join(f", {other}" for other in readable)
        raise InputError(f"{path}: this command writes .jsonl, .jsonl.gz, .parquet{also}, not {suffix}")


def _suffix(path: str | Path) -> str:
    """Return the suffix of a path that says its format, which is that before `.gz`."""
    found = [suffix.lower() for suffix in Path(path).suffixes]
    return next((suffix for suffix in reversed(found) if suffix != ".gz"), "")


def _may_be_a_dataset(name: str) -> bool:
    """Return whether a name is no path that exists, and has the form of an id of the Hub."""
    from blender_hf.data.files import SUFFIXES

    path = Path(name)
    is_id = len(path.parts) == 2 and not path.is_absolute() and path.suffix.lower() not in SUFFIXES
    return is_id and not path.exists()


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
    stdout_is_read = sys.stdout.isatty() or getattr(options, "format", None) in READABLE
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
        self.failed: list[str] = []

    @property
    def seconds(self) -> float:
        """The time since the run began."""
        return round(time.monotonic() - self._started, 3)
