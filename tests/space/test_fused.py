import threading

import pytest

from blender_hf import Blender
from blender_hf.engine.results import Fusion, Ranking, Truncation
from blender_hf.errors import InputError
from blender_hf.inputs import make_item
from blender_hf.space.fused import fusion_item, iter_fusion, judge_fusion, sourced_passages
from blender_hf.space.settings import FusionSettings

pytestmark = pytest.mark.once

TEXTS = ("Boil the water. Add the egg.", "Eggs are laid by hens. Wait eight minutes.", "No. Never. I like trains.")


ITEM = make_item("How do I boil an egg?", TEXTS)


@pytest.fixture(scope="module")
def ranking(blender: Blender) -> Ranking:
    return blender.rank(ITEM.prompt, TEXTS)


def test_passages_are_the_text_and_name_their_sources() -> None:
    fused = "add  the egg. Wait eight minutes, or nine or ten. Then you eat it.\nEggs are laid by hens."
    passages = sourced_passages(fused, {1: TEXTS[1], 0: TEXTS[0]})
    assert "".join(passage.text for passage in passages) == fused
    assert [(passage.source, passage.exact) for passage in passages] == [
        (0, True),
        (None, False),
        (None, False),
        (1, True),
    ]


def test_a_passage_that_was_changed_a_little_keeps_its_source() -> None:
    (passage,) = sourced_passages(
        "The quick brown fox jumps over a dog.", {3: "The quick brown fox jumps over the dog."}
    )
    assert (passage.source, passage.exact) == (3, False)


def test_part_of_a_word_is_no_source() -> None:
    assert sourced_passages("cat", {0: "concatenate"})[0].source is None


def test_of_two_sources_the_better_candidate_is_named() -> None:
    assert sourced_passages("Yes.", {5: "No. Yes.", 2: "Yes."})[0].source == 5


@pytest.mark.parametrize("num_beams", [1, 2])
def test_the_text_is_shown_as_it_is_written(blender: Blender, ranking: Ranking, num_beams: int) -> None:
    item, chosen = fusion_item(ITEM, ranking, 2, 10)
    assert chosen == ranking.order[:2]
    lock = threading.Lock()
    *texts, fusion = iter_fusion(item, blender.fuser, FusionSettings(24, num_beams), lock)
    assert isinstance(fusion, Fusion)
    generation = {"max_new_tokens": 24, "num_beams": num_beams}
    assert fusion == blender.fuse(item.prompt, item.texts, generation=generation)
    assert bool(texts) == (num_beams == 1)
    assert all(fusion.text.startswith(text) for text in texts)
    assert not lock.locked()


def test_an_error_while_writing_reaches_the_reader(blender: Blender, ranking: Ranking) -> None:
    item, _ = fusion_item(ITEM, ranking, 2, 10)
    settings = FusionSettings(24)
    object.__setattr__(settings, "max_new_tokens", -1)
    with pytest.raises(InputError, match="can't generate"):
        list(iter_fusion(item, blender.fuser, settings, threading.Lock()))


def test_the_fusion_is_judged_against_the_best(blender: Blender, ranking: Ranking) -> None:
    fusion = blender.fuse(ITEM.prompt, TEXTS[1:])
    fused = judge_fusion(ITEM, ranking, fusion, (1, 2), blender.ranker, 0.0)
    assert fused.comparison == blender.compare(ITEM.prompt, fusion.text, ranking.best)
    assert fused.sources == (1, 2)
    assert fused.kept == (fused.comparison.probability > 0.5)


@pytest.mark.parametrize(("text", "copied"), [(f" {TEXTS[2]}\n", 2), ("Eggs are laid by hens. I like trains.", None)])
def test_a_fused_text_that_is_a_candidate_is_credited_to_it(
    blender: Blender, ranking: Ranking, text: str, copied: int | None
) -> None:
    fusion = Fusion(text, (0, 1), Truncation(0, (0, 0)), unfinished=True)
    fused = judge_fusion(ITEM, ranking, fusion, (1, 2), blender.ranker, 0.0)
    assert fused.copied == copied
    assert fused.used == ((2,) if copied else (1, 2))
    assert fused.unfinished


@pytest.mark.parametrize(("texts", "top_k", "said"), [(("a", "a"), 2, "nothing to fuse"), (("a", "b"), 1, "top_k=1")])
def test_what_can_not_be_fused(blender: Blender, texts: tuple[str, ...], top_k: int, said: str) -> None:
    ranking = blender.rank("?", texts)
    with pytest.raises(InputError, match=said):
        fusion_item(make_item("?", texts), ranking, top_k, 10)
