"""What a training is told: the settings of each kind of model, checked as far as they can be alone."""

from dataclasses import dataclass, field
from typing import Any

from .small_fuser import HEAD_WIDTH, LEAST_WIDTH

Limits = dict[str, tuple[float, float]]
INFINITE = float("inf")


@dataclass
class DataSettings:
    """Which data a model is trained on and measured on, the same for all models."""

    data: list[str] = field(
        default_factory=list,
        metadata={"help": "Training data: JSONL or Parquet files, folders of `datasets`, or ids of the Hub."},
    )
    split: str | None = field(default=None, metadata={"help": "Split of data sets that have several."})
    eval_data: list[str] = field(default_factory=list, metadata={"help": "Data to measure on, in the same forms."})
    eval_split: str | None = field(default=None, metadata={"help": "Split of the data to measure on."})
    strict: bool = field(
        default=True, metadata={"help": "Stop at a record that can't be used; false counts, reports and skips them."}
    )
    leave_out: list[str] = field(default_factory=list, metadata={"help": "Sources that are not trained on."})
    languages: list[str] = field(default_factory=list, metadata={"help": "Only these languages; empty takes all."})
    limit: int | None = field(default=None, metadata={"help": "Only so many records of each file."})
    bag_share: float = field(
        default=1.0, metadata={"help": "Share of the prompts that are trained on; as a teacher it judges the others."}
    )
    bag_seed: int = field(default=0, metadata={"help": "Seed of the choice of these prompts."})

    def __post_init__(self) -> None:
        """Check what no type says."""
        check_limits(self, {"limit": (1, INFINITE)})
        if not 0 < self.bag_share <= 1:
            raise ValueError(f"bag_share={self.bag_share}; it is a share of the prompts, more than 0 and at most 1")


@dataclass
class PairSettings(DataSettings):
    """Which pairs a ranker is trained on."""

    metrics: list[str] = field(
        default_factory=list,
        metadata={"help": "Quality functions whose scores are the labels, one task each; empty takes judged pairs."},
    )
    sampling: str = field(default="all_pair", metadata={"help": "Pairs of a prompt: all_pair, random or top_bottom."})
    pairs_per_prompt: int | None = field(default=None, metadata={"help": "Most pairs of a prompt."})
    max_pairs_per_source: int | None = field(default=None, metadata={"help": "Most pairs of a source."})
    min_pairs_per_source: int = field(
        default=0, metadata={"help": "A smaller source is repeated until it has so many pairs, three times at most."}
    )
    balance_lengths: bool = field(
        default=False, metadata={"help": "Leave out pairs until the longer answer is no more often the better one."}
    )
    damaged_pairs: int = field(default=0, metadata={"help": "Self-made pairs of a good and a damaged answer."})
    damage_kinds: list[str] = field(
        default_factory=list,
        metadata={"help": "near, foreign, cut, shortened, loop, shuffled; named twice, made twice; empty makes all."},
    )
    sampling_seed: int = field(default=0, metadata={"help": "Seed of the choice of pairs."})
    max_eval_pairs_per_source: int | None = field(default=None, metadata={"help": "Most pairs of a source to measure."})

    def __post_init__(self) -> None:
        """Check what no type says."""
        super().__post_init__()
        most = ("pairs_per_prompt", "max_pairs_per_source", "max_eval_pairs_per_source")
        check_limits(self, dict.fromkeys(most, (1, INFINITE)))
        check_limits(self, dict.fromkeys(("min_pairs_per_source", "damaged_pairs"), (0, INFINITE)))


@dataclass
class LoraSettings(DataSettings):
    """Which adapters are trained instead of all weights."""

    lora_rank: int = field(default=0, metadata={"help": "Rank of LoRA adapters; 0 trains all weights."})
    lora_alpha: int = field(default=32, metadata={"help": "Scale of the adapters."})
    lora_target_modules: list[str] = field(
        default_factory=list, metadata={"help": "Layers with adapters; empty takes all linear layers."}
    )

    def __post_init__(self) -> None:
        """Check what no type says."""
        super().__post_init__()
        check_limits(self, {"lora_rank": (0, INFINITE)})


@dataclass
class RankerSettings(LoraSettings, PairSettings):
    """What a `PairRanker` is made of."""

    model: str = field(default="", metadata={"help": "An encoder, or a ranker to go on from: Hub id or folder."})
    revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the model."})
    pooling: str | None = field(default=None, metadata={"help": "What represents a part: marker or mean."})
    symmetric: bool | None = field(default=None, metadata={"help": "Whether swapping candidates negates the logit."})
    distinct_token_weight: float | None = field(
        default=None,
        metadata={"help": "A preference for the candidate that says more, besides what is learnt."},
    )
    final_distinct_token_weight: float | None = field(
        default=None, metadata={"help": "Another such preference, for the trained ranker; its temperature fits it."}
    )
    max_pair_length: int | None = field(default=None, metadata={"help": "Most tokens of a pair."})
    max_source_length: int | None = field(default=None, metadata={"help": "Most tokens of a prompt."})
    max_candidate_length: int | None = field(default=None, metadata={"help": "Most tokens of a candidate."})
    source_truncation_side: str | None = field(default=None, metadata={"help": "Which end of a prompt is cut."})
    dropout: float | None = field(default=None, metadata={"help": "Dropout of the encoder's states."})
    attention_dropout: float | None = field(default=None, metadata={"help": "Dropout of its attention."})
    interpolation: float = field(
        default=1.0, metadata={"help": "How far from the ranker that it goes on from to the trained one, 0 to 1."}
    )
    teachers: list[str] = field(
        default_factory=list, metadata={"help": "Rankers whose verdict is mixed into the labels: Hub ids or folders."}
    )
    teacher_share: float = field(default=0.5, metadata={"help": "Their share of the label of a judged pair, 0 to 1."})
    line_breaks: bool = field(
        default=False, metadata={"help": "A token for line breaks, where the encoder's tokenizer drops them."}
    )
    short_pairs: int = field(default=0, metadata={"help": "First one pass over so many of the shortest pairs."})

    def __post_init__(self) -> None:
        """Check what no type says."""
        super().__post_init__()
        lengths = ("max_pair_length", "max_source_length", "max_candidate_length")
        # A pair has three markers and what frames it, and three texts.
        check_limits(self, {"max_pair_length": (16, INFINITE), **dict.fromkeys(lengths[1:], (1, INFINITE))})
        check_limits(self, {"short_pairs": (0, INFINITE)})
        check_limits(self, dict.fromkeys(("dropout", "attention_dropout"), (0, 0.99)))
        if self.source_truncation_side not in (None, "left", "right"):
            raise ValueError(f"source_truncation_side={self.source_truncation_side!r}; use left or right")
        if not 0 < self.interpolation <= 1:
            raise ValueError(f"interpolation={self.interpolation}; it is a share of the way, more than 0 and at most 1")
        if not 0 <= self.teacher_share <= 1:
            raise ValueError(f"teacher_share={self.teacher_share}; it is a share of the label, 0 to 1")
        if self.teachers and self.metrics:
            raise ValueError("teachers give one verdict, and metrics ask for several labels; use one of the two")


@dataclass
class RewardModelSettings(PairSettings):
    """What a pointwise reward model is made of."""

    model: str = field(default="", metadata={"help": "An encoder, or a reward model to go on from."})
    revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the model."})
    max_input_length: int | None = field(
        default=None, metadata={"help": "Most tokens of a prompt with an answer; the tokenizer keeps it."}
    )
    line_breaks: bool = field(
        default=False, metadata={"help": "A token for line breaks, where the encoder's tokenizer drops them."}
    )

    def __post_init__(self) -> None:
        """Check what no type says."""
        super().__post_init__()
        check_limits(self, {"max_input_length": (8, INFINITE)})


@dataclass
class FuserSettings(LoraSettings):
    """What a `GenFuser` is made of and what it learns."""

    model: str | None = field(
        default=None, metadata={"help": "A fuser or T5, mT5 too, to go on from; none makes a small model that copies."}
    )
    revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the model."})
    tasks: list[str] = field(
        default_factory=lambda: ["merging", "selection"],
        metadata={"help": "What it learns: reference (the paper's), selection, merging."},
    )
    top_k: int = field(default=3, metadata={"help": "How many candidates it reads."})
    ranker: str | None = field(
        default=None, metadata={"help": "Whose top K it reads for the task reference; none takes scores or verdicts."}
    )
    metric: str | None = field(
        default=None, metadata={"help": "Whose scores say which are the top K; none takes `score`, else the verdicts."}
    )
    max_examples: int | None = field(default=None, metadata={"help": "Most examples of a task."})
    max_train_tokens: int | None = field(default=None, metadata={"help": "Longer examples are left out of training."})
    max_source_length: int | None = field(default=None, metadata={"help": "Most tokens of the input."})
    max_candidate_length: int | None = field(default=None, metadata={"help": "Most tokens of a candidate."})
    sampling_seed: int = field(default=0, metadata={"help": "Seed of the choice and the damage of examples."})
    vocab_size: int = field(default=8192, metadata={"help": "Vocabulary of a new model."})
    d_model: int = field(default=256, metadata={"help": "Width of a new model."})
    layers: int = field(default=3, metadata={"help": "Layers of the encoder and of the decoder of a new model."})
    max_minutes: float | None = field(default=None, metadata={"help": "Training ends after so many minutes."})

    def __post_init__(self) -> None:
        """Check what no type says."""
        super().__post_init__()
        sizes = ("top_k", "max_examples", "max_train_tokens", "max_source_length", "max_candidate_length", "layers")
        check_limits(self, dict.fromkeys(sizes, (1, INFINITE)))
        check_limits(self, {"max_minutes": (0, INFINITE), "vocab_size": (1, INFINITE)})
        if self.d_model < LEAST_WIDTH or self.d_model % HEAD_WIDTH:
            raise ValueError(f"d_model={self.d_model}; it must be a multiple of {HEAD_WIDTH}, at least {LEAST_WIDTH}")
        if self.metric is not None and self.ranker is not None:
            raise ValueError("metric and ranker both say which candidates are the best; use one of the two")
        if self.lora_rank and self.model is None:
            raise ValueError("lora_rank trains few weights of a model, and there is none to go on from; name a model")


def check_limits(settings: Any, limits: Limits) -> None:
    """Check that settings are within their limits.

    Args:
        settings: An instance of a dataclass of settings.
        limits: The least and the most of each by its name; None is within all.

    Raises:
        ValueError: If one is not.
    """
    for name, (least, most) in limits.items():
        value = getattr(settings, name)
        if value is not None and not least <= value <= most:
            bounds = f"at least {least:g}" if most == INFINITE else f"from {least:g} to {most:g}"
            raise ValueError(f"{name}={value}; it must be {bounds}")
