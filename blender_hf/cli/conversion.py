"""The command `convert`: a ranker in any format that we read, written in ours."""

import argparse
import sys
from pathlib import Path

from blender_hf.errors import InputError
from blender_hf.logs import quieten_libraries

from .options import Commands, positive

ABOUT = """Write a ranker in our format, from any format that is read: llm-blender/PairRM-hf, PairRM and
pair-ranker, mightbe/Better-PairRM, and our own. What is written states its lengths and carries its code."""


def add(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "convert",
        help="Write a ranker in our format",
        description=" ".join(ABOUT.split()),
        epilog="Example: blender-hf convert llm-blender/PairRM-hf pair-rm --dtype float16",
        allow_abbrev=False,
    )
    parser.add_argument("source", metavar="SOURCE", help="Hub id or folder of the ranker")
    parser.add_argument("output", metavar="OUTPUT", help="the folder to write")
    parser.add_argument("--force", action="store_true", help="write into a folder that is not empty")
    parser.add_argument("--dtype", help="precision of what is written: float32, bfloat16 or float16 (default: float32)")
    parser.add_argument("--revision", help="branch, tag or commit of the source")
    for name, what in (("pair", "a pair"), ("source", "the prompt"), ("candidate", "a candidate")):
        parser.add_argument(
            f"--max-{name}-length", type=positive, metavar="N", help=f"most tokens of {what} (default: the source's)"
        )
    parser.add_argument(
        "--source-truncation-side",
        choices=("left", "right"),
        help="which end of a long prompt is cut (default: the source's)",
    )
    parser.add_argument("--local-files-only", action="store_true", help="never ask the Hub")
    parser.add_argument("--trust-remote-code", action="store_true", help="let code from a repository run")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Convert a checkpoint as the command line says; the folder then stands alone, with processor and code.

    Raises:
        BlenderError: If the source is not a whole ranker, or the output can't be written or has files already.
    """
    # These load torch and transformers, for which `--help` need not wait.
    from blender_hf.loading.checkpoints import HubOptions, load_ranker
    from blender_hf.loading.saving import save_portable

    output = Path(options.output)
    _check(output, options.source, options.force)
    quieten_libraries()
    hub = HubOptions(
        revision=options.revision,
        local_files_only=options.local_files_only,
        trust_remote_code=options.trust_remote_code,
    )
    model, processor = load_ranker(options.source, hub, "cpu", options.dtype, _truncation(options))
    try:
        save_portable(model, processor, output)
    except OSError as error:
        raise InputError(f"can't write {output}: {error.strerror or error}") from None
    sys.stderr.write(f"blender-hf: wrote {output}\n")


def _truncation(options: argparse.Namespace) -> dict[str, int | str]:
    names = ("max_pair_length", "max_source_length", "max_candidate_length", "source_truncation_side")
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def _check(output: Path, source: str, force: bool) -> None:
    if output.exists() and not output.is_dir():
        raise InputError(f"can't write {output}: it is a file, and a checkpoint is a folder")
    if not output.absolute().parent.is_dir():
        raise InputError(f"can't write {output}: its folder does not exist")
    if not output.is_dir():
        return
    if Path(source).is_dir() and output.samefile(source):
        raise InputError(f"{output} is the source itself; write to another folder")
    if any(output.iterdir()) and not force:
        raise InputError(f"{output} is not empty; give --force to overwrite what is in it")
