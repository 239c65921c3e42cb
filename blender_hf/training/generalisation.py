"""What a small collection takes: dropout against learning by heart, and a way back for a ranker that forgets."""

from collections.abc import Mapping

import torch
from transformers import PretrainedConfig

from .settings import RankerSettings

# What the families of encoders call their dropouts.
HIDDEN_DROPOUTS = ("hidden_dropout_prob", "embedding_dropout", "mlp_dropout")
ATTENTION_DROPOUTS = ("attention_probs_dropout_prob", "attention_dropout")


def dropouts_of(settings: RankerSettings, config: PretrainedConfig) -> dict[str, float]:
    """Return the dropouts that the settings change, by the names that an encoder has for them."""
    wanted = dict.fromkeys(HIDDEN_DROPOUTS, settings.dropout)
    wanted |= dict.fromkeys(ATTENTION_DROPOUTS, settings.attention_dropout)
    return {name: value for name, value in wanted.items() if value is not None and hasattr(config, name)}


def set_dropouts(backbone: torch.nn.Module, dropouts: Mapping[str, float]) -> None:
    """Set the dropouts of an encoder that is there already, in its layers and in its configuration.

    Args:
        backbone: The encoder.
        dropouts: The probabilities by the names of its configuration.
    """
    for name, value in dropouts.items():
        setattr(backbone.config, name, value)
    hidden = [dropouts[name] for name in HIDDEN_DROPOUTS if name in dropouts]
    attention = [dropouts[name] for name in ATTENTION_DROPOUTS if name in dropouts]
    for path, module in backbone.named_modules():
        found = attention if path.endswith(("self.dropout", "attn.dropout")) else hidden
        if isinstance(module, torch.nn.Dropout) and found:
            module.p = found[0]
        # What BERT of transformers 4 hands to the fused attention.
        if attention and hasattr(module, "dropout_prob"):
            module.dropout_prob = attention[0]


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return a copy of the weights of a model."""
    return {name: weight.detach().clone() for name, weight in model.state_dict().items()}


@torch.no_grad()
def interpolate(model: torch.nn.Module, start: Mapping[str, torch.Tensor], share: float) -> None:
    """Go back a part of the way to the weights that training started from.

    A model that learns something new forgets some of the old; on the way between the two it can have most of both
    (Wortsman et al. 2022, arXiv 2109.01903).

    Args:
        model: The trained model, which is changed.
        start: The weights before training; empty leaves the model as it is.
        share: Of the way from them to the trained ones, 0 to 1.
    """
    trained = model.state_dict()
    for name, before in start.items():
        trained[name].copy_(torch.lerp(before.float(), trained[name].float(), share).to(trained[name]))
