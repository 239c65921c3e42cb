"""The settings of a label job, and which of them its rows depend on."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from blender_hf import __version__
from blender_hf.blender import DEFAULT_WINDOW, Blender
from blender_hf.data.sources import digest
from blender_hf.engine.aggregation import AGGREGATIONS
from blender_hf.engine.rankers import OwnRanker
from blender_hf.engine.results import Ranking
from blender_hf.engine.schedules import Schedule
from blender_hf.errors import InputError, chosen
from blender_hf.inputs import Item
from blender_hf.loading.checkpoints import DEFAULT_RANKER, locate

from .filters import Filters
from .formats import FORMATS, PAIRS, OutputFormat

# Prompts of a part: at most this many are done again after a kill.
DEFAULT_PART_SIZE = 64
# Files that a ranker's logits depend on.
WEIGHTS = (".safetensors", ".bin", ".onnx", ".data", ".json")
# Loading arguments that change where and how fast a ranker runs, not its logits.
RUNNING = ("device", "device_map", "max_batch_tokens", "local_files_only", "trust_remote_code", "token", "cache_dir")
# Settings of a judge that change what it may cost, not its logits.
JUDGE_RUNNING = ("cache", "max_comparisons")


@dataclass(frozen=True)
class RankingSettings:
    """Which ranker, and how it ranks: see `Blender.iter_rank`."""

    loading: Mapping[str, Any] = field(default_factory=dict)  # arguments of `Blender.from_pretrained` for the ranker
    schedule: Schedule = field(default_factory=Schedule)  # which pairs are compared
    aggregation: str = "max_logits"  # how comparisons become scores
    window: int = DEFAULT_WINDOW  # how many prompts are worked on together

    def __post_init__(self) -> None:
        chosen(AGGREGATIONS, self.aggregation, "aggregation")

    @property
    def ranker(self) -> str:
        """Name or folder of the ranker; of an object that ranks by itself its `name`, or that of its class."""
        ranker = self.loading.get("ranker", DEFAULT_RANKER)
        return str(getattr(ranker, "name", type(ranker).__qualname__) if isinstance(ranker, OwnRanker) else ranker)

    def load(self) -> Blender:
        """Load the ranker where it works."""
        return Blender.from_pretrained(**self.loading, fuser=None)

    def rank(self, blender: Blender, items: Sequence[Item]) -> list[Ranking]:
        """Rank the candidates of every item; results depend on these items alone."""
        ranked = blender.iter_rank(items, schedule=self.schedule, aggregation=self.aggregation, window=self.window)
        return list(ranked)


@dataclass(frozen=True)
class Shard:
    """A share of the records: shard i of n has every n-th record, from the i-th; the first is number 1."""

    number: int = 1
    of: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise InputError(
                f"there is no shard {self.number} of {self.of}; the first of n shards is 1/n, the last n/n"
            )

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


@dataclass(frozen=True)
class LabelSettings:
    """What is made of records.

    Args:
        ranking: Which ranker, and how it ranks.
        form: Name of the output format, one of `formats.FORMATS`.
        pairs: Which pairs become rows of DPO, one of `formats.PAIRS`.
        max_candidates: How many of the best candidates a prompt of SFT has at most.
        seed: Random seed.
        filters: Which rows are kept.
        conversational: Whether prompts and completions are chat messages; None does as the first record does.
        skip_bad: Whether records that can't be used are logged and skipped; otherwise the job stops at them.
        shard: Which share of the records.
        limit: Only the first records of the source; None takes all.
        part_size: Records that are kept together: at most this many are done again after a kill.

    Raises:
        InputError: If a name does not exist or a number is out of range.
    """

    ranking: RankingSettings = field(default_factory=RankingSettings)
    form: str = "dpo"
    pairs: str = "best-worst"
    max_candidates: int = 3
    seed: int = 0
    filters: Filters = field(default_factory=Filters)
    conversational: bool | None = None
    skip_bad: bool = False
    shard: Shard = field(default_factory=Shard)
    limit: int | None = None
    part_size: int = DEFAULT_PART_SIZE

    def __post_init__(self) -> None:
        chosen(FORMATS, self.form, "format")
        chosen(PAIRS, self.pairs, "choice of pairs")
        if self.max_candidates < 1:
            raise InputError(f"max_candidates={self.max_candidates}; a fuser reads 1 candidate or more")
        if self.part_size < 1:
            raise InputError(f"part_size={self.part_size}; a part has 1 record or more")
        if self.filters.drop_flips and self.ranking.schedule.orders == "one":
            raise InputError("--drop-flips needs both presentation orders; remove --orders one")

    @property
    def output_format(self) -> OutputFormat:
        """The output format."""
        return FORMATS[self.form]

    def fingerprint(self, source: Mapping[str, Any]) -> dict[str, Any]:
        """Return all that the rows depend on, as JSON holds it, given the identity of the source.

        Where and how fast the work is done does not count: a job may resume on another device, with other batches, or
        on a cluster.
        """
        loading = {name: value for name, value in self.ranking.loading.items() if name not in RUNNING}
        if (judge := loading.get("judge")) is not None:
            stated = judge if isinstance(judge, Mapping) else vars(judge)
            loading["judge"] = {name: value for name, value in stated.items() if name not in JUDGE_RUNNING}
        return {
            "version": __version__,
            **{f"input {name}": value for name, value in source.items()},
            **{name: value for name, value in loading.items() if value is not None},
            **({"ranker": self.ranking.ranker} if "ranker" in loading else {}),
            "weights": weights_digest(self.ranking.ranker),
            "aggregation": self.ranking.aggregation,
            "schedule": self.ranking.schedule.name,
            "top_k": self.ranking.schedule.top_k,
            "orders": self.ranking.schedule.orders,
            "format": self.form,
            "pairs": self.pairs,
            **({"max_candidates": self.max_candidates} if self.form == "sft" else {}),
            "seed": self.seed,
            **asdict(self.filters),
            "conversational": self.conversational,
            "shard": str(self.shard),
            "limit": self.limit,
            "part_size": self.part_size,
        }


def weights_digest(name: str | Path) -> str | None:
    """Return a digest of a ranker in a folder; None if it is on the Hub, where its revision identifies it."""
    folder = Path(locate(name))
    return digest(folder, suffixes=WEIGHTS) if folder.is_dir() else None
