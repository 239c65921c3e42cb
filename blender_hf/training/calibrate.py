"""Fits the temperature of a trained ranker on judged pairs, and stores it in its configuration.

python -m blender_hf.training.calibrate --ranker RUN_FOLDER --data dev.jsonl.gz
"""

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from blender_hf.blender import Blender
from blender_hf.calibration import fit_temperature
from blender_hf.data.preferences import PreferencePair, read_preferences, sample_per_source
from blender_hf.results import Comparison

from .arguments import parse_settings


@dataclass
class CalibrationConfig:
    """Settings of a calibration."""

    ranker: str = field(metadata={"help": "folder of the trained checkpoint; its configuration is changed"})
    data: str = field(metadata={"help": "JSONL file of judged pairs that the ranker was not trained on"})
    max_pairs_per_source: int = field(default=120, metadata={"help": "drawn at random of larger collections"})
    seed: int = field(default=0, metadata={"help": "seed of that draw"})


def compare_pairs(blender: Blender, pairs: Iterable[PreferencePair]) -> list[Comparison]:
    """Compare the candidates of judged pairs in both orders of presentation."""
    judged = list(pairs)
    return blender.compare(
        [pair.prompt for pair in judged], [pair.candidate_a for pair in judged], [pair.candidate_b for pair in judged]
    )


def calibrate(config: CalibrationConfig) -> float:
    """Fit the temperature and store it.

    Args:
        config: The settings.

    Returns:
        The temperature.
    """
    pairs = sample_per_source(read_preferences(config.data), config.max_pairs_per_source, config.seed)
    results = compare_pairs(Blender.from_pretrained(config.ranker, None), pairs)
    temperature = round(fit_temperature([r.logit for r in results], [p.label for p in pairs]), 4)
    path = Path(config.ranker) / "config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["logit_temperature"] = temperature
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return temperature


def main(argv: Sequence[str] | None = None) -> int:
    """Run a calibration from the command line."""
    temperature = calibrate(parse_settings(CalibrationConfig, "calibrate", calibrate.__doc__, argv))
    sys.stdout.write(f"{temperature}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
