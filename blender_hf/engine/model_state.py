"""The state of the models that are handed in: what would silently change a result is set right, or refused."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch

from blender_hf.errors import CheckpointError

# Models that tell any number of token types apart, so their configuration states none.
ANY_TYPES = ("xlnet",)
# Models that mix all places of a row, padding too: by convolutions, and by a Fourier transform.
READ_PADDING = ("canine", "convbert", "fnet", "nystromformer", "yoso")
# Models whose head reads the state of the last token that ends texts.
READ_END = ("bart", "bigbird_pegasus", "led", "mbart", "mt5", "mvp", "plbart", "t5", "umt5")


def make_ready(model: Any) -> None:
    """Put a model into evaluation mode, and on a CPU out of float16 into float32, in place.

    Our checkpoints are stored in float16, which transformers 5 keeps when it loads them and 4 does not. On a CPU it is
    slow, and loses digits that decide between similar texts.
    """
    if not isinstance(model, torch.nn.Module):
        return  # in ONNX Runtime, which knows neither
    weight = next(model.parameters(), None)
    if weight is not None and weight.dtype == torch.float16 and weight.device.type == "cpu":
        model.float()
    model.eval()


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Run a model in evaluation mode, without dropout, and give a model that is being trained its mode back."""
    training = [part for part in model.modules() if part.training] if isinstance(model, torch.nn.Module) else []
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def unwrapped(model: Any) -> Any:
    """Return a model out of what `torch.compile` and PEFT wrap it in, whose own signatures do not say what it reads."""
    while True:
        if isinstance(inner := getattr(model, "_orig_mod", None), torch.nn.Module):
            model = inner
        elif callable(getattr(model, "get_base_model", None)):
            model = model.get_base_model()
        else:
            return model


def n_token_types(model: Any) -> float:
    """Return how many token types a model tells apart; 0 if it reads none, infinity if there is no limit."""
    if "token_type_ids" not in signature(unwrapped(model).forward).parameters:
        return 0
    config = model.config.get_text_config()
    stated = getattr(config, "type_vocab_size", None)
    return math.inf if config.model_type in ANY_TYPES else stated if isinstance(stated, int) else 0


def reads_padding(model: Any) -> bool:
    """Return whether the padding of a row changes what a model computes of it, so that it must have none."""
    config = getattr(model, "config", None)
    return getattr(getattr(config, "backbone_config", config), "model_type", None) in READ_PADDING


def reads_end(model: Any) -> bool:
    """Return whether the head of a reward model reads the state of the last token that ends texts."""
    return model.config.model_type in READ_END


def n_embeddings(model: Any) -> int | None:
    """Return how many tokens a model has embeddings for, or None if it does not say."""
    try:
        table = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
    except NotImplementedError:  # CANINE has a hash of each letter in place of a table
        return None
    return table.num_embeddings if isinstance(table, torch.nn.Embedding) else None


def check_vocabulary(model: Any, tokenizer: Any) -> None:
    """Raise CheckpointError if a text may become a token that a model has no embedding for.

    Special tokens that no text becomes may be beyond it: some tokenizers have one for padding that was never trained.
    """
    n_rows = n_embeddings(model)
    if n_rows is None or len(tokenizer) <= n_rows:
        return
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    beyond = [token for token, token_id in tokenizer.get_vocab().items() if token_id >= n_rows and token not in special]
    if beyond:
        raise CheckpointError(
            f"the tokenizer has {len(tokenizer)} tokens and the model {n_rows} embeddings, none for {beyond[0]!r}: "
            "they are not of one model; load both from one checkpoint"
        )


def check_ids(model: Any, ids: torch.Tensor) -> None:
    """Raise CheckpointError if a batch of token ids has one that a model has no embedding for."""
    n_rows = n_embeddings(model)
    if n_rows is not None and ids.numel() and int(ids.max()) >= n_rows:
        raise CheckpointError(
            f"the tokenizer made the id {int(ids.max())}, and the model has {n_rows} embeddings: they are not of one "
            "model; load both from one checkpoint"
        )
