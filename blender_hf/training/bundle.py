"""Puts a trained checkpoint into the package.

    python -m blender_hf.training.bundle RUN_FOLDER pair-ranker-mini

The package has the code already, so only weights, configuration and tokenizer go in; what a run says of itself names
folders of its machine and stays behind.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from blender_hf.loading.checkpoints import BUNDLED, locate

from .runs import METRICS_FILE, RUN_FILE

KINDS = (".json", ".safetensors")
RECORDS = (RUN_FILE, METRICS_FILE)


def bundle(run: str | Path, name: str) -> Path:
    """Copy a trained checkpoint to its place in the package.

    Args:
        run: Folder that `save_checkpoint` wrote.
        name: One of `blender_hf.loading.checkpoints.BUNDLED`.

    Returns:
        The place.

    Raises:
        ValueError: If there is no bundled checkpoint of that name, or the folder holds no weights.
    """
    if name not in BUNDLED:
        raise ValueError(f"there is no bundled checkpoint {name!r}; use one of {', '.join(BUNDLED)}")
    files = sorted(path for path in Path(run).iterdir() if path.suffix in KINDS and path.name not in RECORDS)
    if not any(path.suffix == ".safetensors" for path in files):
        raise ValueError(f"{run} holds no weights (*.safetensors)")
    place = Path(locate(name))
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for path in files:
        shutil.copyfile(path, place / path.name)
    for path in place.glob("*config.json"):
        _without_code(path)
    return place


def _without_code(path: Path) -> None:
    settings = json.loads(path.read_text(encoding="utf-8"))
    for name in ("auto_map", "custom_pipelines"):
        settings.pop(name, None)
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main(argv: Sequence[str]) -> int:
    """Run from the command line."""
    run, name = argv
    sys.stdout.write(f"{bundle(run, name)}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
