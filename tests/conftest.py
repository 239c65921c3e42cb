"""Small real models and tokenizers, made on the spot and kept for the session."""

import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    DebertaV2Config,
    ModernBertConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    set_seed,
)

from blender_hf import Blender, GenFuser, GenFuserConfig, GenFuserProcessor, PairRanker, PairRankerConfig
from blender_hf.modeling import PairRankerProcessor
from blender_hf.modeling.configuration_pair_ranker import TRUNCATION, is_causal
from tests.language_server import LanguageServer, serving

EXAMPLES = Path(__file__).parent.parent / "blender_hf" / "examples" / "smoke.jsonl"
BACKBONES = ("bert", "roberta", "modernbert", "deberta-v2")
LENGTHS = {"max_pair_length": 96, "max_source_length": 40, "max_candidate_length": 40}
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
    # Ten times the usual: with that, random models hardly read the texts, and rounding decides which they prefer.
    "initializer_range": 0.3,
}


def pytest_configure() -> None:
    """Share the cores between the processes that `pytest -n` starts, and what the tests start in their turn."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1:
        threads = max(1, (os.cpu_count() or 1) // workers)
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
        torch.set_num_threads(threads)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Forget the precision of the last training, which transformers 4 leaves in the environment for the next."""
    os.environ.pop("ACCELERATE_MIXED_PRECISION", None)


@cache
def example_texts() -> tuple[str, ...]:
    """Return real texts: prompts and answers of the bundled file."""
    records = [json.loads(line) for line in EXAMPLES.read_text(encoding="utf-8").splitlines()[:8]]
    return tuple(text for record in records for text in (record["prompt"], *(c["text"] for c in record["candidates"])))


def _reproducible(tokenizer: Tokenizer) -> models.Unigram:
    """Return the model of pieces as every training gives it.

    The trainer hands the rarest characters their scores, and with them their ids, in an order that is never the same.
    Other ids are another random model, which may be in doubt about a pair that the last one was sure of.
    """
    trained = json.loads(tokenizer.to_str())["model"]
    pieces = [(piece, round(score, 2)) for piece, score in trained["vocab"]]
    # The special tokens come first, with a score of 0, in the order in which they were given.
    pieces.sort(key=lambda entry: (-entry[1], entry[0] if entry[1] else ""))
    return models.Unigram(pieces, unk_id=trained["unk_id"], byte_fallback=trained["byte_fallback"])


@cache
def _raw_tokenizer() -> Tokenizer:
    """Train a tokenizer like DeBERTa-v3's: pieces of Unigram after NFKC, with the special tokens among the pieces."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    trainer = trainers.UnigramTrainer(
        vocab_size=600,
        special_tokens=special,
        unk_token="[UNK]",
        initial_alphabet=list("[]<>|/_0123456789"),
        show_progress=False,
    )
    tokenizer.train_from_iterator(example_texts(), trainer)
    tokenizer.model = _reproducible(tokenizer)
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return tokenizer


def encoder_tokenizer() -> PreTrainedTokenizerFast:
    """Return a fresh tokenizer of an encoder, without the markers of a ranker."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_raw_tokenizer().to_str()),
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        mask_token="[MASK]",
    )


def ranker_processor(**lengths: int | str) -> PairRankerProcessor:
    return PairRankerProcessor.for_training(encoder_tokenizer(), **{**LENGTHS, **lengths})


def backbone_config(kind: str, vocab_size: int) -> PretrainedConfig:
    settings = {**SMALL, "vocab_size": vocab_size, "pad_token_id": 0}
    if kind == "deberta-v2":
        # What DeBERTa-v3 has: relative positions in log buckets, shared with the content, and none that is absolute.
        return DebertaV2Config(
            **settings,
            relative_attention=True,
            position_buckets=16,
            norm_rel_ebd="layer_norm",
            share_att_key=True,
            pos_att_type=["p2c", "c2p"],
            position_biased_input=False,
            type_vocab_size=0,
        )
    if kind == "modernbert":
        special = dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0)
        return ModernBertConfig(**settings, **special, global_attn_every_n_layers=2, local_attention=32)
    return {"bert": BertConfig, "roberta": RobertaConfig}[kind](**settings)


def build_ranker(kind: str = "bert", *, seed: int = 0, **config: object) -> tuple[PairRanker, PairRankerProcessor]:
    """Return a small ranker with random weights whose logits are far from zero, and its processor."""
    set_seed(seed)
    processor = ranker_processor()
    model = PairRanker(
        PairRankerConfig(
            backbone_config=backbone_config(kind, len(processor.tokenizer)),
            **processor.special_token_ids(),
            **LENGTHS,
            **config,
        )
    ).eval()
    with torch.no_grad():
        for layer in (model.head.dense, model.head.out_proj):
            layer.weight.normal_(std=0.5)
    return model, processor


def build_separate_ranker(
    backbone: PretrainedConfig, processor: PairRankerProcessor | None = None, *, seed: int = 0, **config: object
) -> tuple[PairRanker, PairRankerProcessor]:
    """Return a ranker with random weights whose encodings are far apart, and its processor."""
    set_seed(seed)
    processor = processor or ranker_processor()
    pooling = "last" if is_causal(backbone) else "mean"
    lengths = {name: getattr(processor, name) for name in TRUNCATION}
    layout = {"layout": processor.layout, **processor.special_token_ids()}
    settings = {"pooling": pooling, "preference_dim": 4, **lengths, **layout, **config}
    model = PairRanker(PairRankerConfig(backbone_config=backbone, candidate_encoding="separate", **settings)).eval()
    with torch.no_grad():
        for layer in (model.head.dense, model.head.out_proj, model.head.preference):
            if layer is not None:
                layer.weight.normal_(std=0.2)
    return model, processor


@cache
def _raw_fuser_tokenizer() -> Tokenizer:
    """Train a tokenizer like T5's."""
    tokenizer = Tokenizer(models.Unigram())
    # As transformers converts the normalisation of T5's SentencePiece model.
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Strip(left=False, right=True)])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=700, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(example_texts(), trainer)
    tokenizer.model = _reproducible(tokenizer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer


def fuser_tokenizer() -> PreTrainedTokenizerFast:
    """Return a fresh tokenizer like T5's: Unigram, no start token, </s> at the end, and 100 sentinels."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_raw_fuser_tokenizer().to_str()),
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=512,
    )
    tokenizer.add_tokens([f"<extra_id_{k}>" for k in range(100)], special_tokens=True)
    return tokenizer


T5_SETTINGS = {
    "d_model": 32,
    "d_kv": 16,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 2,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
    "eos_token_id": 1,
}


def build_fuser(*, seed: int = 0, **config: object) -> tuple[GenFuser, GenFuserProcessor]:
    """Return a small fuser with random weights, and its processor."""
    set_seed(seed)
    tokenizer = fuser_tokenizer()
    settings = {**T5_SETTINGS, "vocab_size": len(tokenizer), **config}
    model = GenFuser(GenFuserConfig(**settings)).eval()
    model.generation_config.max_new_tokens = 24
    return model, GenFuserProcessor(tokenizer, max_source_length=256, max_candidate_length=64)


@pytest.fixture(scope="session")
def ranker() -> tuple[PairRanker, PairRankerProcessor]:
    return build_ranker()


@pytest.fixture(scope="session")
def fuser() -> tuple[GenFuser, GenFuserProcessor]:
    return build_fuser(extractive=True)


@pytest.fixture(scope="session")
def blender(ranker: tuple[PairRanker, PairRankerProcessor], fuser: tuple[GenFuser, GenFuserProcessor]) -> Blender:
    """A blender of small random models: quick, and with opinions."""
    return Blender(*ranker, *fuser)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a saved `ranker` and a saved `fuser`."""
    root = tmp_path_factory.mktemp("checkpoints")
    for name, (model, processor) in {"ranker": build_ranker(), "fuser": build_fuser(extractive=True)}.items():
        model.save_pretrained(root / name)
        processor.save_pretrained(root / name)
    return root


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small chat model."""
    from tests.generation.tiny_models import save_chat_model  # which imports this module

    return save_chat_model(tmp_path_factory.mktemp("models") / "chat")


@pytest.fixture(scope="session")
def running(chat_model: Path) -> Iterator[LanguageServer]:
    with serving(chat_model) as server:
        yield server


@pytest.fixture
def server(running: LanguageServer, monkeypatch: pytest.MonkeyPatch) -> LanguageServer:
    """A server of language models on loopback, as nobody has used it yet."""
    # `make test` forbids the Hub, by a switch that closes every connection of huggingface_hub; this one is our own.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    running.serve_another()
    return running


@pytest.fixture(scope="session")
def app_url(checkpoints: Path) -> Iterator[str]:
    """The address of the page, which really runs, with the small checkpoints."""
    from app import build_app, launch_options

    app = build_app([str(checkpoints / "ranker")], [str(checkpoints / "fuser")])
    _, url, _ = app.launch(server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, **launch_options())
    yield url
    app.close()
