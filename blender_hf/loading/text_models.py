"""Models of single texts, for metrics and baselines: loading them, and encoding texts for them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from blender_hf.engine.model_state import check_vocabulary
from blender_hf.modeling.configurations import MAJOR_VERSION, load_config, use_exact_attention
from blender_hf.modeling.hub_mixins import raise_if_incomplete
from blender_hf.modeling.tokenization import PlainTextEncoder, affixes, n_positions
from blender_hf.modeling.tokenizer_files import load_tokenizer

from .checkpoints import HubOptions, explained, hub_settings, pick_attention, pick_device, pick_dtype

DEFAULT_HUB = HubOptions()
# Weights that some checkpoints lack, and nothing here uses.
UNUSED = "pooler"


def load_with_tokenizer(
    auto_class: Any,
    name: str | Path,
    role: str,
    *,
    hub: HubOptions = DEFAULT_HUB,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    attn_implementation: str | None = None,
) -> tuple[Any, Any]:
    """Load a model by an Auto class of transformers, in evaluation mode on its device, and its tokenizer.

    The options are those of `Blender.from_pretrained`; `role` is what messages call the model.
    """
    where = pick_device(device)
    running: dict[str, Any] = {"dtype": pick_dtype(dtype, where), **pick_attention(attn_implementation)}
    options = hub_settings(hub)

    def load() -> tuple[Any, Any]:
        # The tokenizer first: a missing repository fails here at once, not after many attempts to reach the Hub.
        tokenizer = load_tokenizer(str(name), **options)
        affixes(tokenizer)  # rejects here a tokenizer that can't be used
        model, info = auto_class.from_pretrained(
            str(name),
            config=load_config(str(name), **options),
            output_loading_info=True,
            **running,
            **_adapter_options(hub),
            **options,
        )
        missing = [key for key in info["missing_keys"] if UNUSED not in key]
        raise_if_incomplete({**info, "missing_keys": missing, "unexpected_keys": []}, name, auto_class.__name__)
        check_vocabulary(model, tokenizer)
        use_exact_attention(model)
        return model, tokenizer

    model, tokenizer = explained(load, name, role, hub)
    return model.eval().to(where), tokenizer


class TextEncoder:
    """Encodes texts between a tokenizer's affixes, cut to the model's limit and `max_tokens`, affixes included."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> None:
        self._plain = PlainTextEncoder(tokenizer)
        self.before, self.after = affixes(tokenizer)
        self._room = longest_input(model, tokenizer, max_tokens) - len(self.before) - len(self.after)

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text."""
        return [[*self.before, *ids[: self._room], *self.after] for ids in self._plain(texts)]


def longest_input(model: Any, tokenizer: Any, most: int) -> int:
    """Return how many tokens a model reads: what it and its tokenizer state, and no more than `most`."""
    return min(n_positions(model.config) or most, tokenizer.model_max_length, most)


def _adapter_options(hub: HubOptions) -> dict[str, Any]:
    """Keep transformers 5 (seen in 5.24) from asking the Hub for an adapter although it is told never to ask it."""
    if MAJOR_VERSION < 5:
        return {}
    return {"adapter_kwargs": {"local_files_only": hub.local_files_only}}
