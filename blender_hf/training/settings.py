"""The settings of a training run of each kind of model, checked as far as they can be alone."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from transformers import TrainingArguments

from blender_hf.loading.checkpoints import pick_attention
from blender_hf.modeling.configuration_pair_ranker import CANDIDATE_ENCODINGS, LAYOUTS

Limits = dict[str, tuple[float, float]]
INFINITE = float("inf")
# Of the attention heads of a new fuser, and its smallest width: what `copying_init` reads, writes and passes on.
HEAD_WIDTH = 64
MIN_D_MODEL = 3 * HEAD_WIDTH
LIMITS: Limits = {
    **dict.fromkeys(("limit", "pairs_per_prompt", "max_pairs_per_source", "max_eval_pairs_per_source"), (1, INFINITE)),
    **dict.fromkeys(("top_k", "max_examples", "max_train_tokens", "vocab_size", "layers"), (1, INFINITE)),
    **dict.fromkeys(("max_source_length", "max_candidate_length"), (1, INFINITE)),
    **dict.fromkeys(("min_pairs_per_source", "synthetic_negatives", "lora_rank", "short_pairs"), (0, INFINITE)),
    "preference_dim": (0, INFINITE),
    "frozen_layers": (-1, INFINITE),
    **dict.fromkeys(("dropout", "attention_dropout"), (0, 0.99)),
    "max_pair_length": (16, INFINITE),  # a pair has three markers and what frames it, and three texts
    "max_input_length": (8, INFINITE),
    "max_minutes": (0, INFINITE),
    "teacher_share": (0, 1),
}
TEACHER_PAIRS = ("judged", "all")
# Our settings by their former names, which configurations and the records of runs may still have.
RENAMED = {
    "bag_share": "train_fraction",
    "bag_seed": "train_fraction_seed",
    "damaged_pairs": "synthetic_negatives",
    "damage_kinds": "corruptions",
}
# Arguments that releases of transformers call differently, the name to prefer first; each takes those that it knows.
TRAINER_ALIASES = (
    ("activation_checkpointing", "gradient_checkpointing"),
    ("activation_checkpointing_kwargs", "gradient_checkpointing_kwargs"),
)
# Names of transformers 4 that 5 lacks; its number of steps, where it is below 1, is a share of all.
TRAINER_REPLACED = {"warmup_ratio": "warmup_steps"}


def setting(default: Any, help: str) -> Any:
    """Return a field of a dataclass with its help text; a list as default is copied."""
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata={"help": help})
    return field(default=default, metadata={"help": help})


@dataclass
class DataSettings:
    """Which data a model is trained and evaluated on, the same for all models."""

    data: list[str] = setting([], "Training data: JSONL or Parquet files, folders of `datasets`, or ids of the Hub.")
    split: str | None = setting(None, "Split of datasets that have several.")
    eval_data: list[str] = setting([], "Data to evaluate on, in the same forms.")
    eval_split: str | None = setting(None, "Split of the eval data.")
    columns: list[str] = setting([], "Columns whose names say nothing: prompt=frage, candidates=gpt,llama.")
    strict: bool = setting(True, "Stop at a record that can't be used; false counts, reports and skips them.")
    leave_out: list[str] = setting([], "Sources to exclude from training.")
    languages: list[str] = setting([], "Only these languages; empty takes all.")
    limit: int | None = setting(None, "At most so many records of each file.")
    train_fraction: float = setting(1.0, "Fraction of the prompts; a teacher is asked about the others.")
    train_fraction_seed: int = setting(0, "Random seed of the choice of these prompts.")

    def __post_init__(self) -> None:
        """Check what no type says."""
        check_limits(self, LIMITS)
        pick_attention(getattr(self, "attn_implementation", None))
        _check_fraction(self, "train_fraction")


@dataclass
class PairSettings(DataSettings):
    """Which pairs a ranker is trained on."""

    metrics: list[str] = setting([], "Scores that are the labels, one task each; empty takes judged pairs.")
    sampling: str = setting("all_pair", "Pairs of a prompt: all_pair, random or top_bottom.")
    pairs_per_prompt: int | None = setting(None, "Maximum number of pairs of a prompt.")
    max_pairs_per_source: int | None = setting(None, "Maximum number of pairs of a source.")
    min_pairs_per_source: int = setting(0, "A smaller source is repeated, three times at most.")
    balance_lengths: bool = setting(False, "Leave out pairs until the longer answer is better as often as the shorter.")
    synthetic_negatives: int = setting(0, "Number of synthetic pairs of a good and a corrupted answer.")
    corruptions: list[str] = setting(
        [], "Kinds of them; one that is named twice is made twice as often; empty: six of them."
    )
    sampling_seed: int = setting(0, "Random seed of the choice of pairs.")
    max_eval_pairs_per_source: int | None = setting(None, "The same for evaluation.")


@dataclass
class LoraSettings(DataSettings):
    """Which adapters are trained instead of all weights."""

    lora_rank: int = setting(0, "Rank of LoRA adapters; 0 trains all weights.")
    lora_alpha: int = setting(32, "Scale of the adapters.")
    lora_target_modules: list[str] = setting([], "Layers with adapters; empty takes all linear layers.")


@dataclass
class RankerSettings(LoraSettings, PairSettings):
    """How a `PairRanker` is built and trained."""

    model: str = setting("", "An encoder, or a ranker to go on from: Hub id or folder.")
    revision: str | None = setting(None, "Branch, tag or commit of the model.")
    attn_implementation: str | None = setting(None, "Attention: eager, sdpa, flash_attention_2, ...")
    candidate_encoding: str | None = setting(None, "How they are read: joint, or separate, a batch of prompts then.")
    shared_prompt: bool | None = setting(None, "Separate: whether an encoder reads the prompt apart from candidates.")
    preference_dim: int | None = setting(
        None, "Separate: coordinates of a candidate besides its score; an even number."
    )
    layout: str | None = setting(None, "Separate: rows by markers, or by the chat template of a chat model (chat).")
    pooling: str | None = setting(None, "What represents a part: marker, mean or last; of a decoder, last.")
    symmetric: bool | None = setting(None, "Whether swapping candidates negates the logit.")
    distinct_token_weight: float | None = setting(None, "A stated preference for more distinct tokens.")
    final_distinct_token_weight: float | None = setting(None, "The same for the finished ranker.")
    max_pair_length: int | None = setting(None, "Maximum tokens of a pair.")
    max_source_length: int | None = setting(None, "Maximum tokens of a prompt.")
    max_candidate_length: int | None = setting(None, "Maximum tokens of a candidate.")
    source_truncation_side: str | None = setting(None, "Which end of a prompt is cut: left or right.")
    dropout: float | None = setting(None, "Dropout of the encoder's states.")
    attention_dropout: float | None = setting(None, "Dropout of its attention.")
    frozen_layers: int = setting(0, "Separate: lower layers that are not trained, run once; -1: the whole encoder.")
    interpolation: float = setting(1.0, "Position between the initial weights (0) and the trained ones (1): WiSE-FT.")
    teachers: list[str] = setting([], "Rankers whose probabilities are mixed into the labels: Hub ids or folders.")
    teacher_share: float = setting(0.5, "Their weight in the label of a judged pair, 0 to 1.")
    teacher_pairs: str = setting("judged", "Pairs of a prompt they are asked about: judged, or all, unjudged too.")
    line_breaks: bool = setting(False, "A token for line breaks, where the encoder's tokenizer drops them.")
    short_pairs: int = setting(0, "First one epoch on so many of the shortest pairs.")

    def __post_init__(self) -> None:
        """Check what no type says."""
        super().__post_init__()
        if self.source_truncation_side not in (None, "left", "right"):
            raise ValueError(f"source_truncation_side={self.source_truncation_side!r}; use left or right")
        if self.candidate_encoding not in (None, *CANDIDATE_ENCODINGS):
            known = " or ".join(CANDIDATE_ENCODINGS)
            raise ValueError(f"candidate_encoding={self.candidate_encoding!r}; use {known}")
        if self.layout not in (None, *LAYOUTS):
            raise ValueError(f"layout={self.layout!r}; use {' or '.join(LAYOUTS)}")
        _check_fraction(self, "interpolation")
        if self.frozen_layers == -1 and self.lora_rank:
            raise ValueError("frozen_layers=-1 freezes the whole encoder, and leaves lora_rank nothing to adapt")
        if self.teacher_pairs not in TEACHER_PAIRS:
            raise ValueError(f"teacher_pairs={self.teacher_pairs!r}; use {' or '.join(TEACHER_PAIRS)}")
        if self.teacher_pairs == "all" and not self.teachers:
            raise ValueError("teacher_pairs=all asks teachers about unjudged pairs, and there are none; name teachers")
        if self.teachers and self.metrics:
            raise ValueError("teachers give one label, and metrics ask for several; use one of the two")


@dataclass
class RewardModelSettings(PairSettings):
    """How a pointwise reward model is built and trained."""

    model: str = setting("", "An encoder, or a reward model to go on from.")
    revision: str | None = setting(None, "Branch, tag or commit of the model.")
    attn_implementation: str | None = setting(None, "Attention: eager, sdpa, flash_attention_2, ...")
    max_input_length: int | None = setting(None, "Maximum tokens of a prompt with an answer; stored in the tokenizer.")
    line_breaks: bool = setting(False, "A token for line breaks, where the encoder's tokenizer drops them.")


@dataclass
class FuserSettings(LoraSettings):
    """How a `GenFuser` is built and what it learns."""

    model: str | None = setting(None, "A fuser, T5 or causal language model to go on from; none makes a small T5.")
    revision: str | None = setting(None, "Branch, tag or commit of the model.")
    attn_implementation: str | None = setting(None, "Attention: eager, sdpa, flash_attention_2, ...")
    tasks: list[str] = setting(["merging", "selection"], "What it learns: reference (the paper's), selection, merging.")
    top_k: int = setting(3, "How many candidates it reads.")
    ranker: str | None = setting(None, "Whose top K it reads for the task reference; none uses scores or verdicts.")
    metric: str | None = setting(None, "The scores that define the top K; none uses `score`, else the verdicts.")
    max_examples: int | None = setting(None, "Maximum number of examples of a task.")
    max_train_tokens: int | None = setting(None, "Longer examples are skipped.")
    max_source_length: int | None = setting(None, "Maximum tokens of the input.")
    max_candidate_length: int | None = setting(None, "Maximum tokens of a candidate.")
    sampling_seed: int = setting(0, "Random seed of the choice and corruption of examples.")
    vocab_size: int = setting(8192, "Vocabulary of a new model.")
    d_model: int = setting(256, "Width of a new model.")
    layers: int = setting(3, "Layers of the encoder and of the decoder of a new model.")
    max_minutes: float | None = setting(None, "Training ends after so many minutes.")

    def __post_init__(self) -> None:
        """Check what no type says."""
        super().__post_init__()
        if self.d_model < MIN_D_MODEL or self.d_model % HEAD_WIDTH:
            raise ValueError(f"d_model={self.d_model}; it must be a multiple of {HEAD_WIDTH}, at least {MIN_D_MODEL}")
        if self.metric is not None and self.ranker is not None:
            raise ValueError("metric and ranker both say which candidates are the best; use one of the two")
        if self.lora_rank and self.model is None:
            raise ValueError("lora_rank trains few weights of a model, and there is none to go on from; name a model")


def check_limits(settings: Any, limits: Limits) -> None:
    """Raise `ValueError` if a setting is outside its limits, lowest and highest; one that is None or absent is not."""
    for name, (lowest, highest) in limits.items():
        value = getattr(settings, name, None)
        if value is not None and not lowest <= value <= highest:
            bounds = f"at least {lowest:g}" if highest == INFINITE else f"from {lowest:g} to {highest:g}"
            raise ValueError(f"{name}={value}; it must be {bounds}")


def _check_fraction(settings: Any, name: str) -> None:
    if not 0 < getattr(settings, name) <= 1:
        raise ValueError(f"{name}={getattr(settings, name)}; it must be above 0 and at most 1")


def renamed(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings under their present names, those of the trainer as this release of transformers calls them.

    >>> renamed({"bag_share": 0.5, "seed": 1})
    {'train_fraction': 0.5, 'seed': 1}

    >>> renamed({"bag_share": 0.5, "seed": 1})
    {'train_fraction': 0.5, 'seed': 1}

    Raises:
        ValueError: If a setting is given under two names.
    """
    known = {f.name for f in fields(TrainingArguments)}
    names = {**RENAMED, **{old: new for old, new in TRAINER_REPLACED.items() if old not in known}}
    for aliases in TRAINER_ALIASES:
        names |= dict.fromkeys(aliases, next(name for name in aliases if name in known))
    found: dict[str, Any] = {}
    for key, value in given.items():
        name = names.get(key, key)
        if name in found:
            raise ValueError(f"the setting {name!r} is given twice, under two names; keep one")
        found[name] = value
    return found
