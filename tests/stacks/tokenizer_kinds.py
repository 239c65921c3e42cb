"""Tokenizers of many classes and states: as their class makes them, and as their class would not."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

from tests.conftest import example_texts

TEXTS = (*example_texts(), "Où est le café ? 12 345", "über cafés")
NAMES = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
BERT_TOKENS = dict(zip(NAMES, ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), strict=True))
ROBERTA_TOKENS = {
    **dict(zip(NAMES, ("<pad>", "<unk>", "<s>", "</s>", "<mask>"), strict=True)),
    "bos_token": "<s>",
    "eos_token": "</s>",
}
GPT_TOKENS = {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"}
SPECIAL = {
    "bert": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    "roberta": ("<pad>", "</s>", "<s>", "<unk>", "<mask>"),
}


def _special(tokenizer: Tokenizer, *names: str) -> list[tuple[str, int]]:
    return [(name, tokenizer.token_to_id(name)) for name in names]


@cache
def _pieces(kind: str, special: str) -> str:
    """Train the model of a tokenizer: wordpiece, bytes, unigram or bpe."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made: dict[str, tuple[Any, Any, Any]] = {
        "wordpiece": (
            models.WordPiece(unk_token="[UNK]"),
            pre_tokenizers.BertPreTokenizer(),
            trainers.WordPieceTrainer,
        ),
        "bytes": (models.BPE(), byte_level, trainers.BpeTrainer),
        "unigram": (models.Unigram(), pre_tokenizers.Metaspace(), trainers.UnigramTrainer),
        "bpe": (
            models.BPE(unk_token="<unk>", fuse_unk=True),
            pre_tokenizers.Metaspace(prepend_scheme="first"),
            trainers.BpeTrainer,
        ),
    }
    model, pre_tokenizer, trainer = made[kind]
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizer
    options: dict[str, Any] = {"vocab_size": 500, "special_tokens": list(SPECIAL[special]), "show_progress": False}
    if kind == "unigram":
        options |= {"unk_token": "<unk>" if special == "roberta" else "[UNK]"}
    if kind == "bytes":
        options |= {"initial_alphabet": pre_tokenizers.ByteLevel.alphabet()}
    tokenizer.train_from_iterator(TEXTS, trainer(**options))
    return tokenizer.to_str()


def _made(kind: str, special: str) -> Tokenizer:
    return Tokenizer.from_str(_pieces(kind, special))


def wordpiece(normalizer: Any = None) -> Tokenizer:
    """A tokenizer like BERT's, by default with its normalizer."""
    tokenizer = _made("wordpiece", "bert")
    tokenizer.normalizer = normalizer or normalizers.BertNormalizer()
    tokenizer.decoder = decoders.WordPiece()
    ends = _special(tokenizer, "[CLS]", "[SEP]")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1", special_tokens=ends
    )
    return tokenizer


def bytes_level(*, prefix: bool = False, digits: bool = False, roberta: bool = False) -> Tokenizer:
    """A tokenizer like GPT-2's, StarCoder's (each digit alone) or RoBERTa's."""
    tokenizer = _made("bytes", "roberta")
    level = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), level]) if digits else level
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    if roberta:
        bos, eos = _special(tokenizer, "<s>", "</s>")
        tokenizer.post_processor = processors.RobertaProcessing(eos, bos, add_prefix_space=prefix)
    return tokenizer


def unigram(single: str, pair: str, special: str = "roberta") -> Tokenizer:
    """A tokenizer like those of SentencePiece, with a template of single texts and of pairs."""
    tokenizer = _made("unigram", special)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    ends = _special(tokenizer, *(name for name in SPECIAL[special] if name in f"{single} {pair}"))
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=ends)
    return tokenizer


def bpe(post: str | None = None) -> Tokenizer:
    """A tokenizer like Llama's, with the template of a text, or without one."""
    tokenizer = _made("bpe", "roberta")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    if post is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=post, pair=f"{post} {post.replace('$A', '$B')}", special_tokens=_special(tokenizer, "<s>")
        )
    return tokenizer


SENTENCE, PAIR = "<s> $A </s>", "<s> $A </s> </s> $B </s>"
T5_PAIR = ("$A </s>", "$A </s> $B </s>")
TYPED = ("[CLS]:0 $A:0 [SEP]:0", "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1")
XLNET = ("$A:0 [SEP]:0 [CLS]:2", "$A:0 [SEP]:0 $B:1 [SEP]:1 [CLS]:2")
# By name: the backend, its class, and what else tokenizer_config.json states.
TOKENIZERS: dict[str, tuple[Callable[[], Tokenizer], str, dict[str, Any]]] = {
    "bert": (wordpiece, "BertTokenizer", {**BERT_TOKENS, "do_lower_case": True}),
    "bert-cased": (lambda: wordpiece(normalizers.BertNormalizer(lowercase=False)), "BertTokenizer", BERT_TOKENS),
    "bert-stated": (wordpiece, "BertTokenizer", {**BERT_TOKENS, "do_lower_case": False, "strip_accents": False}),
    "bert-accents": (
        lambda: wordpiece(normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])),
        "BertTokenizer",
        BERT_TOKENS,
    ),
    "electra-accents": (
        lambda: wordpiece(normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])),
        "ElectraTokenizer",
        BERT_TOKENS,
    ),
    "generic": (wordpiece, "PreTrainedTokenizerFast", BERT_TOKENS),
    "backend": (wordpiece, "TokenizersBackend", {**BERT_TOKENS, "extra_special_tokens": ["<|extra|>"]}),
    "without-types": (
        wordpiece,
        "PreTrainedTokenizerFast",
        {**BERT_TOKENS, "model_input_names": ["input_ids", "attention_mask"]},
    ),
    "gpt2": (bytes_level, "GPT2Tokenizer", GPT_TOKENS),
    "gpt2-digits": (lambda: bytes_level(digits=True), "GPT2Tokenizer", GPT_TOKENS),
    "gpt2-prefix": (lambda: bytes_level(prefix=True), "GPT2Tokenizer", GPT_TOKENS),
    "gpt2-stated": (bytes_level, "GPT2Tokenizer", {**GPT_TOKENS, "add_prefix_space": True}),
    "neox": (bytes_level, "GPTNeoXTokenizer", GPT_TOKENS),
    "qwen": (bytes_level, "Qwen2Tokenizer", GPT_TOKENS),
    "qwen-digits": (
        lambda: bytes_level(digits=True),
        "Qwen2Tokenizer",
        {**GPT_TOKENS, "extra_special_tokens": ["<|im_start|>"]},
    ),
    "roberta": (lambda: bytes_level(roberta=True), "RobertaTokenizer", ROBERTA_TOKENS),
    "roberta-prefix": (lambda: bytes_level(roberta=True, prefix=True), "RobertaTokenizer", ROBERTA_TOKENS),
    "xlm-roberta": (lambda: unigram(SENTENCE, PAIR), "XLMRobertaTokenizer", ROBERTA_TOKENS),
    "xlm-roberta-prefix": (
        lambda: unigram(SENTENCE, PAIR),
        "XLMRobertaTokenizer",
        {**ROBERTA_TOKENS, "add_prefix_space": False},
    ),
    "albert": (lambda: unigram(*TYPED, "bert"), "AlbertTokenizer", BERT_TOKENS),
    "rembert": (lambda: unigram(*TYPED, "bert"), "RemBertTokenizer", BERT_TOKENS),
    "xlnet": (lambda: unigram(*XLNET, "bert"), "XLNetTokenizer", BERT_TOKENS),
    "deberta": (lambda: unigram(*TYPED, "bert"), "DebertaV2Tokenizer", BERT_TOKENS),
    "t5": (lambda: unigram(*T5_PAIR), "T5Tokenizer", {**GPT_TOKENS, "extra_ids": 0}),
    "llama": (lambda: bpe("<s> $A"), "LlamaTokenizer", GPT_TOKENS),
    "llama-plain": (bpe, "LlamaTokenizer", GPT_TOKENS),
    "llama-stated": (bpe, "LlamaTokenizer", {**GPT_TOKENS, "add_bos_token": True, "add_eos_token": False}),
    "llama-bytes": (bytes_level, "LlamaTokenizer", GPT_TOKENS),
    "gemma": (lambda: bpe("<s> $A"), "GemmaTokenizer", GPT_TOKENS),
}


# What tokenizer_config.json changes in those that state an option.
STATED: dict[str, Callable[[], Tokenizer]] = {
    "bert-stated": lambda: wordpiece(normalizers.BertNormalizer(lowercase=False, strip_accents=False)),
    "gpt2-stated": lambda: bytes_level(prefix=True),
    "llama-stated": lambda: bpe("<s> $A"),
}


def write_tokenizer(folder: Path, name: str, *, saved: bool) -> Tokenizer:
    """Write a tokenizer, and return the backend that its files state.

    With `saved`, they are those that this version of transformers makes of it when it loads and saves it.
    """
    make, kind, settings = TOKENIZERS[name]
    folder.mkdir(parents=True, exist_ok=True)
    made = make()
    made.save(str(folder / "tokenizer.json"))
    stated = {"tokenizer_class": kind, "model_max_length": 256, **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(stated), encoding="utf-8")
    if saved:
        AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    return STATED.get(name, make)()
