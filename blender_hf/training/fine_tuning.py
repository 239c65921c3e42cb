"""Changes to a pretrained model around its training: new tokens, dropout, LoRA adapters, interpolated weights."""

import warnings
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn
from transformers import AddedToken, PretrainedConfig, PreTrainedModel

from blender_hf.errors import require
from blender_hf.modeling.configuration_pair_ranker import SPECIAL_TOKENS

from .settings import LoraSettings, RankerSettings

LINE_BREAK = "\n"
# The words from which each new token is initialised: tokens that are all alike are hard to tell apart.
INITIAL_WORDS = {
    **dict(zip(SPECIAL_TOKENS[:3], ("question", "first answer", "second reply"), strict=True)),
    LINE_BREAK: "new line",
}
# What the families of encoders call their dropouts.
HIDDEN_DROPOUTS = ("hidden_dropout_prob", "embedding_dropout", "mlp_dropout")
ATTENTION_DROPOUTS = ("attention_probs_dropout_prob", "attention_dropout")
# A ranker's head is new, so it is trained whole.
HEAD = "head"
# Without adapters: what writes the output of a ranker or of a fuser.
OUTPUT_LAYERS = (HEAD, "lm_head")


def add_line_break_token(tokenizer: Any) -> None:
    """Give a tokenizer that drops line breaks a token for them; one that keeps them stays as it is.

    The tokenizers of BERT and of DeBERTa-v3 read a line break as a space: the model behind them sees no paragraphs,
    lists or lines of code. The token is not a special one: all text stays plain text.
    """
    one, two = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("a b", f"a{LINE_BREAK}b"))
    if one == two:
        tokenizer.add_tokens([AddedToken(LINE_BREAK, normalized=False)])


@torch.no_grad()
def initialise_new_tokens(embeddings: nn.Module, tokenizer: Any, n_known: int) -> None:
    """Initialise the embeddings of tokens beyond the first `n_known`, each with the mean over some words."""
    weight = cast(torch.Tensor, embeddings.weight)
    for token_id, token in tokenizer.added_tokens_decoder.items():
        if token_id >= n_known and token.content in INITIAL_WORDS:
            ids = tokenizer(INITIAL_WORDS[token.content], add_special_tokens=False)["input_ids"]
            weight[token_id] = weight[ids].mean(dim=0)


def dropouts_of(settings: RankerSettings, config: PretrainedConfig) -> dict[str, float]:
    """Return the dropouts that the settings change, under the encoder's names for them."""
    wanted = dict.fromkeys(HIDDEN_DROPOUTS, settings.dropout)
    wanted |= dict.fromkeys(ATTENTION_DROPOUTS, settings.attention_dropout)
    return {name: value for name, value in wanted.items() if value is not None and hasattr(config, name)}


def set_dropouts(backbone: PreTrainedModel, dropouts: Mapping[str, float]) -> None:
    """Set the dropouts of a loaded encoder, in its layers and in its configuration, under the names of the latter."""
    for name, value in dropouts.items():
        setattr(backbone.config, name, value)
    hidden = [dropouts[name] for name in HIDDEN_DROPOUTS if name in dropouts]
    attention = [dropouts[name] for name in ATTENTION_DROPOUTS if name in dropouts]
    for path, module in backbone.named_modules():
        found = attention if path.endswith(("self.dropout", "attn.dropout")) else hidden
        if isinstance(module, nn.Dropout) and found:
            module.p = found[0]
        # What BERT of transformers 4 hands to the fused attention.
        if attention and hasattr(module, "dropout_prob"):
            module.dropout_prob = attention[0]


def with_lora(model: PreTrainedModel, settings: LoraSettings) -> PreTrainedModel:
    """Put LoRA adapters on a ranker's encoder or on a fuser; rank 0 returns the model itself."""
    if not settings.lora_rank:
        return model
    require("peft", "lora", "lora_rank")
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        target_modules=settings.lora_target_modules or _linear_layers(model),
        modules_to_save=[HEAD] if hasattr(model, HEAD) else None,
    )
    with warnings.catch_warnings():
        # peft (0.21) still asks by the name that transformers 5 deprecates.
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        return cast(PreTrainedModel, get_peft_model(model, config))  # a wrapper that forwards to it


def merged(trained: Any) -> PreTrainedModel:
    """Return a model with its adapters merged into its weights; one without any as it is."""
    return trained if isinstance(trained, PreTrainedModel) else trained.merge_and_unload()


def _linear_layers(model: PreTrainedModel) -> list[str]:
    written_by = model.get_output_embeddings()  # as a language model calls its output layer what it likes
    return [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear)
        and layer is not written_by
        and name.partition(".")[0] not in OUTPUT_LAYERS
        and layer.weight.requires_grad
    ]


def copied_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return a copy of the weights of a model."""
    return {name: weight.detach().clone() for name, weight in model.state_dict().items()}


@torch.no_grad()
def interpolate(model: nn.Module, start: Mapping[str, torch.Tensor], fraction: float) -> None:
    """Interpolate a trained model, in place, between its initial weights (0) and its trained ones (1).

    A model that learns something new forgets some of the old; between the two it can keep most of both (WiSE-FT,
    Wortsman et al. 2022, arXiv 2109.01903). Without initial weights the model stays as it is.
    """
    trained = model.state_dict()
    for name, before in start.items():
        trained[name].copy_(torch.lerp(before.float(), trained[name].float(), fraction).to(trained[name]))
