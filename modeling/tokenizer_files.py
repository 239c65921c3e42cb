"""Loading tokenizers: the tokens are those that tokenizer.json states, on transformers 4 and 5 alike.

Both versions overrule that file. 5 puts some tokenizers together from their class, without the normalizer, the
pre-tokenizer or the decoder of the file; 4 overwrites the post-processor of others with the defaults of their class. So
the backend of a loaded tokenizer is always that of the file. Only what tokenizer_config.json states overrules it:

- `add_prefix_space`, if the pre-tokenizer is byte-level;
- `add_bos_token` and `add_eos_token`, whether a text begins and ends with these tokens;
- `do_lower_case`, `strip_accents` and `tokenize_chinese_chars`, if the normalizer is that of BERT.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.normalizers import BertNormalizer, Normalizer, Prepend, Replace, Sequence
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.auto.tokenization_auto import get_tokenizer_config, tokenizer_class_from_name
from transformers.utils.hub import cached_file

from .configurations import MAJOR_VERSION

FILE_OPTIONS = ("cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token")
# What tokenizer_config.json calls the options of BERT's normalizer, and `tokenizers`.
BERT_OPTIONS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
# Classes of SentencePiece that begin texts with a token in transformers 4 unless they are told not to.
BEGINNING = ("GemmaTokenizer", "LlamaTokenizer")
# A string that any tokenizer encodes, to find what it adds around it.
PROBE = "a"


def file_options(hub: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that say where a file of a checkpoint is looked up."""
    return {name: value for name, value in hub.items() if name in FILE_OPTIONS and value is not None}


def settings_of(where: Any, file: str, **hub: Any) -> dict[str, Any]:
    """Return what a JSON file of a checkpoint states; nothing if there is no such file."""
    path = cached_file(where, file, _raise_exceptions_for_missing_entries=False, **file_options(hub))
    return {} if path is None else json.loads(Path(path).read_text(encoding="utf-8"))


def load_tokenizer(where: Any, **hub: Any) -> Any:
    """Load a tokenizer, as `transformers.AutoTokenizer` does, with the tokens that its files state.

    Files that transformers 5 wrote load on transformers 4 too.

    Args:
        where: A Hub id or a folder.
        **hub: The options of `AutoTokenizer.from_pretrained`.

    Raises:
        ValueError: If only transformers 5 has its class, and there is no tokenizer.json.
    """
    settings = get_tokenizer_config(where, **file_options(hub))
    tokenizer = _loaded(where, settings, hub)
    restore_tokens(tokenizer, where, **hub)
    return tokenizer


def restore_tokens(tokenizer: Any, where: Any, **hub: Any) -> None:
    """Give a tokenizer, in place, the tokens that its files state; it was loaded from `where` with the options `hub`.

    It is saved with the same tokens: its own settings are made to agree.
    """
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        return  # it runs in Python, on the files that both versions read alike
    path = cached_file(where, "tokenizer.json", _raise_exceptions_for_missing_entries=False, **file_options(hub))
    if path is None:
        if MAJOR_VERSION >= 5:  # 4 makes the backend by its rules, which are meant
            _restore_parts(tokenizer, {**get_tokenizer_config(where, **file_options(hub)), **hub})
        return
    stated = Tokenizer.from_file(path)
    _add_missing(stated, tokenizer)
    _overrule(stated, tokenizer, {**get_tokenizer_config(where, **file_options(hub)), **hub})
    stated.no_truncation()
    stated.no_padding()
    stated.encode_special_tokens = tokenizer.backend_tokenizer.encode_special_tokens
    tokenizer._tokenizer = stated
    _agree(tokenizer)


def _loaded(where: Any, settings: Mapping[str, Any], hub: Mapping[str, Any]) -> Any:
    if MAJOR_VERSION >= 5:
        return AutoTokenizer.from_pretrained(where, **hub)
    options: dict[str, Any] = {}
    if isinstance(extra := settings.get("extra_special_tokens"), list):
        options = {"extra_special_tokens": {}, "additional_special_tokens": extra}
    name = settings.get("tokenizer_class")
    if name is None or "auto_map" in settings or any(map(tokenizer_class_from_name, (name, f"{name}Fast"))):
        return AutoTokenizer.from_pretrained(where, **options, **hub)
    if cached_file(where, "tokenizer.json", _raise_exceptions_for_missing_entries=False, **file_options(hub)) is None:
        raise ValueError(
            f"its tokenizer is a {name}, which transformers 4 does not have, and there is no tokenizer.json: load it "
            "with transformers 5, where tokenizer.save_pretrained writes that file"
        )
    # By the name of its class, or transformers would warn that the tokens may be others; they are those of the file.
    named: Any = type(name, (PreTrainedTokenizerFast,), {})
    loaded = named.from_pretrained(where, **options, **hub)
    loaded.__class__ = PreTrainedTokenizerFast
    return loaded


def _add_missing(stated: Tokenizer, tokenizer: Any) -> None:
    """Add the tokens that a tokenizer has beside those of its tokenizer.json."""
    known = {token.content for token in stated.get_added_tokens_decoder().values()}
    added = sorted(tokenizer.backend_tokenizer.get_added_tokens_decoder().items())
    stated.add_tokens([token for _, token in added if token.content not in known])


def _overrule(stated: Tokenizer, tokenizer: Any, settings: Mapping[str, Any]) -> None:
    """Change a backend as the settings in words say."""
    if isinstance(stated.pre_tokenizer, ByteLevel) and settings.get("add_prefix_space") is not None:
        stated.pre_tokenizer.add_prefix_space = bool(settings["add_prefix_space"])
    if isinstance(stated.normalizer, BertNormalizer):
        for name, option in BERT_OPTIONS.items():
            if name in settings:
                setattr(stated.normalizer, option, settings[name])
    wanted = [settings.get(f"add_{end}_token") for end in ("bos", "eos")]
    found = _ends(stated, tokenizer)
    chosen = [has if want is None else bool(want) for want, has in zip(wanted, found, strict=True)]
    if chosen != found:
        stated.post_processor = _between_ends(tokenizer, *chosen)


def _ends(backend: Tokenizer, tokenizer: Any) -> list[bool]:
    """Return whether a text begins with the token that begins texts, and ends with the one that ends them."""
    ids = backend.encode(PROBE).ids
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    return [bos is not None and ids[:1] == [bos], eos is not None and ids[-1:] == [eos]]


def _between_ends(tokenizer: Any, begins: bool, ends: bool) -> TemplateProcessing:
    """Return what writes each text between these tokens, as transformers does for Llama."""
    bos, eos = (str(tokenizer.bos_token), tokenizer.bos_token_id), (str(tokenizer.eos_token), tokenizer.eos_token_id)
    before, after = ([end] if wanted and end[1] is not None else [] for end, wanted in ((bos, begins), (eos, ends)))
    first, second = (
        [*(f"{token}:{n}" for token, _ in before), f"${text}:{n}", *(f"{token}:{n}" for token, _ in after)]
        for n, text in enumerate("AB")
    )
    special = list(dict.fromkeys([*before, *after]))
    return TemplateProcessing(single=first, pair=[*first, *second], special_tokens=special)


def _agree(tokenizer: Any) -> None:
    """Let the settings of a tokenizer say what its backend does, so that it is the same once saved and loaded."""
    backend = tokenizer.backend_tokenizer
    # With this setting the classes of SentencePiece look for its model in place of tokenizer.json.
    if isinstance(backend.pre_tokenizer, ByteLevel) and not _of_sentencepiece(tokenizer):
        _state(tokenizer, "add_prefix_space", backend.pre_tokenizer.add_prefix_space)
    if isinstance(backend.normalizer, BertNormalizer):
        for name, option in BERT_OPTIONS.items():
            _state(tokenizer, name, getattr(backend.normalizer, option))
    for name, has in zip(("add_bos_token", "add_eos_token"), _ends(backend, tokenizer), strict=True):
        if hasattr(tokenizer, f"_{name}"):
            setattr(tokenizer, f"_{name}", has)
        if name in tokenizer.init_kwargs:
            tokenizer.init_kwargs[name] = has


def _state(tokenizer: Any, name: str, value: Any) -> None:
    """Set an option where a tokenizer keeps it, and where it takes from what it saves."""
    tokenizer.init_kwargs[name] = value
    setattr(tokenizer, name, value)


def _of_sentencepiece(tokenizer: Any) -> bool:
    return str(tokenizer.vocab_files_names.get("vocab_file")).endswith(".model")


def _restore_parts(tokenizer: Any, settings: Mapping[str, Any]) -> None:
    """Give a tokenizer without tokenizer.json, on transformers 5, what it has on 4, where loading lost it.

    `DebertaV2Tokenizer` of transformers 5 (seen in 5.24) is built from the vocabulary alone, with NFC in place of the
    table of its SentencePiece model (nmt_nfkc), which turns "…" into "...", a full-width letter into a plain one, and a
    no-break space into a space; such characters become unknown tokens and the logits change. `LlamaTokenizer` loses
    spaces and, as that of Gemma, the token that begins texts, `RemBertTokenizer` all tokens around them, and
    `GPT2Tokenizer`, that of OPT, begins the second text of a pair too.
    """
    backend, name = tokenizer.backend_tokenizer, type(tokenizer).__name__
    if name == "GPT2Tokenizer" and settings.get("add_bos_token"):
        bos, special = f"{tokenizer.bos_token}:0", [(str(tokenizer.bos_token), tokenizer.bos_token_id)]
        backend.post_processor = TemplateProcessing(
            single=f"{bos} $A:0", pair=f"{bos} $A:0 $B:1", special_tokens=special
        )
    if name in BEGINNING:
        _overrule(backend, tokenizer, {"add_bos_token": True, **settings})
        _agree(tokenizer)
    if not _of_sentencepiece(tokenizer) or not tokenizer.vocab_file:
        return
    # Here, not above: it is slow to import, and few need it.
    from transformers.convert_slow_tokenizer import SLOW_TO_FAST_CONVERTERS

    if (make := SLOW_TO_FAST_CONVERTERS.get(name)) is not None:
        converter = make(tokenizer)
        if not _has_table(backend.normalizer):
            backend.normalizer = converter.normalizer(converter.proto)
        if name == "RemBertTokenizer":
            backend.post_processor = converter.post_processor()
    if name == "LlamaTokenizer" and settings.get("legacy") is not False:
        prefix = [Prepend("▁")] if settings.get("add_prefix_space") is not False else []
        backend.normalizer, backend.pre_tokenizer = Sequence([*prefix, Replace(" ", "▁")]), None


def _has_table(normalizer: Normalizer | None) -> bool:
    return normalizer is not None and b'"Precompiled"' in normalizer.__getstate__()
