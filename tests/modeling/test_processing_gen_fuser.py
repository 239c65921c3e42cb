"""The processor of the fuser: the same tokens on every stack, and segments that joined are the text."""

import json
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from blender_hf import GenFuser, GenFuserProcessor
from blender_hf.loading.checkpoints import locate
from blender_hf.modeling.fusion_encoding import FusionEncoding, Segment
from blender_hf.modeling.fusion_generation import SegmentLogitsProcessor
from blender_hf.modeling.segmentation import trimmed
from tests.conftest import build_fuser, example_texts
from tests.modeling.test_segments import allowed_tokens

MINI = Path(locate("gen-fuser-mini"))
PROCESSOR = GenFuserProcessor.from_pretrained(MINI)
LIKE_T5 = GenFuserProcessor(build_fuser()[1].tokenizer, max_source_length=8192, max_candidate_length=2048)
TEXTS = [
    "Steps:\n\n1. Boil.\n2. Wait.",
    "Use this code:\n\n    x = 1\n    y = 2\n\nThat is all.",
    "```python\ndef f():\n\treturn 1\n```\n\n- one\n- two",
    "日本語です。次の文。「はい。」終わり！",
    '  He said: "Hi."  Then he left.\t(Why?)  \n',
    "Café… 3.5 % of e.g. Dr. Who; etc.\r\nNaïve!",
    "One line",
    *example_texts()[:6],
]
PARTS = [*"aA1 .!?\n\t\"')-:`", *"。「」日！é😀", "Dr.", "\r\n", "    "]


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Hi there", [7414, 721]),
        ("Steps:\n\n1. Boil.", [4701, 185, 128, 301, 301, 119, 116, 5077, 407, 116]),
        ("日本", [323, 3726, 2530]),
    ],
)
def test_the_tokens_of_the_bundled_fuser(text: str, ids: list[int]) -> None:
    """On transformers 4 the first word had other tokens than on 5, so other texts were written."""
    assert PROCESSOR.tokenizer(text, add_special_tokens=False)["input_ids"] == ids


@pytest.mark.parametrize("stated", [True, False])
def test_the_tokens_are_those_of_the_tokenizers_library(stated: bool, tmp_path: Path) -> None:
    """Also where tokenizer_config.json does not repeat what tokenizer.json states, as older ones do not."""
    shutil.copytree(MINI, tmp_path, dirs_exist_ok=True)
    config = tmp_path / "tokenizer_config.json"
    entries = json.loads(config.read_text(encoding="utf-8"))
    assert entries["add_prefix_space"]
    config.write_text(json.dumps({k: v for k, v in entries.items() if stated or k != "add_prefix_space"}))
    processor = GenFuserProcessor.from_pretrained(tmp_path)
    processor.save_pretrained(tmp_path / "again")
    again = GenFuserProcessor.from_pretrained(tmp_path / "again")
    by_itself = Tokenizer.from_file(str(MINI / "tokenizer.json"))
    for text in TEXTS:
        for read in (processor, again):
            assert read.tokenizer(text)["input_ids"] == by_itself.encode(text).ids


@pytest.mark.parametrize("text", TEXTS)
def test_the_passages_of_a_text_joined_are_the_text(text: str) -> None:
    """A line had a blank before its break, and two Chinese or Japanese sentences had one between them."""
    assert PROCESSOR.decode_text(joined(PROCESSOR, text)) == text.strip()


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(PARTS), max_size=24).map("".join))
@example("a。「日")
@example("1.\n\n2.")
def test_the_passages_of_any_text_joined_are_the_text(text: str) -> None:
    assert PROCESSOR.decode_text(joined(PROCESSOR, text)) == trimmed(text)


@pytest.mark.parametrize("text", TEXTS)
def test_with_a_tokenizer_like_that_of_t5_too(text: str) -> None:
    """It loses line breaks, so what it makes of the whole text is what there is to keep."""
    whole = LIKE_T5.tokenizer(text.strip(), add_special_tokens=False)["input_ids"]
    assert LIKE_T5.decode_text(joined(LIKE_T5, text)) == LIKE_T5.decode_text(whole)


@pytest.mark.parametrize("processor", [PROCESSOR, LIKE_T5], ids=["byte-level", "like T5"])
@pytest.mark.parametrize("number", range(len(TEXTS) - 1))
def test_what_follows_one_candidate_is_that_candidate(processor: GenFuserProcessor, number: int) -> None:
    """With another that shares segments, in other white space and case."""
    candidates = [TEXTS[number], TEXTS[number + 1], f"{TEXTS[number].lower()}\n\nMore, {TEXTS[number]}"]
    encoding = processor.encode("Say it.", candidates)
    held = SegmentLogitsProcessor([encoding.segments], processor.tokenizer.eos_token_id, min_length_ratio=1.0)
    for candidate, text in enumerate(candidates[:2]):
        ids = [token for part in in_order(encoding, candidate) for token in part]
        for end, token in enumerate([*ids, processor.tokenizer.eos_token_id]):
            assert token in allowed_tokens(held, ids[:end])
        assert processor.decode_text(ids) == processor.decode_text(joined(processor, text))


def test_the_fuser_writes_a_candidate_as_it_is() -> None:
    model = GenFuser.from_pretrained(MINI, dtype=torch.float32, extractive_coherence=1000.0).eval()
    encodings = [PROCESSOR.encode("Say it.", list(pair)) for pair in pairwise(TEXTS[:6])]
    inputs = PROCESSOR.pad([encoding.input_ids for encoding in encodings])
    written = model.generate(**inputs, segments=[encoding.segments for encoding in encodings])
    for ids, pair in zip(written, pairwise(TEXTS[:6]), strict=True):
        assert PROCESSOR.decode_text(ids) in {text.strip() for text in pair}


def test_what_does_not_follow_is_set_apart() -> None:
    encoding = PROCESSOR.encode("Say it.", ["One line\n\nTwo.", "Yes. No.", "一。二。", "- a\n- b"])
    texts = [PROCESSOR.tokenizer.decode(segment.apart) for segment in encoding.segments]
    assert texts == ["\nOne line", "\n\nTwo.", " Yes.", " No.", " 一。", " 二。", "\n\n- a\n- b"]
    yes, one, two, items = (encoding.segments[place] for place in (2, 4, 5, 6))
    assert two.after(yes) == {two.apart}
    assert two.after(one) == {two.ids}
    assert PROCESSOR.decode_text([*yes.ids, *two.apart]) == "Yes. 二。"
    [below] = yes.after(items)
    assert PROCESSOR.decode_text([*items.ids, *below]) == "- a\n- b\n\nYes.", "it would be part of the last item"


def test_a_single_text_is_no_list_of_prompts() -> None:
    with pytest.raises(TypeError, match="one of them is a single text"):
        PROCESSOR("a prompt", [["a"]])
    with pytest.raises(TypeError, match="one of them is a single text"):
        PROCESSOR(["a prompt"], "a")
    with pytest.raises(ValueError, match="1 prompts and 2 lists"):
        PROCESSOR(["a prompt"], [["a"], ["b"]])


def joined(processor: GenFuserProcessor, text: str) -> list[int]:
    return [token for ids in processor.encode_segments(text) for token in ids]


def in_order(encoding: FusionEncoding, candidate: int) -> Iterator[tuple[int, ...]]:
    """Return the segments of a candidate as they stand there."""
    found: dict[int, Segment] = {
        place: segment for segment in encoding.segments for c, place in segment.places if c == candidate
    }
    return (found[place].at((candidate, place)) for place in sorted(found))


def test_what_is_saved_loads_on_both_transformers(tmp_path: Path) -> None:
    """5 names the tokenizer's class by a name that 4 does not know, and states things that 4 can't read."""
    PROCESSOR.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert saved["tokenizer_class"] != "TokenizersBackend"
    assert not {"backend", "extra_special_tokens", "is_local"} & saved.keys()
