"""Checkpoints in the format of llm-blender/PairRM-hf, made on the spot, against the recipe of its card."""

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import try_to_load_from_cache
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import DebertaV2Config, DebertaV2Model, PreTrainedTokenizerFast, set_seed

from blender_hf import Blender, PairRanker, PairRankerProcessor
from tests.conftest import backbone_config, encoder_tokenizer, example_texts, ranker_processor

MARKERS = ("<|source|>", "<|candidate1|>", "<|candidate2|>")


class OriginalPairRM(nn.Module):
    """The computation of the PairRM-hf card, re-stated: nothing here is from the package."""

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

    def logit(self, ids: torch.Tensor, marker_ids: list[int]) -> torch.Tensor:
        hidden = self.pretrained_model(ids[None]).last_hidden_state[0]
        source, left, right = (hidden[ids.tolist().index(marker)] for marker in marker_ids)
        scores = [self.head_layer(torch.cat([source, candidate])) for candidate in (left, right)]
        return (scores[0] - scores[1]).mean()


def card_ids(tokenizer: PreTrainedTokenizerFast, texts: tuple[str, str, str], lengths: tuple[int, int]) -> torch.Tensor:
    """Join a pair as the card does: the source cut at a length, each candidate at half of what it leaves."""
    total, source_length = lengths
    ids = tokenizer.encode(MARKERS[0] + texts[0], max_length=source_length, truncation=True)
    budget = (total - len(ids)) // 2
    for marker, text in zip(MARKERS[1:], texts[1:], strict=True):
        ids = ids + tokenizer.encode(marker + text, max_length=budget, truncation=True)
    return torch.tensor(ids)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, OriginalPairRM]:
    folder = tmp_path_factory.mktemp("pairrm")
    set_seed(0)
    processor = ranker_processor()
    ids = processor.tokenizer.convert_tokens_to_ids([*MARKERS, "<|candidate|>"])
    config = backbone_config("deberta-v2", len(processor.tokenizer))
    extra = {"n_tasks": 1, "drop_out": 0.05, "sep_token_id": processor.tokenizer.sep_token_id}
    names = ("source_prefix_id", "cand1_prefix_id", "cand2_prefix_id", "cand_prefix_id")
    for name, value in {**extra, **dict(zip(names, ids, strict=True))}.items():
        setattr(config, name, value)
    model = OriginalPairRM(config).eval()
    for layer in (model.head_layer[1], model.head_layer[4]):
        nn.init.normal_(layer.weight, std=0.5)
    config.architectures = ["DebertaV2PairRM"]
    config.save_pretrained(folder)
    # A buffer that the releases of its time saved too.
    weights = {**model.state_dict(), "pretrained_model.embeddings.position_ids": torch.arange(128)[None]}
    save_file({name: weight.contiguous() for name, weight in weights.items()}, folder / "model.safetensors")
    processor.tokenizer.save_pretrained(folder)
    return folder, model


def test_it_loads_as_it_is_and_gives_the_logits_of_the_card(original: tuple[Path, OriginalPairRM]) -> None:
    folder, reference = original
    model, info = PairRanker.from_pretrained(folder, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    processor = PairRankerProcessor.from_pretrained(folder, max_pair_length=96, max_source_length=40)
    texts = example_texts()
    pairs = [
        ("hello!", "hi!", "f**k off!"),
        ("I love you!", "I hate you!", "I love you, too!"),
        (texts[0], texts[1], texts[2]),
        (" ".join(texts[:3]), texts[3], "short"),
    ]
    marker_ids = processor.tokenizer.convert_tokens_to_ids(list(MARKERS))
    with torch.no_grad():
        found = model(**processor(*(list(column) for column in zip(*pairs, strict=True)))).logits
        expected = [reference.logit(card_ids(processor.tokenizer, pair, (96, 40)), marker_ids) for pair in pairs]
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=1e-5)


def test_the_lengths_of_the_card_are_the_defaults(original: tuple[Path, OriginalPairRM]) -> None:
    processor = PairRankerProcessor.from_pretrained(original[0])
    config = PairRanker.from_pretrained(original[0]).config
    for settings in (processor, config):
        assert (settings.max_pair_length, settings.max_source_length) == (2048, 1224)
        assert settings.max_candidate_length >= (2048 - 3) // 2
        assert settings.source_truncation_side == "right"


def test_it_is_saved_in_our_format(original: tuple[Path, OriginalPairRM], tmp_path: Path) -> None:
    model = PairRanker.from_pretrained(original[0])
    model.save_pretrained(tmp_path)
    names = load_file(tmp_path / "model.safetensors")
    assert "head.dense.weight" in names
    assert not [name for name in names if name.startswith(("pretrained_model.", "head_layer."))]
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["model_type"] == "pair_ranker"
    again = PairRanker.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(weight, again[name]) for name, weight in model.state_dict().items())


def test_a_missing_head_is_an_error(original: tuple[Path, OriginalPairRM], tmp_path: Path) -> None:
    for path in original[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    encoder = {name: weight for name, weight in weights.items() if not name.startswith("head_layer.4")}
    save_file(encoder, tmp_path / "model.safetensors")
    with pytest.raises(OSError, match=r"2 missing from the checkpoint.*head\.out_proj"):
        PairRanker.from_pretrained(tmp_path)


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


@pytest.mark.parametrize("kind", ["model.safetensors", "pytorch_model.bin"])
def test_the_older_format_takes_encoder_and_tokenizer_from_the_encoders_repository(kind: str, tmp_path: Path) -> None:
    """As in llm-blender/PairRM and llm-blender/pair-ranker: no tokenizer, and the name of the encoder."""
    set_seed(1)
    encoder, folder = tmp_path / "encoder", tmp_path / "ranker"
    folder.mkdir()
    tokenizer = encoder_tokenizer()
    tokenizer.save_pretrained(encoder)
    backbone_config("deberta-v2", len(tokenizer) + 100).save_pretrained(encoder)  # DeBERTa-v3 has spare rows too
    settings = {**RANKER_CONFIG, "model_name": str(encoder)}
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    config = backbone_config("deberta-v2", len(tokenizer) + 4)
    config.n_tasks = 2
    reference = OriginalPairRM(config).eval()
    for layer in (reference.head_layer[1], reference.head_layer[4]):
        nn.init.normal_(layer.weight, std=0.5)
    save = save_file if kind.endswith(".safetensors") else torch.save
    save({name: weight.contiguous() for name, weight in reference.state_dict().items()}, folder / kind)

    model, info = PairRanker.from_pretrained(folder, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    processor = PairRankerProcessor.from_pretrained(folder)
    texts = example_texts()
    pairs = [("hello!", "hi!", "bye"), (" ".join(texts[:3]), texts[3], "short")]
    marker_ids = processor.tokenizer.convert_tokens_to_ids(list(MARKERS))
    with torch.no_grad():
        found = model(**processor(*(list(column) for column in zip(*pairs, strict=True)))).logits
        expected = [reference.logit(card_ids(processor.tokenizer, pair, (96, 40)), marker_ids) for pair in pairs]
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=1e-5)
    assert Blender.from_pretrained(folder, None).rank("p", ["a", "b"]).n_comparisons == 1


def test_another_type_of_ranker_is_refused(tmp_path: Path) -> None:
    settings = {**RANKER_CONFIG, "model_name": "x", "ranker_type": "summareranker"}
    (tmp_path / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(ValueError, match="'summareranker'; only 'pairranker' compares pairs"):
        PairRanker.from_pretrained(tmp_path)


def test_the_golden_logits_of_the_card() -> None:
    """With the real weights: the example of the card, when they are in the Hub's cache."""
    if not isinstance(try_to_load_from_cache("llm-blender/PairRM-hf", "config.json"), str):
        pytest.skip("llm-blender/PairRM-hf is not in the Hub's cache: its golden logits were not checked")
    blender = Blender.from_pretrained("llm-blender/PairRM-hf", None, local_files_only=True, device="cpu")
    results = blender.compare(["hello!", "I love you!"], ["hi!", "I hate you!"], ["f**k off!", "I love you, too!"])
    assert [result.logit_ab for result in results] == pytest.approx([1.9003021717071533, -1.2547134160995483], abs=1e-4)
