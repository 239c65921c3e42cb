"""Tokens that an encoder does not know yet: the markers of the three parts of a pair, and line breaks."""

from typing import Any

import torch
from transformers import AddedToken

from blender_hf.modeling.configuration_pair_ranker import SPECIAL_TOKENS

LINE_BREAK = "\n"
# What each new token starts as: tokens that are all alike are hard to tell apart.
WORDS = {
    **dict(zip(SPECIAL_TOKENS[:3], ("question", "first answer", "second reply"), strict=True)),
    LINE_BREAK: "new line",
}


def keep_line_breaks(tokenizer: Any) -> None:
    """Give a tokenizer that drops line breaks a token for them; one that keeps them is left as it is.

    The tokenizers of BERT and of DeBERTa-v3 take a line break for a space: paragraphs, lists and the lines of code are
    lost on the model behind them. The token is not a special one: what a text holds is only text.

    Args:
        tokenizer: A tokenizer of transformers, which is changed.
    """
    one, two = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("a b", f"a{LINE_BREAK}b"))
    if one == two:
        tokenizer.add_tokens([AddedToken(LINE_BREAK, normalized=False)])


@torch.no_grad()
def start_from_words(embeddings: torch.Tensor, tokenizer: Any, n_known: int) -> None:
    """Start the new tokens of an encoder from the meaning of words.

    Args:
        embeddings: (tokens, hidden), which is changed.
        tokenizer: The tokenizer with the new tokens.
        n_known: How many tokens it had before.
    """
    for token_id, token in tokenizer.added_tokens_decoder.items():
        if token_id >= n_known and token.content in WORDS:
            ids = tokenizer(WORDS[token.content], add_special_tokens=False)["input_ids"]
            embeddings[token_id] = embeddings[ids].mean(dim=0)
