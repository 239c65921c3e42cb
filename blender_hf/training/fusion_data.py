"""Training examples for a fuser: what it reads, and what it should write."""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from blender_hf.data.labelled import LabelledPrompt, gold_scores, without_reference
from blender_hf.modeling.conversations import Message, as_messages
from blender_hf.modeling.segmentation import split_segments


@dataclass(frozen=True)
class FusionExample:
    """A prompt, candidates and the answer that a fuser should write from them.

    Args:
        prompt: The text of the prompt.
        candidates: The candidates, the best first.
        target: The answer.
        messages: The prompt as chat messages; none for one message of the user.
    """

    prompt: str
    candidates: tuple[str, ...]
    target: str
    messages: tuple[Message, ...] = ()

    @property
    def conversation(self) -> list[Message]:
        """The prompt as chat messages."""
        return list(self.messages or as_messages(self.prompt))


def fusion_example(prompt: LabelledPrompt, candidates: Sequence[str], target: str) -> FusionExample:
    """Return the example in which a fuser writes a target from candidates for a prompt."""
    return FusionExample(prompt.item.source, tuple(candidates), target, prompt.item.messages)


def good_answers(prompt: LabelledPrompt) -> list[str]:
    """Return the candidates of a prompt that were preferred at least once and never rejected."""
    won: set[int] = set()
    lost: set[int] = set()
    for pair in prompt.pairs:
        if pair.label != 0.5:
            winner, loser = (pair.a, pair.b) if pair.label > 0.5 else (pair.b, pair.a)
            won.add(winner)
            lost.add(loser)
    return [prompt.item.texts[index] for index in sorted(won - lost)]


def merging_examples(prompts: Iterable[LabelledPrompt], copies: int, seed: int) -> Iterator[FusionExample]:
    """Yield the synthetic task: reassemble a good answer from corrupted copies, for answers of two segments and more.

    Each copy lacks segments of the answer and holds segments of an answer to another prompt. Every segment of the
    answer is in at least one copy.
    """
    rng = random.Random(seed)
    foreign: list[str] = []
    for prompt in prompts:
        for answer in good_answers(prompt):
            segments = split_segments(answer)
            if foreign and len(segments) > 1:
                yield fusion_example(prompt, _corrupted_copies(segments, foreign, copies, rng), answer)
            foreign = (foreign + segments)[-200:]


def selection_examples(prompts: Iterable[LabelledPrompt], max_candidates: int, seed: int) -> Iterator[FusionExample]:
    """Yield the selection task: from a preferred answer and others to the same prompt, write the preferred one."""
    rng = random.Random(seed)
    for prompt in prompts:
        texts = _different(prompt)
        for answer in good_answers(prompt)[:1]:
            others = [text for text in texts if text != answer]
            if answer.strip() and others:
                chosen = [answer, *rng.sample(others, min(max_candidates - 1, len(others)))]
                rng.shuffle(chosen)
                yield fusion_example(prompt, chosen, answer)


def reference_examples(
    prompts: Iterable[LabelledPrompt],
    max_candidates: int,
    orders: Iterable[Sequence[int]] | None = None,
    *,
    metric: str | None = None,
) -> Iterator[FusionExample]:
    """Yield the paper's task (section 3.4): from the best candidates, write the reference.

    The reference itself is never among the candidates. Prompts without a reference, or whose candidates are in no
    known order, give no example.

    The candidates are ordered by `orders`, for each prompt its candidates' indices with the best first, or else by the
    scores or verdicts of the data, as in `labelled.gold_scores`.
    """
    ranked = (
        ((prompt, _gold_order(prompt, metric)) for prompt in prompts)
        if orders is None
        else zip(prompts, orders, strict=True)
    )
    for prompt, order in ranked:
        if not prompt.reference:
            continue
        best = without_reference((prompt.item.texts[index] for index in order), prompt.reference)[:max_candidates]
        if best:
            yield fusion_example(prompt, best, prompt.reference)


def _gold_order(prompt: LabelledPrompt, metric: str | None) -> list[int]:
    scores = gold_scores(prompt, metric)
    return [] if scores is None else sorted(range(len(scores)), key=lambda index: -scores[index])


def _different(prompt: LabelledPrompt) -> list[str]:
    return list(dict.fromkeys(text for text in prompt.item.texts if text.strip()))


def _corrupted_copies(
    segments: Sequence[str], foreign: Sequence[str], copies: int, rng: random.Random
) -> tuple[str, ...]:
    keepers = [rng.randrange(copies) for _ in segments]
    return tuple(_copy(segments, keepers, number, foreign, rng) for number in range(copies))


def _copy(
    segments: Sequence[str], keepers: Sequence[int], number: int, foreign: Sequence[str], rng: random.Random
) -> str:
    kept = [p for p, keeper in zip(segments, keepers, strict=True) if keeper == number or rng.random() < 0.6]
    if rng.random() < 0.5:
        kept.insert(rng.randrange(len(kept) + 1), " " + rng.choice(foreign).strip())
    return "".join(kept).strip() or segments[0]
