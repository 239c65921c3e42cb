"""Inputs of timings: texts of mixed length, and rankers with random weights."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from transformers import AutoModel, DebertaV2Config

import blender_hf
from blender_hf import PairRanker, PairRankerConfig
from blender_hf.modeling.configuration_pair_ranker import OF_JOINT

SPECIAL = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
MARKERS = 4  # the authors' tokens, which both packages add to the tokenizer
# What DeBERTa-v3 has in every size.
DEBERTA_V3 = {
    "max_position_embeddings": 512,
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "type_vocab_size": 0,
    "layer_norm_eps": 1e-7,
    "pad_token_id": 0,
}
# As published for PairRM, without the settings of training.
RANKER_CONFIG = {
    "ranker_type": "pairranker",
    "model_type": "deberta",
    "source_maxlength": 1224,
    "candidate_maxlength": 412,
    "n_tasks": 1,
    "drop_out": 0.05,
}


@dataclass(frozen=True)
class Shape:
    """The size of an encoder."""

    name: str
    layers: int
    hidden: int

    def config(self, vocab_size: int) -> DebertaV2Config:
        """Return the configuration; weights of this size preserve the scale of activations from layer to layer."""
        return DebertaV2Config(
            num_hidden_layers=self.layers,
            hidden_size=self.hidden,
            num_attention_heads=self.hidden // 64,
            intermediate_size=4 * self.hidden,
            vocab_size=vocab_size,
            initializer_range=self.hidden**-0.5,
            **DEBERTA_V3,
        )


SHAPES = {shape.name: shape for shape in (Shape("mini", 6, 384), Shape("base", 12, 768))}
LARGE = Shape("large", 24, 1024)
VOCABULARY = 128104  # of DeBERTa-v3 with the markers
EXAMPLES = Path(blender_hf.__file__).parent / "examples" / "smoke.jsonl"


def read_records(path: Path = EXAMPLES) -> list[dict[str, Any]]:
    """Read prompts with their candidates."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def texts_of(records: Sequence[dict[str, Any]]) -> list[str]:
    """Return the prompts and candidates of records, for a tokenizer to be trained on."""
    return [text for record in records for text in (record["prompt"], *(c["text"] for c in record["candidates"]))]


def make_job(
    records: Sequence[dict[str, Any]],
    n_prompts: int,
    n_candidates: int,
    words: tuple[int, int],
    seed: int = 0,
    passage_words: int = 0,
) -> dict[str, Any]:
    """Make prompts with candidates of mixed length.

    A prompt has its own candidates and, if they are too few, answers to other prompts. The answers of a prompt are
    truncated to about the same number of words, spread log-uniformly over the prompts between the two of `words`. With
    `passage_words`, a prompt begins with a text of so many words, as questions about a passage do.
    """
    rng = random.Random(seed)
    least, most = words
    about = [least * (most / least) ** ((k + 0.5) / n_prompts) for k in range(n_prompts)]
    rng.shuffle(about)
    prompts, candidates = [], []
    for k in range(n_prompts):
        turned = [*records[k % len(records) :], *records[: k % len(records)]]
        texts = list(dict.fromkeys(c["text"] for record in turned for c in record["candidates"]))
        # Shorter than the least, answers would be equal, and equal ones are not compared.
        lengths = [max(least, round(about[k] * rng.uniform(0.6, 1.4))) for _ in range(n_candidates)]
        passage = first_words(" ".join(c["text"] for c in turned[-1]["candidates"]), passage_words)
        prompts.append(f"{passage}\n\n{turned[0]['prompt']}" if passage_words else turned[0]["prompt"])
        candidates.append([first_words(text, n) for text, n in zip(texts, lengths, strict=False)])
    return {"prompts": prompts, "candidates": candidates}


def first_words(text: str, n: int) -> str:
    """Truncate a text after n words.

    >>> first_words("a b c", 2)
    'a b'
    """
    return " ".join(text.split(" ")[:n])


def separate_of(ranker: PairRanker, shared_prompt: bool = False) -> PairRanker:
    """Return a ranker that encodes each candidate once, with the encoder of one that reads pairs and a random head."""
    form = {"candidate_encoding": "separate", "shared_prompt": shared_prompt, "preference_dim": 8}
    model = PairRanker(PairRankerConfig.from_dict({**ranker.config.to_dict(), **OF_JOINT, **form}))
    model = model.to(ranker.device, ranker.dtype).eval()
    model.backbone = ranker.backbone
    return model


def save_tokenizer(folder: Path, texts: Sequence[str], vocab_size: int = 8000) -> int:
    """Train a tokenizer like DeBERTa-v3's, save it for transformers 4 and 5, and return the size of its vocabulary."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size, special_tokens=list(SPECIAL.values()), unk_token="[UNK]", show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **SPECIAL}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return tokenizer.get_vocab_size()


def save_checkpoint(root: Path, shape: Shape, texts: Sequence[str], seed: int = 0) -> Path:
    """Save a ranker with random weights in the authors' older format, and return its folder."""
    torch.manual_seed(seed)
    encoder_folder, folder = root / f"{shape.name}-encoder", root / f"{shape.name}-ranker"
    n_tokens = save_tokenizer(encoder_folder, texts)
    encoder = AutoModel.from_config(shape.config(n_tokens))
    encoder.save_pretrained(encoder_folder)
    encoder.resize_token_embeddings(n_tokens + MARKERS)
    weights = {f"pretrained_model.{name}": weight for name, weight in encoder.state_dict().items()}
    dense, out = nn.Linear(2 * shape.hidden, shape.hidden), nn.Linear(shape.hidden, 1)
    nn.init.normal_(dense.weight, std=(2 * shape.hidden) ** -0.5)
    nn.init.normal_(out.weight, std=16 * shape.hidden**-0.5)  # logits as far apart as those of a trained ranker
    for place, layer in ((1, dense), (4, out)):
        weights |= {f"head_layer.{place}.{name}": weight for name, weight in layer.state_dict().items()}
    folder.mkdir()
    save_file({name: weight.contiguous() for name, weight in weights.items()}, folder / "model.safetensors")
    settings = {**RANKER_CONFIG, "model_name": str(encoder_folder)}
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder
