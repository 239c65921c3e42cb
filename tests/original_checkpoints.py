"""Checkpoints in the formats of LLM-Blender's authors, made on the spot: true layers, random weights, real tokenizers.

The computation and the recipe of the cards are re-stated here, in plain torch and SentencePiece: nothing of them comes
from the package, and nothing of the tokenizers of transformers either where the tokenizer is SentencePiece.
"""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer, sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import DebertaV2Config, DebertaV2Model, set_seed

from tests.conftest import backbone_config, encoder_tokenizer, example_texts, ranker_processor

MARKERS = ("<|source|>", "<|candidate1|>", "<|candidate2|>")
ALL_MARKERS = (*MARKERS, "<|candidate|>")
# As DeBERTa-v3 has them, at the ids 0 to 3; [MASK] stands behind the vocabulary, and the authors' tokens behind it.
ENDS = {"pad": "[PAD]", "bos": "[CLS]", "eos": "[SEP]", "unk": "[UNK]"}
KINDS = ("unigram", "sentencepiece", "sentencepiece with tokenizer.json")
Pair = tuple[str, str, str]
# Ordinary texts; nmt_nfkc turns letters of the third into others, which NFC would leave as they are.
PAIRS: list[Pair] = [
    ("hello!", "hi!", "f**k off!"),
    ("I love you!", "I hate you!", "I love you, too!"),
    ("  Wait… is it ½ or\u00a0¼?\n", "\nIt is ½…", "Ｆｕｌｌ width ﬁne 😀  "),
    (example_texts()[0], example_texts()[1], example_texts()[2]),
    (" ".join(example_texts()[:3]), example_texts()[3], "short"),
]


class OriginalPairRM(nn.Module):
    """The computation of the PairRM-hf card."""

    def __init__(self, config: DebertaV2Config) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.pretrained_model = DebertaV2Model(config)
        self.head_layer = nn.Sequential(
            nn.Dropout(0.05),
            nn.Linear(2 * hidden, hidden),
            nn.Tanh(),
            nn.Dropout(0.05),
            nn.Linear(hidden, config.n_tasks),
        )

    @torch.no_grad()
    def logit(self, ids: list[int], marker_ids: list[int]) -> torch.Tensor:
        hidden = self.pretrained_model(torch.tensor([ids])).last_hidden_state[0]
        source, left, right = (hidden[ids.index(marker)] for marker in marker_ids)
        scores = [self.head_layer(torch.cat([source, candidate])) for candidate in (left, right)]
        return (scores[0] - scores[1]).mean()


@dataclass(frozen=True)
class Original:
    """A checkpoint of the authors and what it should give.

    Args:
        folder: Where it is.
        model: The reference computation with the same weights.
        encode: (marker, text, most tokens) to ids, as the card's recipe.
        marker_ids: The ids of `ALL_MARKERS`.
    """

    folder: Path
    model: OriginalPairRM
    encode: Callable[[str, str, int], list[int]]
    marker_ids: list[int]

    def ids(self, pair: Pair, max_pair_length: int, max_source_length: int) -> list[int]:
        """Join a pair as the card does: the source cut at a length, each candidate at half of what it leaves."""
        ids = self.encode(MARKERS[0], pair[0], max_source_length)
        budget = (max_pair_length - len(ids)) // 2
        return [*ids, *self.encode(MARKERS[1], pair[1], budget), *self.encode(MARKERS[2], pair[2], budget)]

    def logits(self, pairs: list[Pair], max_pair_length: int, max_source_length: int) -> torch.Tensor:
        """Give the (pairs,) logits of the reference."""
        rows = [self.ids(pair, max_pair_length, max_source_length) for pair in pairs]
        return torch.stack([self.model.logit(row, self.marker_ids[:3]) for row in rows])


def make_pairrm(folder: Path, kind: str, **config: Any) -> Original:
    """Make a checkpoint like `llm-blender/PairRM-hf`."""
    encode, marker_ids = write_tokenizer(folder, kind)
    settings = backbone_config("deberta-v2", marker_ids[-1] + 1)
    names = ("source_prefix_id", "cand1_prefix_id", "cand2_prefix_id", "cand_prefix_id")
    extra = {"n_tasks": 1, "drop_out": 0.05, "sep_token_id": 2, **dict(zip(names, marker_ids, strict=True)), **config}
    for name, value in extra.items():
        setattr(settings, name, value)
    model = random_model(settings)
    settings.architectures = ["DebertaV2PairRM"]
    settings.save_pretrained(folder)
    # A buffer that the releases of its time saved too.
    save_weights(model, folder / "model.safetensors", {"pretrained_model.embeddings.position_ids": torch.arange(9)})
    return Original(folder, model, encode, marker_ids)


RANKER_CONFIG = {
    "ranker_type": "pairranker",
    "model_type": "deberta",
    "cache_dir": None,
    "load_checkpoint": None,
    "source_maxlength": 40,
    "candidate_maxlength": 28,
    "n_tasks": 2,
    "num_pos": 5,
    "loss_type": "instructgpt",
    "drop_out": 0.05,
}


def make_ranker(folder: Path, kind: str, weights: str) -> Original:
    """Make a checkpoint like `llm-blender/PairRM` and `pair-ranker`, and beside it the encoder that it names."""
    encoder = folder.with_name("encoder")
    folder.mkdir()
    encode, marker_ids = write_encoder_tokenizer(encoder, kind)
    backbone_config("deberta-v2", marker_ids[-1] + 97).save_pretrained(encoder)  # DeBERTa-v3 has spare rows too
    (folder / "config.json").write_text(json.dumps({**RANKER_CONFIG, "model_name": str(encoder)}), encoding="utf-8")
    settings = backbone_config("deberta-v2", marker_ids[-1] + 1)
    settings.n_tasks = RANKER_CONFIG["n_tasks"]
    model = random_model(settings)
    save_weights(model, folder / weights)
    return Original(folder, model, encode, marker_ids)


def random_model(config: DebertaV2Config) -> OriginalPairRM:
    """Return a model whose logits are far from zero and hang on every token."""
    set_seed(0)
    config.initializer_range = 0.2
    model = OriginalPairRM(config).eval()
    for layer in (model.head_layer[1], model.head_layer[4]):
        nn.init.normal_(layer.weight, std=0.5)
    return model


def save_weights(model: nn.Module, path: Path, more: dict[str, torch.Tensor] | None = None) -> None:
    weights = {name: weight.contiguous() for name, weight in {**model.state_dict(), **(more or {})}.items()}
    (save_file if path.suffix == ".safetensors" else torch.save)(weights, path)


def write_tokenizer(folder: Path, kind: str) -> tuple[Callable[[str, str, int], list[int]], list[int]]:
    """Write the tokenizer of a ranker, and return the recipe of the card and the ids of the markers."""
    if kind == "unigram":
        tokenizer = ranker_processor().tokenizer
        tokenizer.save_pretrained(folder)
        return _by_transformers(tokenizer), tokenizer.convert_tokens_to_ids(list(ALL_MARKERS))
    added = {token: len(sentencepiece()) + k for k, token in enumerate(("[MASK]", *ALL_MARKERS))}
    tokens = {**{token: k for k, token in enumerate(ENDS.values())}, **added}
    named = {f"{name}_token": token for name, token in ENDS.items()}
    named |= {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    # As transformers 4 saved it. The authors' tokens were added, but never called special.
    decoder = {
        str(k): {
            "content": token,
            "lstrip": False,
            "normalized": token in ALL_MARKERS or token == "[UNK]",
            "rstrip": False,
            "single_word": False,
            "special": token not in ALL_MARKERS,
        }
        for token, k in tokens.items()
    }
    settings = {
        "added_tokens_decoder": decoder,
        **named,
        "do_lower_case": False,
        "model_max_length": 1000000000000000019884624838656,
        "sp_model_kwargs": {},
        "split_by_punct": False,
        "tokenizer_class": "DebertaV2Tokenizer",
        "vocab_type": "spm",
    }
    (folder / "spm.model").write_bytes(_trained())
    files = {"tokenizer_config": settings, "added_tokens": added, "special_tokens_map": named}
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    if kind.endswith("tokenizer.json"):
        _fast_tokenizer(decoder).save(str(folder / "tokenizer.json"))
    return _by_sentencepiece, [added[token] for token in ALL_MARKERS]


def write_encoder_tokenizer(folder: Path, kind: str) -> tuple[Callable[[str, str, int], list[int]], list[int]]:
    """Write the tokenizer of a plain encoder; `microsoft/deberta-v3-large` is a model and two settings."""
    folder.mkdir(exist_ok=True)
    if kind == "unigram":
        encoder_tokenizer().save_pretrained(folder)
        tokenizer = ranker_processor().tokenizer
        return _by_transformers(tokenizer), tokenizer.convert_tokens_to_ids(list(ALL_MARKERS))
    (folder / "spm.model").write_bytes(_trained())
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false, "vocab_type": "spm"}', encoding="utf-8")
    return _by_sentencepiece, [len(sentencepiece()) + 1 + k for k in range(4)]


@cache
def sentencepiece() -> SentencePieceProcessor:
    """Return the SentencePiece model itself."""
    return SentencePieceProcessor(model_proto=_trained())


@cache
def _trained() -> bytes:
    """Train a SentencePiece model like that of DeBERTa-v3: Unigram pieces after nmt_nfkc."""
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=(line for text in example_texts() for line in text.splitlines() if line),
        model_writer=model,
        model_type="unigram",
        vocab_size=700,
        hard_vocab_limit=False,
        normalization_rule_name="nmt_nfkc",
        required_chars="[]<>|/_0123456789⁄",
        num_threads=1,
        minloglevel=2,
        **{f"{name}_id": k for k, name in enumerate(ENDS)},
        **{f"{name}_piece": piece for name, piece in ENDS.items()},
    )
    return model.getvalue()


def _fast_tokenizer(decoder: dict[str, dict[str, Any]]) -> Tokenizer:
    """Convert the model to a tokenizer.json as transformers 4 does for DeBERTa."""
    proto = sentencepiece_model_pb2.ModelProto.FromString(_trained())
    tokenizer = Tokenizer(models.Unigram([(piece.piece, piece.score) for piece in proto.pieces], unk_id=3))
    table = normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Strip(), table, normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.add_tokens([AddedToken(**token) for token in decoder.values()])
    return tokenizer


def _by_transformers(tokenizer: Any) -> Callable[[str, str, int], list[int]]:
    return lambda marker, text, length: tokenizer.encode(marker + text, max_length=length, truncation=True)


def _by_sentencepiece(marker: str, text: str, length: int) -> list[int]:
    marker_id = len(sentencepiece()) + 1 + ALL_MARKERS.index(marker)
    return [1, *[marker_id, *sentencepiece().encode(text)][: length - 2], 2]
