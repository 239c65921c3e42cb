"""Which prompts a model is trained on, where it is not all: the others are those on which its verdict is honest."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from .runs import RUN_FILE


@dataclass(frozen=True)
class Bag:
    """A share of the prompts, the same in every run and on every machine.

    Args:
        share: Of all prompts, 0 to 1.
        seed: Bags of other seeds hold other prompts.
    """

    share: float = 1.0
    seed: int = 0

    def __contains__(self, prompt: str) -> bool:
        """Tell whether the text of a prompt is in the bag."""
        if self.share >= 1:
            return True
        digest = hashlib.sha256(f"{self.seed}:{prompt}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < self.share * 2**64


def bag_of_run(folder: str | Path) -> Bag | None:
    """Return what a run trained on, as it wrote it down; None for a checkpoint that is no run, or that had all."""
    path = Path(folder) / RUN_FILE
    if not path.is_file():
        return None
    settings = json.loads(path.read_text(encoding="utf-8"))["settings"]
    bag = Bag(settings.get("bag_share", 1.0), settings.get("bag_seed", 0))
    return bag if bag.share < 1 else None
