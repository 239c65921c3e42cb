"""Training few weights instead of all: LoRA adapters through `peft`, merged when training ends."""

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from blender_hf.errors import BlenderError

from .settings import LoraSettings

# What a ranker has that its encoder has not; it is new, so it is trained whole.
HEAD = "head"


def with_lora(model: PreTrainedModel, settings: LoraSettings) -> nn.Module:
    """Put adapters on a ranker's encoder or on a fuser, if the settings ask for them.

    Args:
        model: The model; its linear layers are replaced.
        settings: `lora_rank` and what goes with it.

    Returns:
        The `peft.PeftModel`, or the model itself for rank 0.

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
        modules_to_save=[HEAD] if hasattr(model, HEAD) else None,
    )
    return get_peft_model(model, config)


def merged(trained: Any) -> Any:
    """Return a model with its adapters merged into its weights; one without any as it is."""
    return trained if isinstance(trained, PreTrainedModel) else trained.merge_and_unload()


def _linear_layers(model: PreTrainedModel) -> list[str]:
    """Return the linear layers between those that read and write: a ranker's head and a fuser's output stay apart."""
    apart = (HEAD, "lm_head")
    return [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and name.partition(".")[0] not in apart
    ]
