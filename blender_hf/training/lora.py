"""Training few weights instead of all: LoRA adapters through `peft`, merged when training ends."""

from typing import Any

from torch import nn

from blender_hf.errors import BlenderError
from blender_hf.modeling import PairRanker

from .settings import RankerSettings

HEAD = "head"


def with_lora(model: PairRanker, settings: RankerSettings) -> nn.Module:
    """Put adapters on the encoder, if the settings ask for them; the head, which is new, is trained whole.

    Args:
        model: The ranker.
        settings: `lora_rank` and what goes with it.

    Returns:
        The `peft.PeftModel`, or the ranker itself for rank 0.

    Raises:
        BlenderError: If peft is not installed.
    """
    if not settings.lora_rank:
        return model
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise BlenderError("lora_rank needs peft: pip install 'blender-hf[lora]'") from None
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        target_modules=settings.lora_target_modules or _linear_layers(model),
        modules_to_save=[HEAD],
    )
    return get_peft_model(model, config)


def merged(model: Any) -> PairRanker:
    """Return the ranker with its adapters merged into its weights; a ranker without any as it is."""
    return model if isinstance(model, PairRanker) else model.merge_and_unload()


def _linear_layers(model: PairRanker) -> list[str]:
    return [f"backbone.{name}" for name, layer in model.backbone.named_modules() if isinstance(layer, nn.Linear)]
