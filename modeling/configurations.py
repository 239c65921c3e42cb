"""Configurations read alike on transformers 4 and 5, whichever of them wrote the file.

transformers 5 writes some settings under names that 4 silently ignores, and the other way round. They are translated
here, for every configuration that is loaded. What the running version can't express is a ValueError.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from inspect import signature
from typing import Any

import transformers
from packaging.version import Version
from transformers import AutoConfig, PretrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

MAJOR_VERSION = Version(transformers.__version__).major
# Where transformers 4 keeps the base of the rotation of each kind of layer, by `model_type`.
ROPE_BASES = {
    "modernbert": {"full_attention": "global_rope_theta", "sliding_attention": "local_rope_theta"},
    "modernbert-decoder": {"full_attention": "rope_theta", "sliding_attention": "rope_theta"},
    "gemma3_text": {"full_attention": "rope_theta", "sliding_attention": "rope_local_base_freq"},
    "gemma3n_text": {"full_attention": "rope_theta", "sliding_attention": "rope_local_base_freq"},
    "olmo3": {"full_attention": "rope_theta", "sliding_attention": "rope_theta"},
}
# Of those, the ones whose full attention `rope_scaling` of transformers 4 scales.
SCALED_FULL_ATTENTION = ("gemma3_text", "gemma3n_text", "olmo3")
# Settings of transformers 5 that 4 does not have, and the value at which it does the same.
UNKNOWN_TO_4: dict[str, Any] = {"is_causal": True, "use_bidirectional_attention": False}
# The same the other way round.
UNKNOWN_TO_5: dict[str, Any] = {"position_embedding_type": "absolute", "untie_r": True}
# What files of transformers 4 call the bases of the rotation.
BASES_OF_4 = ("rope_theta", "rotary_emb_base", "global_rope_theta", "local_rope_theta", "rope_local_base_freq")
# Settings that transformers 5 writes under another name than 4 reads.
RENAMED_BY_5 = {"num_local_experts": "num_experts"}
# Ways to compute attention that leave out a part of it or count it twice, and the one to use in their place, by what a
# configuration states: a softcapping of the scores; scores divided by the number of the layer, or by nothing (GPT-2);
# ALiBi of Falcon.
INEXACT: tuple[tuple[Callable[[Any], bool], str, str], ...] = (
    (lambda config: MAJOR_VERSION < 5 and bool(getattr(config, "attn_logit_softcapping", None)), "sdpa", "eager"),
    (lambda config: MAJOR_VERSION < 5 and getattr(config, "scale_attn_by_inverse_layer_idx", False), "sdpa", "eager"),
    (lambda config: MAJOR_VERSION < 5 and not getattr(config, "scale_attn_weights", True), "sdpa", "eager"),
    (lambda config: config.model_type == "falcon" and config.alibi, "eager", "sdpa"),
)
# T5 and its kin, whose output layer is scaled if it is tied; those that never do it.
SCALED_OUTPUTS, UNSCALED_OUTPUTS = ("t5", "longt5", "pop2piano"), ("mt5", "umt5")


def load_config(where: Any, **options: Any) -> PretrainedConfig:
    """Load a configuration as `transformers.AutoConfig` does, with the meaning that it had where it was saved.

    Raises:
        ValueError: If this version of transformers can't compute what it states.
    """
    stated, _ = PretrainedConfig.get_config_dict(where, **options)
    return read_alike(AutoConfig.from_pretrained(where, **options), stated)


def read_alike(config: PretrainedConfig, stated: Mapping[str, Any] | None = None) -> PretrainedConfig:
    """Give a configuration, in place, the meaning that it had where it was saved; again, it changes nothing.

    Args:
        config: The configuration.
        stated: What its file states, some of which its class may have lost.

    Raises:
        ValueError: If this version of transformers can't compute what it states; the message names the way out.
    """
    for part, settings in _parts(config, stated or {}):
        if MAJOR_VERSION >= 5:
            _refuse_unknown(part, UNKNOWN_TO_5, saved_by=4)
            _keep_rotation(part, settings)
            continue
        _refuse_unknown(part, UNKNOWN_TO_4, saved_by=5)
        _read_renamed(part)
        _read_rotation(part)
        _read_window(part, settings)
        _read_layer_types(part)
        _read_output_layer(part)
        # Its first checkpoints state the exact GELU and were trained with the approximation, as transformers 5 knows.
        if part.model_type == "gemma" and part.hidden_act == "gelu":
            part.hidden_act = "gelu_pytorch_tanh"
    return config


def use_exact_attention(model: Any) -> None:
    """Let a model compute its attention whole, where the way that was chosen does not; see `INEXACT`."""
    for part, _ in _parts(model.config):
        for is_so, way, instead in INEXACT:
            if part._attn_implementation == way and is_so(part):
                part._attn_implementation = instead


def keep_generation_config(model: Any) -> None:
    """Let the settings of generation be those that a model was loaded with.

    Without this, transformers 4 takes those of config.json in their place if that states any, as transformers 5 does.
    """
    model.generation_config._from_model_config = False


def _parts(
    config: PretrainedConfig, stated: Mapping[str, Any] | None = None
) -> Iterator[tuple[PretrainedConfig, Mapping[str, Any]]]:
    """Yield a configuration and those within it, each with what its file states."""
    stated = stated if isinstance(stated, Mapping) else {}
    yield config, stated
    for name, value in list(vars(config).items()):
        if isinstance(value, PretrainedConfig):
            yield from _parts(value, stated.get(name))


def _knows(config: PretrainedConfig, name: str) -> bool:
    return name in signature(type(config).__init__).parameters


def _refuse_unknown(config: PretrainedConfig, settings: Mapping[str, Any], saved_by: int) -> None:
    for name, same in settings.items():
        value = getattr(config, name, None)
        if value is not None and value != same and not _knows(config, name):
            raise _not_here(config, f"{name}={value!r}", saved_by)


def _not_here(config: PretrainedConfig, what: str, saved_by: int = 5) -> ValueError:
    versions = ">=5,<6" if saved_by == 5 else ">=4.57,<5"
    return ValueError(
        f"this {config.model_type} was saved by transformers {saved_by}, and transformers {transformers.__version__} "
        f"can't compute {what}; load it with transformers {saved_by} (pip install 'transformers{versions}')"
    )


def _keep_rotation(config: PretrainedConfig, stated: Mapping[str, Any]) -> None:
    """Keep, or refuse, the rotary positions of a file of transformers 4 of which a class of 5 loses a part."""
    found = getattr(config, "rope_parameters", None)
    if not isinstance(found, dict) or "rope_parameters" in stated:
        return
    for kind, base in ROPE_BASES.get(config.model_type, {}).items():
        if stated.get(base) is not None and isinstance(found.get(kind), dict):
            found[kind]["rope_theta"] = stated[base]
    parts = [part for part in found.values() if isinstance(part, dict)] or [found]
    bases = {part.get("rope_theta") for part in parts}
    for name in BASES_OF_4:
        if stated.get(name) is not None and stated[name] not in bases:
            raise _not_here(config, f"{name}={stated[name]!r}", saved_by=4)
    kinds = {part.get("rope_type", "default") for part in parts}
    if "rope_scaling" in stated and stated["rope_scaling"] is None and kinds != {"default"}:
        raise _not_here(config, "rope_scaling=None", saved_by=4)


def _read_renamed(config: PretrainedConfig) -> None:
    for name, known in RENAMED_BY_5.items():
        if hasattr(config, name) and not _knows(config, name) and _knows(config, known):
            setattr(config, known, getattr(config, name))


def _read_window(config: PretrainedConfig, stated: Mapping[str, Any]) -> None:
    """Keep the window of attention that transformers 4 writes for a ModernBERT decoder and does not read."""
    if config.model_type == "modernbert-decoder" and stated.get("sliding_window") is not None:
        config.sliding_window = stated["sliding_window"]


def _read_rotation(config: PretrainedConfig) -> None:
    """Turn `rope_parameters` of transformers 5 into the settings of 4."""
    if getattr(config, "local_rope_theta", None) != getattr(config, "rope_theta", None) and (
        config.model_type == "modernbert-decoder" and not hasattr(config, "rope_parameters")
    ):
        raise _not_here(config, f"local_rope_theta={config.local_rope_theta!r}, which it does not read")
    stated = getattr(config, "rope_parameters", None)
    if not isinstance(stated, dict):
        scaling = getattr(config, "rope_scaling", None) or {}
        # transformers 5 reads the length here, 4 beside it alone.
        if scaling.get("rope_type") == "longrope" and not hasattr(config, "original_max_position_embeddings"):
            vars(config).update(_long_rotation(config, scaling))
        return
    if all(isinstance(value, dict) for value in stated.values()):
        settings = _by_layer_type(config, stated)
    elif any(isinstance(value, dict) for value in stated.values()):
        raise _not_here(config, f"rotary positions with {stated!r}")
    else:
        settings = _rotation(config, stated)
    del config.rope_parameters
    for name, value in settings.items():
        setattr(config, name, value)


def _rotation(config: PretrainedConfig, stated: dict[str, Any]) -> dict[str, Any]:
    stated = dict(stated)
    base, share = stated.pop("rope_theta", None), stated.pop("partial_rotary_factor", None)
    settings: dict[str, Any] = {}
    if base is not None:
        settings |= _named(config, ("rope_theta", "rotary_emb_base"), base, "rope_theta")
    if share is not None and (share != 1.0 or hasattr(config, "partial_rotary_factor")):
        settings |= _named(config, ("partial_rotary_factor", "rotary_pct"), share, "partial_rotary_factor")
    return {**settings, **_scaling(config, stated)}


def _named(config: PretrainedConfig, names: tuple[str, ...], value: Any, what: str) -> dict[str, Any]:
    """Return a value under those of some names that a configuration has."""
    found = {name: value for name in names if hasattr(config, name)}
    if not found:
        raise _not_here(config, f"{what}={value!r}")
    return found


def _scaling(config: PretrainedConfig, stated: dict[str, Any]) -> dict[str, Any]:
    kind = stated.get("rope_type", stated.get("type", "default"))
    if kind == "default" and not stated.keys() - {"rope_type", "type"}:
        return {"rope_scaling": None} if hasattr(config, "rope_scaling") else {}
    if kind not in ROPE_INIT_FUNCTIONS or not hasattr(config, "rope_scaling"):
        raise _not_here(config, f"rotary positions of the type {kind!r}")
    if kind == "longrope":
        return _long_rotation(config, stated)
    return {"rope_scaling": stated}


def _long_rotation(config: PretrainedConfig, stated: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of LongRoPE, whose attention transformers 4 scales by other numbers unless it is told."""
    if config.model_type == "phi3":  # it accepts these three alone, the first under its old name
        factors = {name: stated.get(name) for name in ("short_factor", "long_factor")}
        return {"rope_scaling": {"type": "longrope", **factors}}
    length = stated.get("original_max_position_embeddings") or config.max_position_embeddings
    factor = stated.get("factor") or config.max_position_embeddings / length
    scale = math.sqrt(1 + math.log(factor) / math.log(length)) if factor > 1 else 1.0
    return {
        "original_max_position_embeddings": length,
        "rope_scaling": {**stated, "attention_factor": stated.get("attention_factor") or scale},
    }


def _by_layer_type(config: PretrainedConfig, stated: dict[str, dict[str, Any]]) -> dict[str, Any]:
    bases = ROPE_BASES.get(config.model_type, {})
    settings: dict[str, Any] = {}
    for kind, values in stated.items():
        rest = {name: value for name, value in (values or {}).items() if name != "rope_theta"}
        plain = rest.get("rope_type", "default") == "default"
        scaled = kind == "full_attention" and config.model_type in SCALED_FULL_ATTENTION
        name, base = bases.get(kind), (values or {}).get("rope_theta")
        if name is None or settings.get(name, base) != base or not (plain or scaled):
            raise _not_here(config, f"rotary positions of {kind} with {values!r}")
        settings[name] = base
        if scaled:
            settings |= _scaling(config, rest)
    return settings


def _read_layer_types(config: PretrainedConfig) -> None:
    """Turn the list of layer types that transformers 5 writes into the period that 4 knows, where it knows no list."""
    types = getattr(config, "layer_types", None)
    if not isinstance(types, list) or _knows(config, "layer_types"):
        return
    if config.model_type == "modernbert":
        full = [place for place, kind in enumerate(types) if kind == "full_attention"]
        period = full[1] if len(full) > 1 else max(len(types), 1)
        if full == list(range(0, len(types), period)):
            config.global_attn_every_n_layers = period
            del config.layer_types
            return
    elif set(types) <= {"full_attention"} or not _knows(config, "use_sliding_window") or types == _windowed(config):
        return
    raise _not_here(config, f"layer_types={types}")


def _windowed(config: PretrainedConfig) -> list[str]:
    """Return the layer types that transformers 4 makes of a configuration with a window from some layer on."""
    from_layer = config.max_window_layers if config.use_sliding_window else config.num_hidden_layers
    return ["sliding_attention" if n >= from_layer else "full_attention" for n in range(config.num_hidden_layers)]


def _read_output_layer(config: PretrainedConfig) -> None:
    """Let an output layer that is not scaled be one of its own, for which transformers 5 writes that it is tied.

    transformers 4 would believe that, and silently put the embeddings in its place.
    """
    scaled = getattr(config, "scale_decoder_outputs", None)  # transformers 5 writes it, but for mT5
    unscaled = config.model_type in SCALED_OUTPUTS and scaled is False
    if unscaled or (config.model_type in UNSCALED_OUTPUTS and (scaled is not None or config.model_type == "mt5")):
        config.tie_word_embeddings = False
