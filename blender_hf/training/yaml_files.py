"""YAML as it is read here: what is wrong with it is one line, and no key is given twice."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blender_hf.errors import InputError


def read_documents(path: str | Path) -> list[dict[str, Any]]:
    """Return the mappings of a YAML file, one a document.

    Args:
        path: The file; `---` stands between two documents.

    Raises:
        InputError: If the file can't be read, or is something else.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"can't read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not valid YAML: {error}") from None
    # Nothing stands behind a last `---`.
    found = [value for value in decoded(text, str(path)) if value is not None]
    if not found or not all(isinstance(value, Mapping) for value in found):
        raise InputError(f'{path}: expected settings, one "key: value" a line')
    return [{str(key): item for key, item in value.items()} for value in found]


def decoded(text: str, where: str) -> list[Any]:
    """Return the documents of a YAML text.

    Args:
        text: The text.
        where: What it is called in errors.

    Raises:
        InputError: If it is not valid YAML, or gives a key twice.
    """
    import yaml

    try:
        found = list(yaml.safe_load_all(text))
        for node in yaml.compose_all(text, Loader=yaml.SafeLoader):
            _check_each_key_once(node, where)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from None
    return found


def _check_each_key_once(node: Any, where: str) -> None:
    """Refuse a key that is given twice: YAML would take the last, and say nothing."""
    if getattr(node, "id", None) != "mapping":
        return
    seen: set[str] = set()
    for key, value in node.value:
        if key.value in seen:
            raise InputError(f"{where}: the setting {key.value!r} is given twice; keep one")
        seen.add(key.value)
        _check_each_key_once(value, where)
