"""Configurations read alike on transformers 4 and 5, whichever of them wrote the file.

transformers 5 writes some settings under names that 4 silently ignores, and the other way round. They are translated
here, for every configuration that is loaded. What the running version can't express is a ValueError.
"""

from collections.abc import Iterator, Mapping
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
    "modernbert-decoder": {"full_attention": "global_rope_theta", "sliding_attention": "local_rope_theta"},
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
# T5 and its kin, whose output layer is scaled if it is tied; those that never do it.
SCALED_OUTPUTS, UNSCALED_OUTPUTS = ("t5", "longt5", "pop2piano"), ("mt5", "umt5")


def load_config(where: Any, **options: Any) -> PretrainedConfig:
    """Load a configuration as `transformers.AutoConfig` does, with the meaning that it had where it was saved.

    Raises:
        ValueError: If this version of transformers can't compute what it states.
    """
    return read_alike(AutoConfig.from_pretrained(where, **options))


def read_alike(config: PretrainedConfig) -> PretrainedConfig:
    """Give a configuration, in place, the meaning that it had where it was saved; again, it changes nothing.

    Raises:
        ValueError: If this version of transformers can't compute what it states; the message names the way out.
    """
    for part in _parts(config):
        if MAJOR_VERSION >= 5:
            _refuse_unknown(part, UNKNOWN_TO_5, saved_by=4)
            continue
        _refuse_unknown(part, UNKNOWN_TO_4, saved_by=5)
        _read_rotation(part)
        _read_layer_types(part)
        _read_output_layer(part)
        # Its first checkpoints state the exact GELU and were trained with the approximation, as transformers 5 knows.
        if part.model_type == "gemma" and part.hidden_act == "gelu":
            part.hidden_act = "gelu_pytorch_tanh"
    return config


def use_exact_attention(model: Any) -> None:
    """Let transformers 4 compute the attention of a Gemma 2 eagerly, where it chose sdpa: that leaves out a part of it.

    It is the softcapping of the attention scores, without which transformers 5 does not compute the model either.
    """
    for part in _parts(model.config) if MAJOR_VERSION < 5 else ():
        if getattr(part, "attn_logit_softcapping", None) is not None and part._attn_implementation == "sdpa":
            part._attn_implementation = "eager"


def keep_generation_config(model: Any) -> None:
    """Let the settings of generation be those that a model was loaded with.

    Without this, transformers 4 takes those of config.json in their place if that states any, as transformers 5 does.
    """
    model.generation_config._from_model_config = False


def _parts(config: PretrainedConfig) -> Iterator[PretrainedConfig]:
    """Yield a configuration and those within it."""
    yield config
    for value in list(vars(config).values()):
        if isinstance(value, PretrainedConfig):
            yield from _parts(value)


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


def _read_rotation(config: PretrainedConfig) -> None:
    """Turn `rope_parameters` of transformers 5 into the settings of 4."""
    stated = getattr(config, "rope_parameters", None)
    if not isinstance(stated, dict):
        return
    if any(isinstance(value, dict) for value in stated.values()):
        settings = _by_layer_type(config, stated)
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
    if config.model_type == "phi3":  # it accepts these three alone, the first under its old name
        return {"rope_scaling": {"type": kind, **{name: stated.get(name) for name in ("short_factor", "long_factor")}}}
    return {"rope_scaling": stated}


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
    unscaled = config.model_type in SCALED_OUTPUTS and getattr(config, "scale_decoder_outputs", True) is False
    if unscaled or config.model_type in UNSCALED_OUTPUTS:
        config.tie_word_embeddings = False
