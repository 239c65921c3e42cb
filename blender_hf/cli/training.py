"""The command `train`: a ranker, a fuser or a reward model, as a YAML file says."""

import argparse
import sys
from contextlib import redirect_stdout

from blender_hf.errors import InputError

from .options import Commands

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
    parser.add_argument("--config", required=True, metavar="FILE", help="YAML file of the settings")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="settings over those of the file"
    )
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON on stdout")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Train as the command line says.

    Raises:
        BlenderError: If a setting or the data can't be used, or an extra is not installed.
    """
    # These load torch and transformers, for which `--help` need not wait.
    from pathlib import Path

    from blender_hf.training.kinds import KINDS
    from blender_hf.training.runs import Run
    from blender_hf.training.settings import read_settings

    kind = KINDS[options.kind]
    (settings, arguments), given = read_settings(options.config, (kind.settings, kind.arguments()), options.set)
    if not given.get("output_dir"):
        raise InputError(f"{options.config}: the setting output_dir is missing: the folder of the run")
    if options.resume and arguments.save_only_model:
        raise InputError(
            "save_only_model leaves out what --resume goes on from, so the run would end with other weights: begin "
            "anew in another output_dir"
        )
    training = Run(Path(given["output_dir"]), given)
    # Of several processes, as `torchrun` and `accelerate launch` start them, one keeps the folder.
    writes = arguments.process_index == 0
    if writes:
        training.begin(settings, resume=options.resume)
    try:
        with redirect_stdout(sys.stderr):  # where the Trainer says how the loss falls
            kind.train(settings, arguments, training)
    except BaseException:
        if writes:
            training.abandon()
        raise
    if not writes:
        return
    if options.json:
        sys.stdout.write(training.metrics_text())
    sys.stderr.write(f"blender-hf: wrote {training.folder}\n")
