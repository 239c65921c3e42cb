"""The tokenizer of a ranker, loaded so that it does what its files state, on transformers 4 and 5 alike.

A SentencePiece model brings a table of normalisation: that of DeBERTa (nmt_nfkc) turns "…" into "...", a full-width
letter into a plain one, and a no-break space into a space. transformers 4 applies it. `DebertaV2Tokenizer` of
transformers 5 (seen in 5.24) is put together from the vocabulary alone, with NFC instead, even where tokenizer.json has
the table; such characters then become unknown tokens, and PairRM gives other logits than on transformers 4.
"""

from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from .original_formats import SPECIAL_TOKENS, encoder_options
from .tokenizer_files import tokenizer_json


def load_tokenizer(where: Any, **hub: Any) -> Any:
    """Load a tokenizer, with the normalisation that its files state.

    Args:
        where: A Hub id or a folder.
        **hub: The options of `transformers.AutoTokenizer.from_pretrained`.
    """
    tokenizer = AutoTokenizer.from_pretrained(where, **hub)
    restore_normalizer(tokenizer, where, **hub)
    return tokenizer


def original_tokenizer(config: dict[str, Any], **hub: Any) -> Any:
    """Return the tokenizer of a `RankerConfig`: the encoder's with the authors' four tokens.

    Args:
        config: The dictionary of the configuration.
        **hub: How the encoder's repository is reached; what does not concern it is left out.
    """
    tokenizer = load_tokenizer(config["model_name"], **encoder_options(hub))
    tokenizer.add_tokens([t for t in SPECIAL_TOKENS if t not in tokenizer.get_vocab()], special_tokens=True)
    return tokenizer


def restore_normalizer(tokenizer: Any, where: Any, **hub: Any) -> None:
    """Give a tokenizer the normalisation that its files state, where it was lost in loading.

    Args:
        tokenizer: A tokenizer that was just loaded; changed in place.
        where: The Hub id or folder it was loaded from.
        **hub: The options with which it was loaded; what does not concern files is left out.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    from_sentencepiece = str(tokenizer.vocab_files_names.get("vocab_file")).endswith(".model")
    if backend is None or not from_sentencepiece or _has_table(backend.normalizer):
        return
    if (path := tokenizer_json(where, **hub)) is not None:
        backend.normalizer = PreTrainedTokenizerFast(tokenizer_file=path).backend_tokenizer.normalizer
    elif getattr(tokenizer, "vocab_file", None):
        backend.normalizer = _from_model_file(tokenizer)


def _has_table(normalizer: Any) -> bool:
    return normalizer is not None and b'"Precompiled"' in normalizer.__getstate__()


def _from_model_file(tokenizer: Any) -> Any:
    """Read the normalisation from the SentencePiece model by the rules of transformers 4, which 5 still carries."""
    # Here, not above: it is slow, and needed by few.
    from transformers.convert_slow_tokenizer import SLOW_TO_FAST_CONVERTERS

    converter = SLOW_TO_FAST_CONVERTERS[type(tokenizer).__name__](tokenizer)
    return converter.normalizer(converter.proto)
