"""GGUF files, the format of llama.cpp, as checkpoints: transformers reads them with the package gguf.

Byte-level tokenizers are made here, of what the file states, so that both versions of transformers give the tokens of
llama.cpp: 4 cuts the texts of most as GPT-2 does, whatever the file says, and 5 does not know all ways to cut.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Sequence, Split
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils.hub import cached_file

from blender_hf.errors import CheckpointError, require
from blender_hf.modeling.tokenizer_files import file_options

MAGIC = b"GGUF"
# What a file's `tokenizer.ggml.token_type` calls special tokens, and others that are never split.
SPECIAL, WHOLE = 3, 4
TOKENS = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Cut:
    """How a byte-level tokenizer cuts a text before it merges.

    Args:
        pieces: What makes the pieces.
        ignore_merges: Whether a piece that is a token is that token, however its merges go.
        begins: Whether texts begin with the token for it, where a file does not say.
    """

    pieces: PreTokenizer
    ignore_merges: bool = False
    begins: bool = False


def _split(pattern: str) -> PreTokenizer:
    return Sequence([Split(Regex(pattern), behavior="isolated"), ByteLevel(add_prefix_space=False, use_regex=False)])


# By `tokenizer.ggml.pre`; see `llama-vocab.cpp` of llama.cpp.
CUTS: dict[str, Cut] = {
    **dict.fromkeys(("gpt-2", "default"), Cut(ByteLevel(add_prefix_space=False))),
    **dict.fromkeys(
        ("smollm", "starcoder", "refact", "command-r"),
        Cut(Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])),
    ),
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe"), Cut(_split(LLAMA3), ignore_merges=True, begins=True)),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), Cut(_split(LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")))),
}


def gguf_path(where: str, file: str, **hub: Any) -> str:
    """Return the path of a GGUF file of a folder or a repository of the Hub, downloaded if need be.

    Raises:
        BlenderError: If what reads it is not installed.
        CheckpointError: If it is not there, or no GGUF file.
    """
    for module in ("gguf", "accelerate"):
        require(module, "gguf", "a GGUF file")
    path = cached_file(where, file, _raise_exceptions_for_missing_entries=False, **file_options(hub))
    if path is None:
        others = sorted(found.name for found in Path(where).glob("*.gguf")) if Path(where).is_dir() else []
        raise CheckpointError(f"{where} has no file {file}" + (f"; it has {', '.join(others)}" if others else ""))
    with open(path, "rb") as opened:
        if opened.read(len(MAGIC)) != MAGIC:
            raise CheckpointError(f"{path} is no GGUF file, or damaged; copy or download it again")
    return path


def load_gguf_tokenizer(where: str, file: str, **hub: Any) -> Any:
    """Load the tokenizer in a GGUF file, with its chat template; a byte-level one has the tokens of llama.cpp."""
    path = gguf_path(where, file, **hub)
    stated = require("gguf", "gguf", "a GGUF file").GGUFReader(path).fields
    cut = CUTS.get(_value(stated, "pre") or "default") if _value(stated, "model") == "gpt2" else None
    if cut is None:
        return AutoTokenizer.from_pretrained(where, gguf_file=file, **hub)
    words = _value(stated, "tokens")
    numbers = {name: _value(stated, f"{stem}_token_id") for name, stem in TOKENS.items()}
    named = {name: words[number] for name, number in numbers.items() if number is not None}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_byte_level(stated, cut, words, named.get("bos_token")),
        clean_up_tokenization_spaces=False,
        **named,
    )
    template = stated.get("tokenizer.chat_template")
    tokenizer.chat_template = None if template is None else template.contents()
    return tokenizer


def _byte_level(stated: Mapping[str, Any], cut: Cut, words: list[str], bos: str | None) -> Tokenizer:
    merges = [(left, right) for left, _, right in (merge.partition(" ") for merge in _value(stated, "merges"))]
    vocabulary = {word: number for number, word in enumerate(words)}
    backend = Tokenizer(BPE(vocabulary, merges, ignore_merges=cut.ignore_merges))
    backend.pre_tokenizer, backend.decoder = cut.pieces, decoders.ByteLevel()
    kinds = _value(stated, "token_type") or []
    for word, kind in zip(words, kinds, strict=False):
        if kind in (SPECIAL, WHOLE):
            add = backend.add_special_tokens if kind == SPECIAL else backend.add_tokens
            add([AddedToken(word, normalized=False, special=kind == SPECIAL)])
    begins = _value(stated, "add_bos_token")
    if bos is not None and (cut.begins if begins is None else begins):
        backend.post_processor = TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, vocabulary[bos])]
        )
    return backend


def _value(stated: Mapping[str, Any], name: str) -> Any:
    """Return what a file states of its tokenizer, or None."""
    field = stated.get(f"tokenizer.ggml.{name}")
    return None if field is None else field.contents()
