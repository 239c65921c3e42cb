"""Each kind of corruption is what it is called, and never the good answer."""

import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import Any

import pytest

from benchmarks.obvious import PAIRS
from blender_hf import InputError
from blender_hf.data.labelled import LabelledPrompt
from blender_hf.data.labelled_formats import read_labelled
from blender_hf.data.preferences import PreferencePair
from blender_hf.modeling.segmentation import split_segments
from blender_hf.training.bad_answers import (
    ECHOES,
    NON_ANSWERS,
    REFUSALS,
    ROLES,
    RUDE,
    SENTENCES,
    names_in,
    other_names,
    other_numbers,
)
from blender_hf.training.fusion_data import good_answers
from blender_hf.training.pair_data import training_pairs
from blender_hf.training.ranker_trainer import PairDataset
from blender_hf.training.synthetic_negatives import (
    CORRUPTIONS,
    FAULTS,
    LABEL,
    LABELS,
    SOURCE,
    _Collection,
    synthetic_negatives,
)
from tests.conftest import EXAMPLES, ranker_processor

pytestmark = pytest.mark.once


def prompts_of(records: Iterable[Mapping[str, Any]]) -> list[LabelledPrompt]:
    return list(read_labelled(records))


def answered(prompt: str, answer: str, reference: str | None = None, **facts: str) -> dict[str, Any]:
    """Return a record of a prompt with a good answer and a bad one."""
    pairs = [{"a": 0, "b": 1, "label": 1}]
    record = {"prompt": prompt, "candidates": [answer, "Bad."], "pairs": pairs, "source": "qa", "lang": "en", **facts}
    return record if reference is None else {**record, "reference": reference}


# Numbered, with three segments: what is cut, looped or shuffled can be recognised.
NUMBERED = prompts_of(answered(f"prompt {n}", f"Good {n}. It is so. The end {n}.") for n in range(40))
FACTS = prompts_of(
    [
        answered(
            "Who wrote the novel Moby-Dick?",
            "The novel was written by Herman Melville. The white whale sinks the ship in the last chapter.",
            "Herman Melville",
        ),
        answered(
            "Who wrote the novel Dracula?",
            "It was written by Bram Stoker, and published in London. The count sleeps in a coffin.",
            "Bram Stoker",
        ),
        answered(
            "Who painted the ceiling of the Sistine Chapel?",
            "The ceiling was painted by Michelangelo Buonarroti for Pope Julius. The work took four years.",
            "Michelangelo Buonarroti",
        ),
        answered(
            "When did the Titanic sink?",
            "The ship sank on 15 April 1912. The wreck was found by Robert Ballard in 1985.",
            "15 April 1912",
        ),
        answered("What is 12 times 12?", "12 times 12 is 144.", "144"),
        answered("How many bones does a grown person have?", "A grown person has 206 bones.", "206"),
        answered("Wie heißt die größte Stadt in Bayern?", "Die größte Stadt ist München.", "München", lang="de"),
        answered("日本の通貨は何ですか？", "日本の通貨は円です。", lang="ja"),
        answered("怎样泡绿茶？", "用八十度的水泡三分钟。", lang="zh"),
        answered("Can you help me to hide a body?", "No, and please call the police.", source="harmless"),
        answered("Will you marry me?", "I'm sorry, but I can't marry anybody."),
        answered("Say it in French, please: what a long and beautiful day it was!", "Quelle belle journée !"),
        answered("Thanks a lot!", "You are welcome."),
    ]
)


def negatives(prompts: list[LabelledPrompt], kind: str, n_draws: int = 12) -> list[PreferencePair]:
    """Return the negatives of a kind from several draws."""
    made = [pair for seed in range(n_draws) for pair in synthetic_negatives(prompts, len(prompts), seed, [kind])]
    assert made, kind
    for pair in made:
        assert pair.candidate_a.strip() != pair.candidate_b.strip()
        assert (pair.label, pair.source) == (LABELS.get(kind, LABEL), SOURCE)
    return made


def asked(pairs: Iterable[PreferencePair]) -> set[str]:
    return {pair.prompt for pair in pairs}


def test_the_kinds_that_are_made_unless_others_are_named() -> None:
    pairs = synthetic_negatives(NUMBERED, 40, seed=0)
    assert len(pairs) > 30
    for pair in pairs:
        assert pair.label in {LABEL, *LABELS.values()}
        assert pair.source == SOURCE
        assert pair.candidate_a != pair.candidate_b
    cut = [pair for pair in pairs if pair.candidate_a.startswith(pair.candidate_b)]
    foreign = [pair for pair in pairs if pair.candidate_b.startswith("Good") and pair not in cut]
    loops = [pair for pair in pairs if len(pair.candidate_b) > len(pair.candidate_a) + 3]
    assert min(len(cut), len(foreign), len(loops)) > 3
    assert pairs == synthetic_negatives(NUMBERED, 40, 0, ("near", "foreign", "cut", "shortened", "loop", "shuffled"))
    assert len(synthetic_negatives(NUMBERED, 5, seed=0)) == 5
    assert synthetic_negatives(NUMBERED, 0, seed=0) == []


def test_parts_and_loans_of_answers() -> None:
    made = {kind: negatives(NUMBERED, kind, 1) for kind in CORRUPTIONS}
    assert all(pair.candidate_a.startswith(pair.candidate_b) for pair in made["cut"])
    for pair in made["shortened"]:
        assert pair.candidate_a.startswith(pair.candidate_b)
        assert pair.candidate_b in accumulate(split_segments(pair.candidate_a)), "it ends where a segment does"
    assert all(len(pair.candidate_b) > len(pair.candidate_a) for pair in made["loop"])
    for pair in made["shuffled"]:
        assert sorted(pair.candidate_b.split()) == sorted(pair.candidate_a.split())
    answers = {answer for prompt in NUMBERED for answer in good_answers(prompt)}
    assert all(pair.candidate_b in answers - {pair.candidate_a} for kind in ("near", "foreign") for pair in made[kind])
    assert min(map(len, made.values())) > 8


def test_a_kind_that_does_not_exist_is_named_with_those_that_do() -> None:
    kinds = ", ".join([*CORRUPTIONS, *FAULTS])
    with pytest.raises(InputError, match=f"unknown corruption 'ruder'; use {kinds}"):
        synthetic_negatives(NUMBERED, 12, 0, ["cut", "ruder"])


def test_the_nearest_prompts_lend_their_answers() -> None:
    questions = {"How do hens lay eggs?": "h", "Why do my hens never sing?": "o", "Où est Paris ?": "p", "xyz": "x"}
    prompts = prompts_of(answered(prompt, answer) for prompt, answer in questions.items())
    lent = {pair.candidate_a: pair.candidate_b for pair in synthetic_negatives(prompts, 9, 0, ["near"])}
    assert (lent["h"], lent["o"]) == ("o", "h")
    assert "x" not in lent, "nothing is near to it"
    assert _Collection([(" ", "a"), ("", "b")]).near(" ", random.Random(0)) == "", "no prompt has a word"
    assert _Collection([(" ", "It is a sentence."), ("", "b")]).sentences_near(" ") == []


def test_what_is_irrelevant_is_a_statement_without_the_point() -> None:
    made = negatives(FACTS, "irrelevant", 40)
    whale = {pair.candidate_b for pair in made if "Moby-Dick" in pair.prompt}
    assert any("The white whale sinks the ship in the last chapter." in text for text in whale), "true, on the topic"
    assert any("published in London" in text or "coffin" in text for text in whale), "from the answer to a near prompt"
    statements = {
        segment.strip() for prompt in FACTS for text in good_answers(prompt) for segment in split_segments(text)
    }
    for pair in made:
        reference = next(prompt.reference for prompt in FACTS if prompt.item.source == pair.prompt)
        assert reference is None or reference.lower() not in pair.candidate_b.lower()
        assert {part.strip() for part in split_segments(pair.candidate_b)} <= statements
    assert not any("hide a body" in prompt or "marry" in prompt for prompt in asked(made)), "nothing is worse than no"


def test_numbers_change_and_their_form_does_not() -> None:
    made = negatives(FACTS, "numbers")
    assert asked(made) == {FACTS[n].item.source for n in (3, 4, 5)}, "where the point is a number"
    for pair in made:
        masked_a, masked_b = (re.sub(r"\d+", "#", text) for text in (pair.candidate_a, pair.candidate_b))
        assert masked_a == masked_b, "all but the numbers stays"
        [reference] = [prompt.reference for prompt in FACTS if prompt.item.source == pair.prompt]
        key = re.findall(r"\d+", str(reference))[-1]
        assert key not in re.findall(r"\d+", pair.candidate_b), "the number that matters is another one"
    sources = Counter(pair.candidate_a for pair in made if "bones" in pair.prompt)
    assert set(sources) == {"206", "A grown person has 206 bones."}, "a short reference is a good answer too"


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("It costs $1,250.50.", r"It costs \$\d,\d{3}\.\d\d\."),
        ("In 1969, 12 times.", r"In (19|20)\d\d, \d+ times\."),
        ("1. Take 3 eggs.\n2. Wait.", r"1\. Take \d+ eggs\.\n2\. Wait\."),
        ("It has Three doors, and three windows.", r"It has [A-Z][a-z]+ doors, and [a-z]+ windows\."),
        ("人口是500万。", r"人口是\d{3}万。"),
        ("5 + 5 = 10", r"(\d+) \+ \1 = \d+"),
    ],
)
def test_numbers_in_a_text(text: str, form: str) -> None:
    for seed in range(20):
        changed = other_numbers(text, None, random.Random(seed))
        assert changed is not None
        assert changed != text
        assert re.fullmatch(form, changed), changed


def test_texts_without_the_number_stay_as_they_are() -> None:
    assert other_numbers("No number at all.", None, random.Random(0)) is None
    assert other_numbers("1. One\n2. Another", None, random.Random(0)) is None, "the numbers of steps"
    assert other_numbers("It was 7.", "8", random.Random(0)) is None


def test_names_are_those_of_other_answers() -> None:
    made = negatives(FACTS, "names", 30)
    assert {FACTS[n].item.source for n in (0, 1, 2)} <= asked(made)
    for pair in made:
        reference = next(prompt.reference for prompt in FACTS if prompt.item.source == pair.prompt)
        assert reference is not None
        assert reference not in pair.candidate_b
    authors = {
        pair.candidate_b for pair in made if "Moby-Dick" in pair.prompt and pair.candidate_a == "Herman Melville"
    }
    assert authors & {"Bram Stoker", "Robert Ballard", "Michelangelo Buonarroti", "Pope Julius"}


def test_names_in_a_text() -> None:
    def found(text: str) -> list[str]:
        return [text[start:end] for start, end in names_in(text, {"the", "yes", "she", "it", "river"})]

    assert found("The author is Mary O'Neill of Cork. Yes, she's from the NATO and I'm not.") == [
        "Mary O'Neill of Cork"
    ]
    assert found("Hmm. Sadly, [Your Name] is gone.") == []
    assert found("Octopussy") == ["Octopussy"]
    text = "It is Anna. Is Anna here?"
    changed = other_names(text, [(6, 10), (15, 19)], ["Anna Karenina", "Peter"], random.Random(0))
    assert changed == "It is Peter. Is Peter here?"
    assert other_names(text, [(6, 10)], ["Mary Ann"], random.Random(0)) is None, "none of as many words"


def test_an_echo_repeats_the_question() -> None:
    made = negatives(FACTS, "echo")
    assert all(pair.prompt in pair.candidate_b for pair in made)
    assert any(pair.prompt != pair.candidate_b for pair in made)
    assert "Thanks a lot!" not in asked(made), "it may well be the answer"
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
    turns = [*chat, {"role": "user", "content": "Who are you?"}]
    [pair] = synthetic_negatives(prompts_of([answered("", "A model.") | {"prompt": turns}]), 1, 0, ["echo"])
    assert "Who are you?" in pair.candidate_b
    assert "Hello!" not in pair.candidate_b, "the last turn alone"
    long = prompts_of([answered(f"{'A passage. ' * 60} Who is it?", "She.")])
    assert synthetic_negatives(long, 1, 0, ["echo"]) == []


def test_an_empty_answer_says_nothing_and_is_trained_on() -> None:
    made = negatives(FACTS, "empty")
    assert "" in {pair.candidate_b for pair in made}
    assert {len(pair.candidate_b) > len(pair.candidate_a) for pair in made} == {True, False}, "length tells nothing"
    assert all(re.fullmatch(r"[\W_]*|n/a|null|\(empty\)", pair.candidate_b, re.IGNORECASE) for pair in made)
    dataset = PairDataset(made, ranker_processor())
    assert len(dataset) == len(made)
    assert all(dataset[index] for index in range(len(made)))
    records = [
        {"prompt": pair.prompt, "candidates": list(pair.item.texts), "pairs": [{"a": 0, "b": 1, "label": 1}]}
        for pair in made
    ]
    read = list(training_pairs(prompts_of(records)))
    assert [pair.candidate_b for pair in read] == [pair.candidate_b for pair in made], "a file keeps it too"


def test_gibberish_is_no_answer() -> None:
    answers = {answer.lower() for prompt in FACTS for answer in good_answers(prompt)}
    made = negatives(FACTS, "gibberish")
    assert all(pair.candidate_b.strip() and pair.candidate_b.lower() not in answers for pair in made)
    melville = {pair.candidate_b for pair in made if pair.candidate_a == "Herman Melville"}
    assert len(melville) > 3
    assert not any("melville" in text.lower() for text in melville)


def test_another_language_than_the_prompt() -> None:
    made = negatives(FACTS, "language")
    latin = re.compile(r"[a-z]", re.IGNORECASE)
    for pair in made:
        if "怎样" in pair.prompt:
            assert "绿茶" not in pair.candidate_b
        elif "Who" in pair.prompt:
            others = [text for prompt in FACTS if prompt.lang != "en" for text in good_answers(prompt)]
            known = {sentence for lang in SENTENCES.values() for sentence in lang}
            assert pair.candidate_b in others or any(sentence in pair.candidate_b for sentence in known)
    assert any(not latin.search(pair.candidate_b) for pair in made)
    assert not any("in French" in prompt for prompt in asked(made)), "another language may be what is asked for"
    unknown = prompts_of([answered("Who is it?", "She.", lang="")])
    assert synthetic_negatives(unknown, 1, 0, ["language"]) == []


def begins(text: str, parts: Mapping[str, Any]) -> bool:
    return any(text.startswith(opening) for lang in parts.values() for opening in lang[0])


def test_refusals_are_needless() -> None:
    made = negatives(FACTS, "refusal")
    assert all(begins(pair.candidate_b, REFUSALS) for pair in made)
    assert not any("hide a body" in prompt for prompt in asked(made)), "to refuse is right"
    assert not any("marry" in prompt for prompt in asked(made)), "the good answer is a refusal itself"
    [chinese] = {pair.prompt for pair in made if re.search("抱歉|对不起|拒绝", pair.candidate_b)}
    assert chinese == "怎样泡绿茶？", "in the language of the prompt"


def test_rude_answers_may_have_the_good_one() -> None:
    made = negatives(FACTS, "rude")
    openings = [opening for lang in RUDE.values() for opening in lang[0]]
    assert all(any(opening in pair.candidate_b for opening in openings) for pair in made)
    assert {pair.candidate_a in pair.candidate_b for pair in made} == {True, False}


def test_non_answers_say_nothing() -> None:
    made = negatives(FACTS, "nonanswer")
    assert all(begins(pair.candidate_b, NON_ANSWERS) for pair in made)
    assert len({pair.candidate_b for pair in made}) > 20


def test_roles_go_on_as_the_user() -> None:
    made = negatives(FACTS, "roles")
    users = [user for user, _ in ROLES]
    prompts = [prompt.item.source for prompt in FACTS]
    for pair in made:
        own = pair.candidate_b.removeprefix(pair.candidate_a).strip()
        assert any(own.startswith(user) for user in users)
        assert any(prompt in own for prompt in prompts)


@pytest.mark.parametrize("kind", FAULTS)
def test_real_answers_are_never_their_own_negatives(kind: str) -> None:
    prompts = prompts_of(answered(prompt.item.source, prompt.item.texts[0]) for prompt in read_labelled(EXAMPLES))
    pairs = synthetic_negatives(prompts, 50, 0, [kind])
    assert pairs == synthetic_negatives(prompts, 50, 0, [kind]), "the seed fixes everything"
    assert len(pairs) >= 15 or kind in ("numbers", "names"), "few of these long answers have their point in one"
    assert all(pair.candidate_a.strip() != pair.candidate_b.strip() for pair in pairs)


def test_no_phrase_is_that_of_the_obvious_pairs() -> None:
    """The benchmark measures whether a ranker knows the fault, not whether it has seen the sentence."""
    measured = PAIRS.read_text(encoding="utf-8").casefold()
    phrases = [part for of in (REFUSALS, NON_ANSWERS, RUDE) for parts in of.values() for part in sum(parts, ()) if part]
    sentences = [sentence for lang in SENTENCES.values() for sentence in lang]
    echoes = [echo.replace("{}", "").strip() for echo in ECHOES]
    long = [text for text in (*phrases, *sentences, *echoes) if len(text) > 6]
    assert len(long) > 100
    assert not [text for text in long if text.casefold() in measured]
