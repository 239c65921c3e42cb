"""Fits the temperature of a trained ranker on judged pairs, and stores it in its configuration.

python -m blender_hf.training.calibrate --ranker RUN_FOLDER --data dev.jsonl.gz
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from blender_hf.blender import Blender
from blender_hf.data.labelled_formats import read_labelled
from blender_hf.data.preferences import PreferencePair
from blender_hf.engine.results import Comparison
from blender_hf.modeling import PairRankerConfig

from .pair_data import balance_sources, training_pairs
from .ranker_metrics import fitted_temperature


def compare_pairs(blender: Blender, pairs: Iterable[PreferencePair]) -> list[Comparison]:
    """Compare the candidates of judged pairs in both orders of presentation."""
    judged = list(pairs)
    return blender.compare(
        [pair.prompt for pair in judged], [pair.candidate_a for pair in judged], [pair.candidate_b for pair in judged]
    )


def calibrate(
    ranker: str | Path,
    data: str | Path,
    most: int | None = None,
    seed: int = 0,
    distinct_token_weight: float | None = None,
) -> float:
    """Fit the temperature of a trained ranker and store it.

    Args:
        ranker: Folder of the checkpoint; its configuration is changed.
        data: Labelled data that it was not trained on.
        most: Most pairs of a source.
        seed: Seed of their draw.
        distinct_token_weight: A new one for `PairRankerConfig`, with which it is fitted and stored.

    Returns:
        The temperature.

    Raises:
        ValueError: If the weight is no number.
    """
    path = Path(ranker) / "config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    blender = Blender.from_pretrained(ranker, None)
    if distinct_token_weight is not None:
        settings["distinct_token_weight"] = distinct_token_weight
        PairRankerConfig.from_dict(settings)  # refuses what can't work before the long part
        blender.scorer.model.config.distinct_token_weight = distinct_token_weight
    pairs = balance_sources(training_pairs(read_labelled(data)), most=most, seed=seed)
    results = compare_pairs(blender, pairs)
    settings["logit_temperature"] = round(fitted_temperature([r.logit for r in results], [p.label for p in pairs]), 4)
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return settings["logit_temperature"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a calibration from the command line."""
    parser = argparse.ArgumentParser(description=(calibrate.__doc__ or "").splitlines()[0])
    parser.add_argument("--ranker", required=True, help="folder of the checkpoint; its configuration is changed")
    parser.add_argument("--data", required=True, help="labelled data that the ranker was not trained on")
    parser.add_argument("--max-pairs-per-source", type=int, default=120, help="drawn at random of larger sources")
    parser.add_argument("--seed", type=int, default=0, help="seed of that draw")
    parser.add_argument("--distinct-token-weight", type=float, help="a new one for the configuration")
    options = parser.parse_args(argv)
    temperature = calibrate(
        options.ranker, options.data, options.max_pairs_per_source, options.seed, options.distinct_token_weight
    )
    sys.stdout.write(f"{temperature}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
