"""Why a checkpoint could not be loaded: who may not read it, or which of its files is missing or damaged.

What the libraries below say of it is often about their own insides, as "'NoneType' object has no attribute 'endswith'"
for a tokenizer that is not there. So the files are looked at once more; of the error only its kind is of use.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import RepositoryNotFoundError
from safetensors import SafetensorError, safe_open

from .other_formats import ADAPTER, CONFIG, other_format

JSON_FILES = (CONFIG, "processor_config.json", "tokenizer_config.json", "tokenizer.json")
# Any one of these is the vocabulary of a tokenizer.
VOCABULARIES = ("tokenizer.json", "*.model", "vocab.*")


def reason_for(
    error: BaseException,
    where: str,
    *,
    revision: str | None = None,
    cache_dir: str | None = None,
    subfolder: str | None = None,
) -> str | None:
    """Return why the checkpoint in a folder or Hub repository could not be loaded and what to do about the error.

    None where the error has to speak for itself.
    """
    # A gated repository is one of these too.
    if any(isinstance(cause, RepositoryNotFoundError) for cause in _chain(error)):
        return (
            "the Hub shows no such repository: the name is wrong, or it is private or gated; for those log in with "
            "`hf auth login`, or give a token= that may read it"
        )
    causes = " ".join(str(cause) for cause in _chain(error))
    if Path(where).is_dir():
        folder = Path(where, subfolder or "")
        return other_format(folder, causes) or _damaged(folder) or _missing(folder)
    if Path(where).is_file():
        return f"{where} is a file; give the folder of the model, with its config.json"
    if Path(where).is_absolute() or where.startswith("."):
        return f"there is no folder {where}"
    # What a download left out is not missing for sure, but what is there can be read or not.
    snapshot = _snapshot(where, revision, cache_dir, subfolder)
    if snapshot is None:
        snapshot = _adapter_of(where, revision, cache_dir, subfolder)
    return None if snapshot is None else other_format(snapshot, causes, where) or _damaged(snapshot)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _adapter_of(where: str, revision: str | None, cache_dir: str | None, subfolder: str | None) -> Path | None:
    """Return the folder of a repository without a configuration if it holds an adapter."""
    try:
        return Path(hf_hub_download(where, ADAPTER, revision=revision, cache_dir=cache_dir, subfolder=subfolder)).parent
    # Whatever it is, there is no adapter to tell of.
    except Exception:
        return None


def _snapshot(where: str, revision: str | None, cache_dir: str | None, subfolder: str | None) -> Path | None:
    file = f"{subfolder}/{CONFIG}" if subfolder else CONFIG
    try:
        found = try_to_load_from_cache(where, file, cache_dir=cache_dir, revision=revision)
    except ValueError:  # no name that a repository can have
        return None
    return Path(found).parent if isinstance(found, str) else None


def _damaged(folder: Path) -> str | None:
    for name in JSON_FILES:
        try:
            json.loads((folder / name).read_bytes())
        except FileNotFoundError:
            continue
        except ValueError as error:
            return f"{folder / name} is damaged ({error}); copy or download it again"
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt"):
                pass
        except SafetensorError as error:
            return f"{path} is damaged ({error}); copy or download it again"
    return None


def _missing(folder: Path) -> str | None:
    if not (folder / CONFIG).is_file():
        return f"{folder} has no {CONFIG}; give the folder that the model was saved in"
    # An old RankerConfig takes its tokenizer from the repository of its encoder.
    names_tokenizer = "ranker_type" in json.loads((folder / CONFIG).read_bytes())
    if not names_tokenizer and not any(any(folder.glob(pattern)) for pattern in VOCABULARIES):
        return f"{folder} has no tokenizer.json; save the processor in it too (processor.save_pretrained)"
    return None
