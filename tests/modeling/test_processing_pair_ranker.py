"""Texts to pairs of token ids: the layout, what is cut, and that text stays text."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blender_hf import PairRankerProcessor
from tests.conftest import BACKBONES, build_ranker, encoder_tokenizer, example_texts, ranker_processor

PROCESSOR = ranker_processor()
HOSTILE = [
    "[CLS]",
    "[SEP]",
    "[PAD]",
    "[MASK]",
    "<|source|>",
    "<|candidate1|>",
    "<|candidate2|>",
    "<|candidate|>",
    "［SEP］",  # full width: NFKC makes it the special token
    "［ＣＬＳ］",
    "＜｜candidate1｜＞",
]


def special_ids(processor: PairRankerProcessor) -> set[int]:
    tokenizer = processor.tokenizer
    ends = (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id, tokenizer.mask_token_id)
    return {*ends, *processor.special_token_ids().values()}


def test_the_layout_is_that_of_the_card() -> None:
    """Ordinary text: the ids are those of the three parts, each encoded by the tokenizer with its own ends."""
    texts = example_texts()[0], "A short answer.", "Another answer, a bit longer."
    encode = PROCESSOR.tokenizer
    marked = [f"{marker}{text}" for marker, text in zip(["<|source|>", "<|candidate1|>", "<|candidate2|>"], texts)]  # noqa: B905
    expected = [token for part in marked for token in encode(part)["input_ids"]]
    assert PROCESSOR(*([text] for text in texts))["input_ids"][0].tolist() == expected


@pytest.mark.parametrize("text", HOSTILE)
def test_special_tokens_in_texts_stay_text(text: str) -> None:
    """PEER_FAULTS: errors about tensor sizes, wrong numbers of results, silently other input."""
    inside = f"before {text} after"
    ids = PROCESSOR.encode_texts([text, inside])
    assert special_ids(PROCESSOR).isdisjoint(ids[0] + ids[1])
    assert all(ids), "the text is gone"
    pair = PROCESSOR([inside], [inside], [inside])["input_ids"][0].tolist()
    counts = {token: pair.count(token) for token in special_ids(PROCESSOR)}
    assert sorted(counts.values()) == [0, 0, 1, 1, 1, 3, 3]  # no padding, no mask, three markers, three pairs of ends


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([*HOSTILE, " ", "a", "[", "S", "EP]", "ａ", "｜"]), max_size=8).map("".join))
def test_no_text_at_all_becomes_a_special_token(text: str) -> None:
    assert special_ids(PROCESSOR).isdisjoint(PROCESSOR.encode_texts([text])[0])


def test_the_check_can_fail() -> None:
    """The tokenizer alone does read a special token out of a full-width text."""
    ids = PROCESSOR.tokenizer("［SEP］", add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert PROCESSOR.tokenizer.sep_token_id in ids


def test_the_budget_of_a_pair_depends_on_that_pair_alone() -> None:
    long, prompt = " ".join(example_texts()), "hello"
    alone = PROCESSOR([prompt], [long], ["b"])["input_ids"][0].tolist()
    beside = PROCESSOR([prompt, long], [long, long], ["b", long])
    assert [token for token in beside["input_ids"][0].tolist() if token != 0][: len(alone)] == alone


def test_what_is_cut_is_said_and_the_rest_is_kept() -> None:
    source, first, second = [5] * 100, list(range(10, 110)), [7] * 3
    pair = PROCESSOR.encode_pair(source, first, second)
    # 40 tokens of the prompt's part are 37 of text and 3 special ones; then (96 - 40) // 2 = 28 for each candidate.
    assert (pair.truncated_source, pair.truncated_first, pair.truncated_second) == (63, 75, 0)
    assert len(pair.input_ids) == 40 + 28 + 6
    assert pair.input_ids[42 : 42 + 25] == list(range(10, 35))


def test_the_left_side_is_cut_when_asked() -> None:
    processor = ranker_processor(source_truncation_side="left", candidate_truncation_side="left")
    pair = processor.encode_pair(list(range(10, 110)), list(range(200, 300)), [7])
    assert pair.input_ids[2:39] == list(range(73, 110))
    assert pair.input_ids[42:67] == list(range(275, 300))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 200), min_size=3, max_size=3))
def test_no_pair_is_longer_than_the_model_reads(lengths: list[int]) -> None:
    pair = PROCESSOR.encode_pair(*([9] * length for length in lengths))
    assert len(pair.input_ids) <= 96
    kept = sum(lengths) - pair.truncated_source - pair.truncated_first - pair.truncated_second
    assert len(pair.input_ids) == kept + 9


def test_a_conversation_is_a_prompt() -> None:
    turns = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "yes?"},
        {"role": "user", "content": "x"},
    ]
    as_text = "USER: hi\nASSISTANT: yes?\nUSER: x"
    assert (
        PROCESSOR([turns], ["a"], ["b"])["input_ids"].tolist()
        == PROCESSOR([as_text], ["a"], ["b"])["input_ids"].tolist()
    )


def test_texts_where_lists_belong_are_refused() -> None:
    with pytest.raises(TypeError, match="lists with one entry a row"):
        PROCESSOR("a prompt", ["a"], ["b"])
    with pytest.raises(ValueError, match="1 prompts, 2 candidates_a and 1 candidates_b"):
        PROCESSOR(["a prompt"], ["a", "b"], ["b"])


def test_a_tokenizer_without_the_markers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"lacks the special token <\|source\|>"):
        PairRankerProcessor(encoder_tokenizer())


@pytest.mark.parametrize("kind", BACKBONES[:1])
def test_saved_and_loaded_gives_the_same_ids(kind: str, tmp_path: Path) -> None:
    _, processor = build_ranker(kind)
    processor.save_pretrained(tmp_path)
    loaded = PairRankerProcessor.from_pretrained(tmp_path)
    batch = [example_texts()[0]], [example_texts()[1]], ["［SEP］"]
    assert loaded(*batch)["input_ids"].tolist() == processor(*batch)["input_ids"].tolist()
    assert loaded.max_pair_length == processor.max_pair_length


def test_what_is_saved_names_no_class_that_only_transformers_5_has(tmp_path: Path) -> None:
    """transformers 5 calls it TokenizersBackend, and transformers 4 then finds no tokenizer."""
    ranker_processor().save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert saved["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not {"backend", "extra_special_tokens", "is_local"} & saved.keys()


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("max_pairlength", "max_pair_length"),
        ("source_truncation_sides", "source_truncation_side"),
        ("source_maxlength", "max_source_length"),
    ],
)
def test_a_misspelt_option_is_refused(misspelt: str, meant: str, tmp_path: Path) -> None:
    """PEER_FAULTS: `source_maxlength` and other options were silently ignored."""
    ranker_processor().save_pretrained(tmp_path)
    with pytest.raises(TypeError, match=f"has no option {misspelt}; use {meant}"):
        PairRankerProcessor.from_pretrained(tmp_path, **{misspelt: 64})


def test_options_of_transformers_are_let_through(tmp_path: Path) -> None:
    ranker_processor().save_pretrained(tmp_path)
    theirs = {"revision": "main", "local_files_only": True, "trust_remote_code": False, "use_fast": True}
    theirs |= {"truncation_side": "left", "model_max_length": 64, "_from_auto": True, "cache_dir": str(tmp_path)}
    assert PairRankerProcessor.from_pretrained(tmp_path, **theirs, max_pair_length=90).max_pair_length == 90
