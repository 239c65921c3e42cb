"""The folder of an export: nothing comes into it before it is proved, and nothing of a checkpoint in it is changed."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from blender_hf.errors import BlenderError, InputError

from .graph import WEIGHTS_SUFFIX
from .provenance import WEIGHTS, read_metadata, saved_fingerprints, weight_files


@contextmanager
def opened(output: Path) -> Iterator[Path]:
    """Make the folder of an export where there is none, and in it a folder for what is not proved yet.

    Args:
        output: The folder of the export.

    Yields:
        The folder for what is not proved. It is gone afterwards, whatever happens, and so is an export without files.

    Raises:
        InputError: If the folder can't be written.
    """
    places = (output, *output.parents)
    for place in places:
        if place.exists() and not place.is_dir():
            raise InputError(f"can't write {output}: {place} is a file, and an export is a folder")
    missing = [place for place in places if not place.exists()]
    try:
        output.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".unproved-", dir=output) as unproved:
            yield Path(unproved)
    except BlenderError:
        raise
    except OSError as error:
        raise InputError(f"can't write {output}: {error.strerror or error}") from None
    finally:
        for place in missing:
            with suppress(OSError):  # it has files
                place.rmdir()


def check_output(output: Path, statement: Mapping[str, str], written: Collection[str], is_source: bool) -> None:
    """Make sure that a folder has nothing of another model which would lie beside the files of an export.

    Args:
        output: The folder.
        statement: What the files of the export say of their model.
        written: Names of the files that the export writes anew.
        is_source: Whether it is the folder that the model was loaded from.

    Raises:
        InputError: If it has other weights, or an ONNX file that is not of the same ones and stays.
    """
    same = is_source or (saved_fingerprints(output) or frozenset()).issuperset(statement[WEIGHTS].split())
    if not same and weight_files(output):
        raise InputError(f"{output} has the weights of another model; give another folder, such as {output / 'onnx'}")
    for path in sorted(output.glob("*.onnx")):
        if path.name not in written and read_metadata(path).get(WEIGHTS) != statement[WEIGHTS]:
            raise InputError(
                f"{path} was made of other weights, or does not say of which, and this export does not write it anew: "
                "remove it, or give another folder"
            )


def keep(path: Path, output: Path) -> None:
    """Move a file that is proved, and the weights beside it, to where they stay."""
    for name in (path.name + WEIGHTS_SUFFIX, path.name):
        if path.with_name(name).is_file():
            path.with_name(name).replace(output / name)
        else:
            (output / name).unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove a file, if it is there, and the weights beside it."""
    for name in (path.name, path.name + WEIGHTS_SUFFIX):
        path.with_name(name).unlink(missing_ok=True)
