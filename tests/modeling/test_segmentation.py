"""Segments: what has lines of its own is one of them, and any text that is made of segments has whole blocks."""

import random
import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig

from blender_hf import Blender, GenFuserProcessor, InputError
from blender_hf.loading.checkpoints import locate
from blender_hf.modeling.fusion_generation import SegmentLogitsProcessor
from blender_hf.modeling.segmentation import is_block, is_open, split_segments, trimmed
from tests.modeling.test_segments import allowed_tokens

PROCESSOR = GenFuserProcessor.from_pretrained(locate("gen-fuser-mini"))
BLENDER = Blender.from_pretrained(device="cpu")
EOS = PROCESSOR.tokenizer.eos_token_id

FENCED = "```js\nfunction abs(x) {\n  if (x < 0) {\n    return -x;\n  }\n\n  if (x > 0) {\n    return x;\n  }\n}\n```"
SONG = "Row, row, row your boat.\nMerrily, merrily.\nLife is but a dream."
BLOCKS = {
    "fence": FENCED,
    "tildes": "~~~~ python title='x'\n```\n~~~\nx = 1\n~~~~",
    "fence of four": "````md\n```\ncode\n```\n````",
    "fence that opens in mid-line": "Run ```sh\nls\n\nls\n```",
    "indented fence": "   ```\n   x\n\n   x\n   ```",
    "indented code": "    if x:\n        a()\n\n    b()",
    "code without a fence": "def f():\n    a = 1\n\n    return a",
    "braces without a fence": "int main() {\nint x = 1;\n\nreturn x;\n}",
    "bullets": "- one. Two.\n- two\n  - nested. More.\n  continued\n* three",
    "loose items": "* one\n\n  its paragraph. Second.\n\n* two",
    "code in an item": "1. Run\n   ```sh\n   ls\n\n   ls\n   ```\n2. Look",
    "unindented code between items": "1. Run:\n\n```sh\nls\n\n- x\n```\n\n2. Look.",
    "paragraphs between items": "1. **Plan.**\n\nThink first. Then act.\n\n2. **Do.**\n\nGo.",
    "a wrapped item": "1. Boil the\nwater. Then wait.\n2. Eat.",
    "numbers in brackets": "(1) One. Two.\n(2) Two.",
    "Chinese numbers": "1、一。二。\n2、二。",
    "table": "| a | b |\n|---|:-:|\n| 1. | 2. |\n| 1. | 2. |",
    "table without edges": "a | b\n--- | ---\n1 | 2. Three.",
    "grid": "+---+\n| a |\n+---+",
    "quotation": "> Once. Twice.\n>\n> ```\n> x\nlazy line",
    "dollars": "$$\nx = 1.\n\ny = 2.\n$$",
    "brackets": "\\[\nx = 1.\n\\]",
    "environment": "\\begin{align}\na. b.\n\n\\end{align}",
    "html": "<details>\n<summary>One. Two.</summary>\n\n<details>\nx\n</details>\n\ny\n</details>",
    "comment": "<!-- one.\n\ntwo. -->",
    "verse": f"{SONG}\n{SONG}",
    "dialogue": "Ann: Hello. How are you?\n\nBob: Fine. And you?\n\nAnn: Fine.",
    "dialogue of lines": "Ann: Hello. You?\nBob: Fine.",
    "dashes": "— Hello. You?\n— Fine.",
    "heading": "## Title. More\n\nFirst sentence.",
    "underlined heading": "Title\n=====\n\n- a\n- b",
    "bold title": "**Title.**\n\nFirst sentence.",
    "lead to a list": "Do this:\n\n- a\n- b",
    "patch": "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1,3 +1,3 @@\n a. B\n-old\n+new\n\n }",
    "emoji": "✅ One. Two.\n🚀 Two.\n\n🔥 Three. Four.",
    "numbers of emoji": "1️⃣ One. Two.\n2️⃣ Two.",
    "letters": "A. One. Two.\nB. Two.",
    "Roman numbers": "i. One.\nii. Two. Three.\niii. Three.",
    "Chinese words for numbers": "一、一。二。\n二、二。",
    "log": "2024-01-01 10:00 INFO One. Two.\n2024-01-01 10:01 WARN Three. Four.",
    "subtitles": "00:01,000 --> 00:02,000\nOne. Two.",
    "notes": "[^1]: One. Two.\n[2]: http://x.y",
    "value": '{"a": "One. Two.", "b": [1]}',
    "XML": "<?xml version='1.0'?>\n<!DOCTYPE a>\n<a>\n  One. Two.\n\n</a>",
    "colons": ":::{note}\nOne. Two.\n\nThree.\n:::",
    "rule": "---\n\nFirst sentence.",
}
# What precedes and follows in a text, prose of several sentences.
BEFORE, AFTER = "It is easy. See here!", "That was all. Good."


@pytest.mark.once
@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
def test_a_block_is_one_segment(block: str) -> None:
    """Each line was a passage, written at most once: closing fences and recurring lines were lost."""
    assert split_segments(f"{BEFORE}\n\n{block}\n\n{AFTER}") == [
        *("It is easy.", " See here!", f"\n\n{block}"),
        *("\n\nThat was all.", " Good."),
    ]
    assert split_segments(block) == [trimmed(block)]
    assert split_segments(f"{block}\n\n{BEFORE}\n\n{block}")[-1] == f"\n\n{block}"
    assert is_block(block)


@pytest.mark.once
@pytest.mark.parametrize(
    ("text", "segments"),
    [
        ("Dr. Who? Yes! This, e.g. that.", ["Dr. Who?", " Yes!", " This, e.g. that."]),
        ("She said: ask him. He left.", ["She said: ask him.", " He left."]),
        ("It costs $5. Then $6. So be it.", ["It costs $5.", " Then $6.", " So be it."]),
        ("Use `a. b` and **all. of it**. See [x. y](z).", ["Use `a. b` and **all. of it**.", " See [x. y](z)."]),
        ("今日は。「はい。」と言った。終わり！？そう。", ["今日は。", "「はい。」と言った。", "終わり！？", "そう。"]),
        ("「行く。」「いや。」", ["「行く。」", "「いや。」"]),
        ("他说：“好。”然后走了。再见。", ["他说：“好。”然后走了。", "再见。"]),
        ("मैं ठीक हूँ। आप? हाँ।", ["मैं ठीक हूँ।", " आप?", " हाँ।"]),
        ("สวัสดีครับ ผมชื่อเอก\n\nลาก่อน", ["สวัสดีครับ ผมชื่อเอก", "\n\nลาก่อน"]),
        ("no end", ["no end"]),
        ("", []),
    ],
)
def test_the_sentences_of_prose(text: str, segments: list[str]) -> None:
    assert split_segments(text) == segments


@pytest.mark.once
@pytest.mark.parametrize("head", ["---\ntitle: Eggs. Hens\n\ntags: [a, b]\n---", "+++\ntitle = 'Eggs. Hens'\n+++"])
def test_front_matter_is_one_segment(head: str) -> None:
    assert split_segments(f"{head}\n\nOne. Two.") == [head, "\n\nOne.", " Two."]


@pytest.mark.once
@pytest.mark.parametrize(
    ("text", "expected"),
    [("```\nx", True), ("- a\n  ```\n  x", True), (FENCED, False), ("> ```\n> x", False), ("Yes.", False)],
)
def test_code_that_is_never_closed(text: str, expected: bool) -> None:
    assert is_open(text) is expected


markdown = st.lists(
    st.sampled_from([*BLOCKS.values(), BEFORE, AFTER, "今日は。「はい。」終わり！", "ไม่มี"]), min_size=1, max_size=5
).map("\n\n".join)


@pytest.mark.once
@settings(max_examples=150, deadline=None)
@given(markdown)
def test_each_block_of_a_text_is_in_one_segment(text: str) -> None:
    segments = split_segments(text)
    assert "".join(segments) == trimmed(text)
    for block in BLOCKS.values():
        if block.startswith("---") and "diff --git" in text:
            continue  # in a patch such a line is one that is removed
        holding = sum(segment.count(trimmed(block)) for segment in segments)
        assert holding >= trimmed(text).count(trimmed(block))


@pytest.mark.once
@settings(max_examples=15, deadline=None)
@given(st.lists(markdown, min_size=1, max_size=2), st.integers(0, 10**6))
@example([f"Code:\n\n{FENCED}\n\n{AFTER}", f"{FENCED}\nIt works."], 0)
@example([f"{SONG}\n\nWe sing. A verse.\n\n{SONG}", SONG], 1)
def test_whatever_is_written_has_whole_blocks(candidates: list[str], seed: int) -> None:
    """Any order that the fuser may choose, by a random walk over what it may write."""
    written = fused_at_random(candidates, random.Random(seed))
    known = {trimmed(segment) for text in candidates for segment in split_segments(text)}
    for segment in sorted(known, key=len, reverse=True):
        written = written.replace(segment, "¤" if is_block(segment) else "·")
    assert re.fullmatch(r"[¤·\s]*", written), "only whole segments"
    assert not re.search(r"\S[ \t]*¤|¤[^\n]", written), "blocks have lines of their own"


def fused_at_random(candidates: Sequence[str], rng: random.Random) -> str:
    encoding = PROCESSOR.encode("Say it.", candidates)
    held = SegmentLogitsProcessor([encoding.segments], EOS, min_length_ratio=1.0, max_overlap=0.7)
    ids: list[int] = []
    while (token := rng.choice(sorted(allowed_tokens(held, ids)))) != EOS:
        ids.append(token)
    return PROCESSOR.decode_text(ids)


def fused(candidates: Sequence[str], **generation: Any) -> str:
    return BLENDER.fuse("Say it.", list(candidates), generation=generation).text


def test_what_the_bundled_fuser_makes_of_code_and_songs() -> None:
    """The second brace, the closing fence and the second verse were missing."""
    first, second = f"Here is the function:\n\n{FENCED}", f"Use this:\n\n{FENCED.replace('x', 'y')}\nIt works."
    assert fused([first, second]) in {first, second}
    song = f"{SONG}\n\nWe sing it twice.\n\n{SONG}"
    assert fused([song, f"Well, a song.\n\n{SONG}"]).count(SONG) in (1, 2)
    assert fused([song, song]) == song


@pytest.mark.parametrize(
    "options",
    [
        {"stop_strings": ["return"]},
        {"max_time": 0.001},
        {"no_repeat_ngram_size": 2},
        {"bad_words_ids": [[7]]},
        {"suppress_tokens": [7]},
        {"forced_eos_token_id": 1},
        {"generation_config": GenerationConfig(no_repeat_ngram_size=2)},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_would_cut_a_segment_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"would cut the segments .* limit the answer with max_new_tokens"):
        fused([FENCED, SONG], **options)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_new_tokens": 3}, {"Short one."}),
        ({"max_length": 4, "num_beams": 2}, {"Short one."}),
        ({"max_new_tokens": 30}, {"Short one."}),
        ({"min_new_tokens": 90, "do_sample": True}, {f"Short one.\n\n{SONG}", f"{SONG}\n\nShort one."}),
    ],
)
def test_lengths_are_kept_to_in_whole_segments(options: dict[str, Any], expected: set[str]) -> None:
    """At least one is written; the shortest, if none is as short as was asked for."""
    assert fused([f"{SONG}\n{SONG}" if "max_new_tokens" in options else SONG, "Short one."], **options) in expected


def test_a_block_that_the_fuser_can_not_read_whole_is_written_whole() -> None:
    processor = GenFuserProcessor(PROCESSOR.tokenizer, max_candidate_length=16)
    encoding = processor.encode("Say it.", [FENCED, f"{SONG}\n\nYes."])
    assert [processor.decode_text(segment.ids) for segment in encoding.segments] == [FENCED, SONG]
    assert all(encoding.truncated_candidates)
