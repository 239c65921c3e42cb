"""The command `train`: a ranker, a fuser or a reward model, as a YAML file says."""

import argparse
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

from blender_hf.errors import InputError

from .options import Commands

if TYPE_CHECKING:
    from blender_hf.training.kinds import Kind
    from blender_hf.training.runs import Run
    from blender_hf.training.steps import Step

ABOUT = """Train a ranker, a fuser or, for comparison, a pointwise reward model. The folder of the run, output_dir of
the settings, gets the checkpoint, its settings, the fingerprints of its data, its metrics and a finished card."""
NAMES = ("ranker", "fuser", "reward-model")


def add(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "train",
        help="Train a ranker, a fuser or a reward model",
        description=" ".join(ABOUT.split()),
        epilog="Example: blender-hf train ranker --config run.yaml --set learning_rate=1e-5",
        allow_abbrev=False,
    )
    parser.add_argument("kind", choices=NAMES, help="what is trained")
    parser.add_argument("--config", required=True, metavar="FILE", help="YAML file of the settings, a document a step")
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="settings over those of the file; 2.KEY=VALUE is for its second step alone",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with an interrupted run, and leave a finished one as it is"
    )
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON on stdout")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Train as the command line says, one step after the other.

    Raises:
        BlenderError: If a setting or the data can't be used, or an extra is not installed.
    """
    # These load torch and transformers, for which `--help` need not wait.
    from blender_hf.training.kinds import KINDS
    from blender_hf.training.steps import read_steps

    kind = KINDS[options.kind]
    steps = read_steps(options.config, (kind.settings, kind.arguments()), options.set)
    runs = _runs_of(steps)
    if options.resume and any(step.given.get("save_only_model") for step in steps):
        raise InputError(
            "save_only_model leaves out what --resume goes on from, so the run would end with other weights: begin "
            "anew in another output_dir"
        )
    if not options.resume:
        for training in runs:
            training.check_free()
    for step, training in zip(steps, runs, strict=True):
        writes = _train(kind, step, training, resume=options.resume)
    if options.json and writes:
        sys.stdout.write(runs[-1].metrics_text())


def _runs_of(steps: "Sequence[Step]") -> "list[Run]":
    """Return the run of each step.

    Raises:
        InputError: If one has no folder, or that of another.
    """
    from pathlib import Path

    from blender_hf.training.runs import Run

    folders: list[Path] = []
    for step in steps:
        if not step.given.get("output_dir"):
            raise InputError(f"{step.where}: the setting output_dir is missing: the folder of the run")
        folder = Path(step.given["output_dir"])
        if folder in folders:
            raise InputError(f"{step.where}: output_dir={folder} is that of an earlier step; give each its own")
        folders.append(folder)
    return [Run(folder, step.given) for folder, step in zip(folders, steps, strict=True)]


def _train(kind: "Kind", step: "Step", training: "Run", *, resume: bool) -> bool:
    """Do one step, and say whether this process keeps its folder: of several, as `torchrun` starts them, one does."""
    settings, arguments = step.settings()
    writes = arguments.process_index == 0
    if resume and training.is_finished:
        training.check_same(settings)
        _say(f"{training.folder} is finished", writes)
        return writes
    if writes:
        training.begin(settings, resume=resume)
    try:
        with redirect_stdout(sys.stderr):  # where the Trainer says how the loss falls
            kind.train(settings, arguments, training)
    except BaseException:
        if writes:
            training.abandon()
        raise
    _say(f"wrote {training.folder}", writes)
    arguments.distributed_state.wait_for_everyone()  # the next step reads what this one wrote
    return writes


def _say(text: str, writes: bool) -> None:
    if writes:
        sys.stderr.write(f"blender-hf: {text}\n")
