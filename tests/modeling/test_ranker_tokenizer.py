"""A real SentencePiece tokenizer, stored as DeBERTa-v3's and PairRM's are: the ids are those of the card's recipe."""

from pathlib import Path

import pytest
import transformers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from blender_hf import PairRankerProcessor
from blender_hf.modeling.tokenizer_files import load_tokenizer
from tests.conftest import backbone_config, example_texts
from tests.modeling.test_processing_pair_ranker import HOSTILE
from tests.original_checkpoints import ALL_MARKERS, KINDS, MARKERS, make_pairrm, sentencepiece, write_encoder_tokenizer

LETTERS = [*"abcXYZ 0189.,!?'\"()-\n\t<>|[]", "\u00a0", "\u3000", *"…½ﬁéＡ中😀", "👍🏽"]
ORDINARY = st.one_of(
    st.lists(st.sampled_from(LETTERS), max_size=12).map("".join),
    st.tuples(st.sampled_from(example_texts()), st.integers(0, 300), st.integers(0, 80)).map(
        lambda cut: cut[0][cut[1] : cut[1] + cut[2]]
    ),
    # Any text: but no surrogates, which are none, no control characters, which a tokenizer may drop, and no marks,
    # which may combine with the end of a marker before them. Hypothesis also tries the strings of our own source,
    # markers among them, and those are not ordinary.
    st.text(st.characters(exclude_categories=["Cs", "Cc", "M"]), max_size=12).filter(
        lambda text: not any(marker in text for marker in (*ALL_MARKERS, *HOSTILE))
    ),
)


@pytest.fixture(scope="module", params=KINDS)
def processor(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PairRankerProcessor:
    folder = make_pairrm(tmp_path_factory.mktemp("pairrm"), request.param).folder
    return PairRankerProcessor.from_pretrained(folder)


@settings(max_examples=150, deadline=None)
@given(text=ORDINARY)
@example("")
@example(" ")
@example("\n leading and trailing \n\n")
@example("  two  blanks")
@example("1234567890 2 + 2 = 4")
def test_ids_of_parts_are_the_ids_of_the_joined_string(processor: PairRankerProcessor, text: str) -> None:
    """The card encodes "<|source|>" + text; we put the parts together from ids."""
    [ids] = processor.encode_texts([text])
    joined = [processor.tokenizer.encode(marker + text) for marker in MARKERS]
    pair = processor.encode_pair(ids, ids, ids)
    assert pair.input_ids == [token for part in joined for token in part]


@pytest.mark.parametrize("kind", KINDS[1:])
def test_the_ids_are_those_of_sentencepiece(kind: str, tmp_path: Path) -> None:
    """On both stacks: transformers 5 alone loses the normalisation, and with it the ellipsis."""
    folder = make_pairrm(tmp_path, kind).folder
    processor = PairRankerProcessor.from_pretrained(folder)
    unusual = ["Wait…", "ﬁne", "½", "a\u00a0b", "ＦＵＬＬ", "  a \n\n b  ", "\u200bzero", "Tiếng Việt", "①"]
    texts = [*example_texts(), *unusual]
    assert processor.encode_texts(texts) == sentencepiece().encode(texts)
    if transformers.__version__.startswith("4"):
        by_itself = AutoTokenizer.from_pretrained(folder)(texts, add_special_tokens=False)["input_ids"]
        assert by_itself == processor.encode_texts(texts), "the recipe of the card, run with what it was written for"


def test_the_tokenizer_of_an_encoder_too(tmp_path: Path) -> None:
    """As microsoft/deberta-v3-large is stored: what a new ranker is trained with."""
    backbone_config("deberta-v2", 900).save_pretrained(tmp_path)
    write_encoder_tokenizer(tmp_path, "sentencepiece")
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer("Wait… ½", add_special_tokens=False)["input_ids"] == sentencepiece().encode("Wait… ½")
    assert PairRankerProcessor.for_training(tokenizer).encode_texts(["ＦＵＬＬ"]) == [sentencepiece().encode("FULL")]


def test_the_markers_are_not_called_special_in_the_authors_files(processor: PairRankerProcessor) -> None:
    """Else the next test would show nothing: `split_special_tokens` takes care of those that are."""
    added = {str(token): token.special for token in processor.tokenizer.added_tokens_decoder.values()}
    called_special = [added[marker] for marker in ALL_MARKERS]
    assert called_special in ([False] * 4, [True] * 4)
    if not called_special[0]:
        ids = processor.tokenizer("<|candidate2|>", add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert processor.special_token_ids()["candidate2_token_id"] in ids


@settings(max_examples=60, deadline=None)
@given(text=st.lists(st.sampled_from([*HOSTILE, " ", "a", "[", "S", "EP]", "ａ", "｜", "<|"]), max_size=8).map("".join))
@example("".join(HOSTILE))
def test_no_text_becomes_a_special_token(processor: PairRankerProcessor, text: str) -> None:
    tokenizer = processor.tokenizer
    ends = {tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id, tokenizer.mask_token_id}
    forbidden = ends | set(tokenizer.convert_tokens_to_ids(list(ALL_MARKERS)))
    [ids] = processor.encode_texts([text])
    assert forbidden.isdisjoint(ids)
    assert ids or not text.strip(), "the text is gone"
