"""Checkpoints in the formats of the authors, made on the spot, against the recipe and computation of their cards."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import try_to_load_from_cache
from safetensors.torch import load_file, save_file

from blender_hf import Blender, PairRanker, PairRankerProcessor
from blender_hf.modeling.configuration_pair_ranker import WEIGHT_NAMES, WEIGHT_PREFIXES
from tests.original_checkpoints import KINDS, PAIRS, RANKER_CONFIG, Original, make_pairrm, make_ranker

LENGTHS = {"max_pair_length": 96, "max_source_length": 40}


@pytest.fixture(scope="module", params=KINDS)
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Original:
    return make_pairrm(tmp_path_factory.mktemp("pairrm"), request.param)


def load_whole(folder: Path) -> PairRanker:
    model, info = PairRanker.from_pretrained(folder, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model


def our_logits(model: PairRanker, processor: PairRankerProcessor) -> torch.Tensor:
    with torch.no_grad():
        return model(**processor(*(list(column) for column in zip(*PAIRS, strict=True)))).logits


def test_it_loads_as_it_is_and_gives_the_logits_of_the_card(original: Original) -> None:
    processor = PairRankerProcessor.from_pretrained(original.folder, **LENGTHS)
    found = our_logits(load_whole(original.folder), processor)
    torch.testing.assert_close(found, original.logits(PAIRS, 96, 40), atol=1e-5, rtol=0)
    assert found.abs().min() > 0.01, "logits near zero would agree whatever is computed"


def test_the_blender_compares_as_the_card_does(original: Original) -> None:
    """At the full lengths of the card, and with both orders of presentation."""
    blender = Blender.from_pretrained(original.folder, None, device="cpu")
    for pair, logit_ab in zip(PAIRS, original.logits(PAIRS, 2048, 1224).tolist(), strict=True):
        comparison = blender.compare(*pair)
        [logit_ba] = original.logits([(pair[0], pair[2], pair[1])], 2048, 1224).tolist()
        assert comparison.logit_ab == pytest.approx(logit_ab, abs=1e-5)
        assert comparison.logit == pytest.approx((logit_ab - logit_ba) / 2, abs=1e-5)
        assert not comparison.truncated


def test_the_lengths_of_the_card_are_the_defaults(original: Original) -> None:
    processor = PairRankerProcessor.from_pretrained(original.folder)
    config = PairRanker.from_pretrained(original.folder).config
    for settings in (processor, config):
        assert (settings.max_pair_length, settings.max_source_length) == (2048, 1224)
        assert settings.max_candidate_length >= (2048 - 3) // 2
        assert settings.source_truncation_side == "right"


def test_it_is_saved_in_our_format(original: Original, tmp_path: Path) -> None:
    model = PairRanker.from_pretrained(original.folder)
    model.save_pretrained(tmp_path)
    PairRankerProcessor.from_pretrained(original.folder, **LENGTHS).save_pretrained(tmp_path)
    names = load_file(tmp_path / "model.safetensors")
    assert "head.dense.weight" in names
    assert not [name for name in names if name.startswith(tuple(WEIGHT_PREFIXES))]
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["model_type"] == "pair_ranker"
    again = load_whole(tmp_path)
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in model.state_dict().items())
    # The tokenizer too, with its normalisation.
    found = our_logits(again, PairRankerProcessor.from_pretrained(tmp_path))
    torch.testing.assert_close(found, original.logits(PAIRS, 96, 40), atol=1e-5, rtol=0)


def test_the_names_of_the_weights_go_there_and_back(original: Original) -> None:
    model = PairRanker.from_pretrained(original.folder)
    written = set(original.model.state_dict())
    found = set()
    for name in model.state_dict():
        [(theirs, ours)] = [pair for pair in WEIGHT_PREFIXES.items() if name.startswith(pair[1])]
        found.add(theirs + name.removeprefix(ours))
    assert found == written
    assert len(WEIGHT_NAMES) == len(set(WEIGHT_NAMES.values())), "two names for one: there is no way back"


def test_a_missing_head_is_an_error(original: Original, tmp_path: Path) -> None:
    """PEER_FAULTS: a log line, then random scores."""
    shutil.copytree(original.folder, tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors")
    encoder = {name: weight for name, weight in weights.items() if not name.startswith("head_layer.4")}
    save_file(encoder, tmp_path / "model.safetensors")
    with pytest.raises(OSError, match=r"2 missing from the checkpoint.*head\.out_proj"):
        PairRanker.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["mightbe/Better-PairRM", "models--mightbe--Better-PairRM/snapshots/0a1b2c"])
def test_better_pairrm_has_the_lengths_of_its_own_card(original: Original, name: str, tmp_path: Path) -> None:
    """Its files are those of PairRM-hf; only the name tells that it was trained with longer texts."""
    folder = tmp_path / name
    shutil.copytree(original.folder, folder)
    processor = PairRankerProcessor.from_pretrained(folder)
    for settings in (processor, PairRanker.from_pretrained(folder).config):
        assert (settings.max_pair_length, settings.max_source_length) == (3370, 2030)
        assert (settings.source_truncation_side, settings.candidate_truncation_side) == ("left", "right")
    pair = processor.encode_pair([*range(5, 3005)], [9] * 3000, [8] * 3000)
    assert len(pair.input_ids) == 3370
    assert (pair.truncated_source, pair.truncated_first) == (3000 - 2027, 3000 - 667)
    assert pair.input_ids[2:5] == [978, 979, 980], "the end of the prompt is kept, and its marker"
    short = processor.encode_pair([5], [9] * 3000, [8])
    assert short.truncated_first == 3000 - ((3370 - 4) // 2 - 3), "what a short prompt leaves is the candidates'"
    assert PairRankerProcessor.from_pretrained(folder, max_source_length=100).max_source_length == 100


def test_a_folder_with_a_similar_name_is_not_better_pairrm(original: Original, tmp_path: Path) -> None:
    """PEER_FAULTS: substrings of a path chose the model."""
    folder = tmp_path / "not-Better-PairRM"
    shutil.copytree(original.folder, folder)
    assert PairRankerProcessor.from_pretrained(folder).max_source_length == 1224


def test_the_side_that_the_tokenizer_states_holds_for_the_prompt(original: Original, tmp_path: Path) -> None:
    shutil.copytree(original.folder, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "tokenizer_config.json"
    stated = {**json.loads(path.read_text(encoding="utf-8")), "truncation_side": "left", "model_max_length": 512}
    path.write_text(json.dumps(stated), encoding="utf-8")
    processor = PairRankerProcessor.from_pretrained(tmp_path)
    assert (processor.source_truncation_side, processor.candidate_truncation_side) == ("left", "right")
    assert processor.max_pair_length == 2048, "the recipe of the card does not look at model_max_length"
    assert (
        PairRankerProcessor.from_pretrained(tmp_path, source_truncation_side="right").source_truncation_side == "right"
    )


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("kind", KINDS[:2])
def test_the_older_format_takes_encoder_and_tokenizer_from_the_encoders_repository(
    kind: str, weights: str, tmp_path: Path
) -> None:
    """As in llm-blender/PairRM and llm-blender/pair-ranker: no tokenizer, and the name of the encoder."""
    original = make_ranker(tmp_path / "ranker", kind, weights)
    found = our_logits(load_whole(original.folder), PairRankerProcessor.from_pretrained(original.folder))
    torch.testing.assert_close(found, original.logits(PAIRS, 96, 40), atol=1e-5, rtol=0)
    assert Blender.from_pretrained(original.folder, None).rank("p", ["a", "b"]).n_comparisons == 1


def test_weights_that_run_code_are_not_read(tmp_path: Path) -> None:
    """A `.bin` is a pickle, which may run anything: only tensors are read from it."""

    class Code:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "ran",)

    original = make_ranker(tmp_path / "ranker", "unigram", "pytorch_model.bin")
    torch.save({**original.model.state_dict(), "more": Code()}, original.folder / "pytorch_model.bin")
    with pytest.raises(Exception, match=r"(?i)weights"):
        PairRanker.from_pretrained(original.folder)
    assert not (tmp_path / "ran").exists()


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
