"""Finding, loading and saving checkpoints: bundled ones by their name, others from a folder or the Hub."""

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import PretrainedConfig, PreTrainedModel, ProcessorMixin
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from blender_hf.errors import CheckpointError, InputError, InputTypeError, chosen, first_line
from blender_hf.logs import patient_progress_bars
from blender_hf.modeling import (
    CausalGenFuser,
    FusionProcessor,
    GenFuser,
    GenFuserProcessor,
    PairRanker,
    PairRankerConfig,
    PairRankerProcessor,
)
from blender_hf.modeling.configuration_pair_ranker import TRUNCATION
from blender_hf.modeling.fast_kernels import cpu_features
from blender_hf.modeling.hub_mixins import PublishingMixin, make_portable

from .load_errors import reason_for
from .models import load_model
from .partitioning import whole_weights

DEFAULT_RANKER = "pair-ranker-mini"
DEFAULT_FUSER = "gen-fuser-mini"
AUTO_FUSER = "auto"
# A ranker over the bundled language model.
BASE_RANKER = "pair-ranker-base"
BUNDLED = (DEFAULT_RANKER, BASE_RANKER, DEFAULT_FUSER)
# SmolLM2-135M-Instruct, of which rankers and fusers can be made too.
BUNDLED_LLM = "smollm2-135m"
# Of `save_pretrained`, for whatever is saved: with them it goes up to the Hub too.
HUB_OPTIONS = ("push_to_hub", "repo_id", "token", "private", "revision", "create_pr", "commit_message")

Loaded = TypeVar("Loaded")


@dataclass(frozen=True, kw_only=True)
class HubOptions:
    """Where and how a checkpoint is looked up; the names and meanings are those of transformers."""

    revision: str | None = None
    token: str | bool | None = None
    cache_dir: str | None = None
    local_files_only: bool = False
    trust_remote_code: bool = False
    subfolder: str | None = None


DEFAULT_OPTIONS = HubOptions()


def locate(name: str | Path) -> str:
    """Return the folder of a bundled checkpoint, or the name as it is.

    A bundled name wins over a folder of that name; write `./pair-ranker-mini` for the folder.

    Raises:
        InputTypeError: If it is neither a string nor a path.
    """
    if not isinstance(name, str | os.PathLike):
        raise InputTypeError(
            f"a checkpoint is named by a string or a path, not by a {type(name).__name__}; what is loaded already goes "
            "to Blender(model, processor)"
        )
    return str(files("blender_hf") / "bundled" / name) if name in (*BUNDLED, BUNDLED_LLM) else str(name)


def load_ranker(
    name: str | Path,
    options: HubOptions = DEFAULT_OPTIONS,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    attn_implementation: str | None = None,
    base: str | Path | None = None,
    truncation: Mapping[str, int | str] | None = None,
) -> tuple[PairRanker, PairRankerProcessor]:
    """Load a ranker and its processor; for one that is an adapter, `base` is another copy of its language model."""
    given = _checked(truncation)
    running = running_options(device, dtype, attn_implementation)
    load = partial(load_model, PairRanker, base=None if base is None else locate(base))
    model, processor = load_both(name, "ranker", load, PairRankerProcessor, options, *running)
    set_truncation(model.config, processor, given)
    return model, processor


def load_fuser(
    name: str | Path,
    options: HubOptions = DEFAULT_OPTIONS,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    attn_implementation: str | None = None,
) -> tuple[GenFuser | CausalGenFuser, FusionProcessor]:
    """Load a fuser, of either kind, and its processor; everything is as in `load_ranker`."""
    running = running_options(device, dtype, attn_implementation)
    return load_both(name, "fuser", partial(load_model, GenFuser), GenFuserProcessor, options, *running)


def save_portable(model: PreTrainedModel, processor: ProcessorMixin, output: str | Path, **options: Any) -> None:
    """Save a model as safetensors, and everything that is needed to load it on either transformers."""
    if isinstance(model, PublishingMixin):
        model.save_pretrained(output, processor=processor, **options)
        return
    model.save_pretrained(output, **options)
    processor.save_pretrained(output, **{name: options[name] for name in HUB_OPTIONS if name in options})
    make_portable(output)


def fuser_of(
    config: PretrainedConfig | None, fuser: str | Path, revision: str | None = None
) -> tuple[str | Path, str | None]:
    """Return which fuser is meant, and its revision.

    "auto" is the one that the ranker's configuration names, by default with its revision, else the bundled one.
    """
    if fuser != AUTO_FUSER:
        return fuser, revision
    if not isinstance(config, PairRankerConfig) or config.fuser is None:
        return DEFAULT_FUSER, revision
    return config.fuser, revision or config.fuser_revision


def pick_device(device: str | torch.device | None) -> torch.device:
    """Return the requested device, or the best there is; raises InputError if it can't be used here."""
    if device is None:
        names = ("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available()), ("cpu", True)
        return torch.device(next(name for name, available in names if available))
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InputError(f"the device {device!r} can't be used here: {first_line(error)}; try 'cpu'") from None
    return chosen


def pick_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """Return the requested precision, float32 by default; "auto" is bfloat16 where the device has it in hardware."""
    if dtype == "auto":
        return torch.bfloat16 if has_bfloat16(device) else torch.float32
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype or torch.float32
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise InputError(f"unknown dtype {dtype!r}; use auto, float32, bfloat16 or float16")
    return found


def pick_attention(attn_implementation: str | None) -> dict[str, str]:
    """Return the option of `from_pretrained` that chooses how attention is computed; none leaves it to transformers.

    Raises:
        InputError: If transformers has no such implementation.
    """
    if attn_implementation is None:
        return {}
    known = ["eager", *(name for name in ALL_ATTENTION_FUNCTIONS.valid_keys() if "paged" not in name)]
    chosen(dict.fromkeys(known), attn_implementation, "attn_implementation")
    return {"attn_implementation": attn_implementation}


def set_truncation(
    config: PairRankerConfig, processor: PairRankerProcessor, truncation: Mapping[str, int | str] | None
) -> None:
    """Set a processor's truncation, and state it in the configuration too.

    Every way of loading a ranker passes here, so here the two are checked against each other.
    """
    given = _checked(truncation)
    before = {setting: getattr(processor, setting) for setting in TRUNCATION}
    try:
        processor.set_truncation(**given)
        check_processor(config, processor, lengths=not given)
        processor.check_lengths(config)
    except ValueError as error:
        processor.set_truncation(**before)
        raise InputError(f"truncation: {error}") from None
    # The processor's settings are those that work; what is saved should say the same twice.
    for setting in TRUNCATION:
        setattr(config, setting, getattr(processor, setting))


def leave_out_length(config: PretrainedConfig | None, name: object) -> None:
    """Take the stated preference for more distinct tokens out of a ranker that was loaded for the caller.

    Raises:
        InputError: If it has none; what a ranker learnt of length can't be taken out.
    """
    if not getattr(config, "distinct_token_weight", 0.0):
        raise InputError(
            f"length_neutral=True leaves out the term that a ranker states for length, and {str(name)!r} has none "
            "(distinct_token_weight); remove length_neutral"
        )
    config.distinct_token_weight = 0.0  # type: ignore[union-attr]  # with a weight there is a configuration


def check_processor(config: PairRankerConfig, processor: PairRankerProcessor, *, lengths: bool = True) -> None:
    """Raise CheckpointError unless a processor is the ranker's and, with `lengths`, makes no pair too long for it."""
    try:
        processor.check_tokens(config)
        if lengths:
            processor.check_lengths(config)
    except ValueError as error:
        raise CheckpointError(f"the ranker and its processor do not fit: {error}") from None


def hub_settings(options: HubOptions) -> dict[str, Any]:
    """Return the options that are set, for `from_pretrained`."""
    return {key: value for key, value in asdict(options).items() if value is not None}


def explained(load: Callable[[], Loaded], name: str | Path, role: str, options: HubOptions | None = None) -> Loaded:
    """Call what loads a part of a checkpoint, and turn any of its errors into a CheckpointError of one line.

    With `options`, how the checkpoint `name` is looked up, its files are examined for what is wrong.
    """
    try:
        with patient_progress_bars():
            return load()
    # Loading calls into four libraries, each with errors of its own; the user needs one line in every case.
    except Exception as error:
        reason = None if options is None else _reason(error, name, options)
        raise CheckpointError(
            f"can't load the {role} {str(name)!r}: {reason or first_line(error)} "
            f"(give a folder, a Hub id that can be reached, or one of the bundled {', '.join(BUNDLED)})"
        ) from error


def has_bfloat16(device: torch.device) -> bool:
    """Return whether a device multiplies in bfloat16 in hardware; where it does not, it is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    known = cpu_features() if device.type == "cpu" else {}
    return bool(known.get("avx512_bf16") or known.get("amx_bf16") or known.get("bf16"))


def _reason(error: Exception, name: str | Path, options: HubOptions) -> str | None:
    place = {"revision": options.revision, "cache_dir": options.cache_dir, "subfolder": options.subfolder}
    return reason_for(error, locate(name), **place)


def _checked(truncation: Mapping[str, int | str] | None) -> dict[str, Any]:
    if truncation is None:
        return {}
    if not isinstance(truncation, Mapping):
        raise InputTypeError(f"truncation must be a mapping of settings to values, not {type(truncation).__name__}")
    unknown = [str(name) for name in truncation if name not in TRUNCATION]
    if unknown:
        raise InputError(f"truncation has no setting {', '.join(unknown)}; use {', '.join(TRUNCATION)}")
    return dict(truncation)


def running_options(
    device: str | torch.device | None, dtype: str | torch.dtype | None, attn_implementation: str | None
) -> tuple[torch.device, dict[str, Any]]:
    """Return the device, and the options of `from_pretrained` that say how a model runs."""
    chosen_device = pick_device(device)
    return chosen_device, {"dtype": pick_dtype(dtype, chosen_device), **pick_attention(attn_implementation)}


def load_both(
    name: str | Path,
    role: str,
    load: Callable[..., Any],
    processor_class: Callable[..., Any],
    options: HubOptions,
    device: torch.device,
    running: Mapping[str, Any],
) -> tuple[Any, Any]:
    """Load a model, in evaluation mode and on its device, and its processor."""
    where = locate(name)
    found = hub_settings(options)
    processor = explained(lambda: processor_class.from_pretrained(where, **found), name, role, options)  # type: ignore[attr-defined]
    with whole_weights():
        model = explained(
            lambda: load(where, **running, **found),
            name,
            role,
            options,
        )
    return model.eval().to(device), processor
