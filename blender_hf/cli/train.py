"""The command `train`: a ranker, a fuser or a reward model, from a YAML file."""

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from blender_hf.errors import InputError, require

from .command import Command, Options, option
from .output import check_readable, log

if TYPE_CHECKING:
    from blender_hf.training.run_folder import RunFolder
    from blender_hf.training.steps import Step
    from blender_hf.training.training_run import TrainingRun


def run(options: Options) -> None:
    """Train one step after the other."""
    check_readable(options.config)
    for module in ("accelerate", "yaml"):
        require(module, "train", "training")
    from blender_hf.training.steps import read_steps
    from blender_hf.training.training_run import kind_of

    kind = kind_of(options.kind)
    steps = read_steps(options.config, (kind.settings_class, kind.arguments_class()), options.set)
    runs = _runs_of(steps)
    if options.resume and any(step.given.get("save_only_model") for step in steps):
        raise InputError(
            "save_only_model omits the optimizer state that --resume needs, so the run would end with other weights: "
            "start over in another output_dir"
        )
    if not options.resume:
        for training in runs:
            training.check_free()
    for step, training in zip(steps, runs, strict=True):
        writes = _train(kind, step, training, resume=options.resume)
    if options.json and writes:
        sys.stdout.write(runs[-1].metrics_text())


def _runs_of(steps: "Sequence[Step]") -> "list[RunFolder]":
    """Return the run of each step, which needs a folder that no other step uses."""
    from blender_hf.training.run_folder import RunFolder

    folders: list[Path] = []
    for step in steps:
        if not step.given.get("output_dir"):
            raise InputError(f"{step.where}: the setting output_dir, the folder of the run, is missing")
        folder = Path(step.given["output_dir"])
        if folder in folders:
            raise InputError(f"{step.where}: output_dir={folder} belongs to an earlier step; give each step its own")
        folders.append(folder)
    return [RunFolder(folder, step.given) for folder, step in zip(folders, steps, strict=True)]


def _train(kind: "type[TrainingRun]", step: "Step", training: "RunFolder", *, resume: bool) -> bool:
    """Run one step, and return whether this process writes its folder: under `torchrun`, one of several does."""
    settings, arguments = step.settings()
    writes = arguments.process_index == 0
    if resume and training.is_finished:
        training.check_same(settings)
        _log(f"{training.path} is finished", writes)
        return writes
    if writes:
        training.begin(settings, resume=resume)
    try:
        with redirect_stdout(sys.stderr):  # the Trainer prints the loss on stdout
            kind(settings, arguments, training).train()
    except BaseException:
        if writes:
            training.abandon()
        raise
    _log(f"wrote {training.path}", writes)
    arguments.distributed_state.wait_for_everyone()  # the next step reads what this one wrote
    return writes


def _log(text: str, writes: bool) -> None:
    if writes:
        log(text)


COMMAND = Command(
    name="train",
    help="Train a ranker, a fuser or a reward model",
    about="""Train a ranker, a fuser or, for comparison, a pointwise reward model. The folder of the run, the setting
    output_dir, receives the checkpoint, its settings, the fingerprints of its data, its metrics and a model card.""",
    options=(
        option("kind", "kind of model", choices=("ranker", "fuser", "reward-model")),
        option("--config FILE", "YAML file with the settings, one document per step", required=True),
        option(
            "--set KEY=VALUE",
            "settings that override the file's; 2.KEY=VALUE is for its second step only",
            nargs="+",
            action="extend",
            default=[],
        ),
        option("--resume", "resume an interrupted run; keep a finished one"),
        option("--json", "print the metrics as JSON on stdout"),
    ),
    run=run,
    epilog="Example: blender-hf train ranker --config run.yaml --set learning_rate=1e-5",
)
