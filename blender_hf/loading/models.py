"""Loading a ranker or a fuser of whatever form it is stored in: whole, as an adapter, or in a few bits."""

from typing import Any

import torch
from transformers.utils import CONFIG_NAME

from blender_hf.errors import CheckpointError
from blender_hf.modeling import PairRanker, PairRankerConfig
from blender_hf.modeling.configurations import load_config
from blender_hf.modeling.tokenizer_files import file_options, settings_of

from .adapters import ADAPTER_CONFIG, adapted, adapter_settings, weights_under
from .low_bits import ENTRY, base_weights, whole_config

# What the names of the weights that a language model shares with a ranker over it begin with, in either.
LANGUAGE_MODEL, BACKBONE = "model.", "backbone."
# Options of a model that its configuration knows by the same names.
RUNNING = ("dtype", "attn_implementation")


def _precision(dtype: Any) -> torch.dtype:
    """Return a precision that `from_pretrained` takes; weights of a few bits state none, and are exact in float32."""
    return torch.float32 if dtype in (None, "auto") else getattr(torch, dtype) if isinstance(dtype, str) else dtype


def load_model(
    model_class: Any, where: str, *, base: str | None = None, own_weights: bool = False, **options: Any
) -> Any:
    """Load a model as `from_pretrained` of its class does, from an adapter or weights of a few bits too.

    Args:
        model_class: `PairRanker` or `GenFuser`.
        where: The folder or Hub id of a checkpoint.
        base: For an adapter, the folder or Hub id of another copy of its language model, such as one in full precision;
            None takes the one that it names.
        own_weights: Whether the weights of a language model that is stored in a few bits are copied, for training.
            Without it they are those of all other models that are made of it.
        **options: The options of `from_pretrained`.

    Raises:
        CheckpointError: If an adapter is not plain LoRA, or does not fit the language model; or if `base` is given and
            there is no adapter.
        OSError: If a file is missing, as in transformers.
    """
    hub = file_options(options)
    adapter = adapter_settings(where, **hub)
    if adapter is None and base is not None:
        raise CheckpointError(f"it is no adapter (it has no {ADAPTER_CONFIG}), so it takes no base")
    if adapter is None and ENTRY not in settings_of(where, CONFIG_NAME, **hub):
        return model_class.from_pretrained(where, **options)
    dtype = options["dtype"] = _precision(options.get("dtype"))
    if adapter is None:
        weights = base_weights(where, dtype, **hub)
    else:
        weights = weights_under(where, adapter, base, dtype, **hub)
    if own_weights:
        weights = {name: weight.clone() for name, weight in weights.items()}
    if not issubclass(model_class, PairRanker):
        config: Any = whole_config(load_config(where, **hub))
    else:
        config = PairRankerConfig.from_pretrained(where, **hub)
        # As `from_pretrained` of a model takes settings of its configuration by name.
        for name in [name for name in options if hasattr(config, name) and name not in RUNNING]:
            setattr(config, name, options.pop(name))
        # A ranker has no layer that predicts tokens.
        weights = {
            BACKBONE + name.removeprefix(LANGUAGE_MODEL): weight
            for name, weight in weights.items()
            if name.startswith(LANGUAGE_MODEL)
        }
    if adapter is not None:
        weights = adapted(weights, where, adapter, **hub)
    return model_class.from_pretrained(None, config=config, state_dict=weights, **options)
