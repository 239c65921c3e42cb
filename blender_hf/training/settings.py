"""What a training is told: typed settings from a YAML file, with `transformers.HfArgumentParser`."""

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from transformers import HfArgumentParser, TrainingArguments

from blender_hf.checkpoints import has_bfloat16
from blender_hf.errors import InputError

from .small_fuser import HEAD_WIDTH, LEAST_WIDTH

Limits = dict[str, tuple[float, float]]
INFINITE = float("inf")
# What transformers finds out when the training has begun.
TRAINER_LIMITS: Limits = {
    "learning_rate": (0, INFINITE),
    "per_device_train_batch_size": (1, INFINITE),
    "per_device_eval_batch_size": (1, INFINITE),
    "gradient_accumulation_steps": (1, INFINITE),
    "label_smoothing_factor": (0, 0.99),
}
# A name of transformers 4, and that of 5, where a number of steps below 1 is a share of them.
RENAMED = {"warmup_ratio": "warmup_steps"}


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
        _check_limits(self, {"limit": (1, INFINITE)})
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
        default_factory=list, metadata={"help": "near, foreign, cut, shortened, loop, shuffled; empty makes all."}
    )
    sampling_seed: int = field(default=0, metadata={"help": "Seed of the choice of pairs."})
    max_eval_pairs_per_source: int | None = field(default=None, metadata={"help": "Most pairs of a source to measure."})

    def __post_init__(self) -> None:
        """Check what no type says."""
        super().__post_init__()
        most = ("pairs_per_prompt", "max_pairs_per_source", "max_eval_pairs_per_source")
        _check_limits(self, dict.fromkeys(most, (1, INFINITE)))
        _check_limits(self, dict.fromkeys(("min_pairs_per_source", "damaged_pairs"), (0, INFINITE)))


@dataclass
class RankerSettings(PairSettings):
    """What a `PairRanker` is made of."""

    model: str = field(default="", metadata={"help": "An encoder, or a ranker to go on from: Hub id or folder."})
    revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the model."})
    pooling: str | None = field(default=None, metadata={"help": "What represents a part: marker or mean."})
    symmetric: bool | None = field(default=None, metadata={"help": "Whether swapping candidates negates the logit."})
    distinct_token_weight: float | None = field(
        default=None,
        metadata={"help": "A preference for the candidate that says more, besides what is learnt."},
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
    short_pairs: int = field(default=0, metadata={"help": "First one pass over so many of the shortest pairs."})
    lora_rank: int = field(default=0, metadata={"help": "Rank of LoRA adapters; 0 trains all weights."})
    lora_alpha: int = field(default=32, metadata={"help": "Scale of the adapters."})
    lora_target_modules: list[str] = field(
        default_factory=list, metadata={"help": "Layers with adapters; empty takes all linear layers."}
    )

    def __post_init__(self) -> None:
        """Check what no type says."""
        super().__post_init__()
        lengths = ("max_pair_length", "max_source_length", "max_candidate_length")
        # A pair has three markers and what frames it, and three texts.
        _check_limits(self, {"max_pair_length": (16, INFINITE), **dict.fromkeys(lengths[1:], (1, INFINITE))})
        _check_limits(self, dict.fromkeys(("lora_rank", "short_pairs"), (0, INFINITE)))
        _check_limits(self, dict.fromkeys(("dropout", "attention_dropout"), (0, 0.99)))
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

    def __post_init__(self) -> None:
        """Check what no type says."""
        super().__post_init__()
        _check_limits(self, {"max_input_length": (8, INFINITE)})


@dataclass
class FuserSettings(DataSettings):
    """What a `GenFuser` is made of and what it learns."""

    model: str | None = field(
        default=None, metadata={"help": "A fuser or T5 to go on from; none makes a small model that copies."}
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
        _check_limits(self, dict.fromkeys(sizes, (1, INFINITE)))
        _check_limits(self, {"max_minutes": (0, INFINITE), "vocab_size": (1, INFINITE)})
        if self.d_model < LEAST_WIDTH or self.d_model % HEAD_WIDTH:
            raise ValueError(f"d_model={self.d_model}; it must be a multiple of {HEAD_WIDTH}, at least {LEAST_WIDTH}")
        if self.metric is not None and self.ranker is not None:
            raise ValueError("metric and ranker both say which candidates are the best; use one of the two")


def read_settings(
    path: str | Path, kinds: Sequence[type], overrides: Sequence[str] = ()
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Read a YAML file whose keys are the fields of several dataclasses together.

    Args:
        path: The file.
        kinds: The dataclasses; one is a `transformers.TrainingArguments`.
        overrides: `KEY=VALUE` texts that overrule the file.

    Returns:
        One instance a class, and the mapping that they were made from.

    Raises:
        InputError: If the file can't be read, a key is unknown or given twice, or a value has the wrong type.
    """
    given = {**_read_yaml(path), **dict(_override(text) for text in overrides)}
    known = {f.name for kind in kinds for f in fields(kind) if f.init}
    given = {key if key in known else RENAMED.get(key, key): value for key, value in given.items()}
    _check_keys(given, known, kinds, path)
    given = {key: _as_text(key, value) for key, value in given.items()}
    argv = [
        part
        for key, value in {**_own_defaults(), **given}.items()
        if value is not None
        for part in _arguments(key, value)
    ]
    complaints = io.StringIO()
    parser = HfArgumentParser(kinds, allow_abbrev=False)
    try:
        # argparse writes what is wrong to stderr and leaves; here it becomes an error of ours.
        with contextlib.redirect_stderr(complaints):
            made = tuple(parser.parse_args_into_dataclasses(argv))
        for kind in made:
            if isinstance(kind, TrainingArguments):
                _check_limits(kind, TRAINER_LIMITS)
        return made, given
    except SystemExit:
        reason = complaints.getvalue().strip().rpartition("error: ")[2]
        raise InputError(f"{path}: {reason}") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


def _check_limits(settings: Any, limits: Limits) -> None:
    for name, (least, most) in limits.items():
        value = getattr(settings, name)
        if value is not None and not least <= value <= most:
            bounds = f"at least {least:g}" if most == INFINITE else f"from {least:g} to {most:g}"
            raise ValueError(f"{name}={value}; it must be {bounds}")


def _as_text(key: str, value: Any) -> Any:
    """Return the name of a strategy, or of Norwegian: to YAML a bare `no` is a truth value."""
    if key == "languages" and value is not None:
        return ["no" if item is False else item for item in (value if isinstance(value, list) else [value])]
    return "no" if value is False and key.endswith("_strategy") else value


def _own_defaults() -> dict[str, Any]:
    """Return what the trainer's arguments are here where nothing is said."""
    # Without a GPU transformers 4 takes bf16 for a wish for one, and reports to every service that is installed.
    defaults = {"use_cpu": not torch.accelerator.is_available(), "report_to": "none"}
    # TRL trains in bf16 where nothing is said; emulated, a step takes ten times as long.
    return defaults if has_bfloat16(_device()) else {**defaults, "bf16": False}


def _device() -> torch.device:
    return torch.accelerator.current_accelerator() or torch.device("cpu")


def _read_yaml(path: str | Path) -> dict[str, Any]:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"can't read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not valid YAML: {error}") from None
    value = _decoded(text, str(path))
    if not isinstance(value, Mapping):
        raise InputError(f'{path}: expected settings, one "key: value" a line')
    return {str(key): item for key, item in value.items()}


def _decoded(text: str, where: str) -> Any:
    import yaml

    try:
        found = yaml.safe_load(text)
        _check_each_key_once(yaml.compose(text, Loader=yaml.SafeLoader), where)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from None
    return found


def _check_each_key_once(node: Any, where: str) -> None:
    """Refuse a key that is given twice: YAML would take the last, and say nothing."""
    if getattr(node, "id", None) != "mapping":
        return
    seen: set[str] = set()
    for key, value in node.value:
        if key.value in seen:
            raise InputError(f"{where}: the setting {key.value!r} is given twice; keep one")
        seen.add(key.value)
        _check_each_key_once(value, where)


def _override(text: str) -> tuple[str, Any]:
    key, found, value = text.partition("=")
    if not found:
        raise InputError(f"{text!r} is no setting; give KEY=VALUE")
    return key.strip(), _decoded(value, repr(text))


def _check_keys(given: Mapping[str, Any], known: set[str], kinds: Sequence[type], path: str | Path) -> None:
    for key in given:
        if key not in known:
            own = sorted({f.name for kind in kinds if not issubclass(kind, TrainingArguments) for f in fields(kind)})
            raise InputError(
                f"{path}: there is no setting {key!r}; there are {', '.join(own)}, and those of transformers' "
                "TrainingArguments"
            )


def _arguments(key: str, value: Any) -> list[str]:
    if isinstance(value, list | tuple):
        return [f"--{key}", *map(str, value)] if value else []
    if isinstance(value, Mapping):
        return [f"--{key}", json.dumps(value)]
    # One argument: a value that begins with a dash is none of its own.
    return [f"--{key}={value}"]
