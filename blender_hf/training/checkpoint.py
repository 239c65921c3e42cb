"""What can be done with a trained checkpoint: fit a ranker's temperature again, or put a model into the package.

python -m blender_hf.training.checkpoint calibrate --ranker RUN_FOLDER --data dev.jsonl.gz
python -m blender_hf.training.checkpoint bundle RUN_FOLDER pair-ranker-mini
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from blender_hf.blender import Blender
from blender_hf.data.labelled_formats import read_labelled
from blender_hf.engine.scorer import PairScorer
from blender_hf.judging.loading import JUDGE
from blender_hf.loading.checkpoints import BUNDLED, locate
from blender_hf.modeling import PairRankerConfig

from .pair_data import balance_sources, training_pairs
from .ranker_metrics import fitted_temperature
from .run_folder import METRICS_FILE, RUN_FILE

BUNDLED_SUFFIXES = (".json", ".safetensors")
# What a run says of itself names folders of its machine, and stays behind.
RECORDS = (RUN_FILE, METRICS_FILE)


def calibrate(
    ranker: str | Path,
    data: str | Path,
    most: int | None = None,
    seed: int = 0,
    distinct_token_weight: float | None = None,
) -> float:
    """Fit the temperature of a trained ranker on at most so many pairs of a source, and store it in its configuration.

    A `distinct_token_weight` is used for the fit and stored too; `ValueError` is raised if it is no number. That of a
    judge, "judge:MODEL", is returned alone: it is given to `logit_temperature=`.
    """
    if str(ranker).startswith(JUDGE):
        return round(_fitted(Blender.from_pretrained(str(ranker), None), data, most, seed), 4)
    path = Path(ranker) / "config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    blender = Blender.from_pretrained(ranker, None)
    if distinct_token_weight is not None:
        settings["distinct_token_weight"] = distinct_token_weight
        PairRankerConfig.from_dict(settings)  # rejects what can't work before the long part
        cast(PairScorer, blender.scorer).model.config.distinct_token_weight = distinct_token_weight
    settings["logit_temperature"] = round(_fitted(blender, data, most, seed), 4)
    _write_json(path, settings)
    return settings["logit_temperature"]


def _fitted(blender: Blender, data: str | Path, most: int | None, seed: int) -> float:
    """Return the temperature of a ranker that fits at most so many pairs of each source."""
    pairs = balance_sources(training_pairs(read_labelled(data)), most=most, seed=seed)
    logits = [result.logit for result in blender.iter_compare(pair.item for pair in pairs)]
    return fitted_temperature(logits, [pair.label for pair in pairs])


def bundle(run: str | Path, name: str) -> Path:
    """Copy a trained checkpoint to its place in the package, which has the code already, and return the place.

    Raises:
        ValueError: If there is no bundled checkpoint of that name, or the folder holds no weights.
    """
    if name not in BUNDLED:
        raise ValueError(f"there is no bundled checkpoint {name!r}; use one of {', '.join(BUNDLED)}")
    files = sorted(path for path in Path(run).iterdir() if path.suffix in BUNDLED_SUFFIXES and path.name not in RECORDS)
    if not any(path.suffix == ".safetensors" for path in files):
        raise ValueError(f"{run} holds no weights (*.safetensors)")
    place = Path(locate(name))
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for path in files:
        shutil.copyfile(path, place / path.name)
    for path in place.glob("*config.json"):
        settings = json.loads(path.read_text(encoding="utf-8"))
        _write_json(
            path, {key: value for key, value in settings.items() if key not in ("auto_map", "custom_pipelines")}
        )
    return place


def _write_json(path: Path, value: dict[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the two from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    fit = commands.add_parser("calibrate", help="fit the temperature of a ranker and store it")
    fit.add_argument(
        "--ranker", required=True, help="folder of a checkpoint, whose configuration is changed, or judge:MODEL"
    )
    fit.add_argument("--data", required=True, help="labelled data that the ranker was not trained on")
    fit.add_argument("--max-pairs-per-source", type=int, default=120, help="drawn at random from larger sources")
    fit.add_argument("--seed", type=int, default=0, help="random seed of that draw")
    fit.add_argument("--distinct-token-weight", type=float, help="a new one for the configuration")
    copy = commands.add_parser("bundle", help="copy a trained checkpoint into the package")
    copy.add_argument("run", help="folder of a training run")
    copy.add_argument("name", choices=sorted(BUNDLED), help="the bundled checkpoint that it replaces")
    options = parser.parse_args(argv)
    if options.command == "bundle":
        result: object = bundle(options.run, options.name)
    else:
        weight = options.distinct_token_weight
        result = calibrate(options.ranker, options.data, options.max_pairs_per_source, options.seed, weight)
    sys.stdout.write(f"{result}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
