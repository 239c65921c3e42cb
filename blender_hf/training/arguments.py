"""Command-line options made from a settings dataclass, so that each default has one home."""

import argparse
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

from transformers.trainer_utils import get_last_checkpoint

Settings = TypeVar("Settings")


def parse_settings(kind: type[Settings], module: str, about: str | None, argv: Sequence[str] | None) -> Settings:
    """Parse the options of a training program.

    Args:
        kind: A dataclass; each field has a "help" in its metadata, and those without a default are required.
        module: Name of the module in `blender_hf.training`.
        about: What the program does.
        argv: The arguments, or None for those of the process.

    Returns:
        The settings.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m blender_hf.training.{module}",
        description=(about or "").splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for setting in fields(kind):  # type: ignore[arg-type]
        required = setting.default is MISSING
        switch = {"action": argparse.BooleanOptionalAction}
        options: dict[str, Any] = switch if setting.type is bool else {"type": setting.type}
        options |= {"required": True} if required else {"default": setting.default}
        options["help"] = setting.metadata["help"]
        parser.add_argument("--" + setting.name.replace("_", "-"), **options)
    return kind(**vars(parser.parse_args(argv)))


def last_checkpoint(folder: str) -> str | None:
    """Return where an interrupted run in this folder can be taken up again, or None for a new run."""
    return get_last_checkpoint(folder) if Path(folder).is_dir() else None
