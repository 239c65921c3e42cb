"""What the files of a tokenizer state, for what transformers does otherwise when it loads them."""

from typing import Any

from transformers.utils import cached_file

FILE_OPTIONS = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")


def tokenizer_json(where: Any, **hub: Any) -> str | None:
    """Return the path of a checkpoint's tokenizer.json, or None if it has none.

    Args:
        where: A Hub id or a folder.
        **hub: The options with which the tokenizer was loaded; what does not concern files is left out.
    """
    options = {name: value for name, value in hub.items() if name in FILE_OPTIONS and value is not None}
    return cached_file(where, "tokenizer.json", _raise_exceptions_for_missing_entries=False, **options)
