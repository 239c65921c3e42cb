"""The passages of candidates: what a faithful fuser writes, and what speaks for each as the next."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

# A passage ends before a line break or after a sentence's end; the full stop of an initial or a common abbreviation is
# no end.
BOUNDARY = re.compile(
    r"(?<=[.!?][\"'”’)\]])(?=\s)"
    r"|(?<=[.!?])(?<!\b[A-Z]\.)(?<!\b(?:Mr|Ms|Dr|St|vs)\.)(?<!\b(?:Mrs|e\.g|i\.e|etc)\.)(?=\s)"
    r"|(?<=[。！？])"
    r"|(?<=\S)(?=\s*\n)"
)
# The number of a list belongs to what it numbers.
LIST_NUMBER = re.compile(r"\s*\(?(?:\d{1,3}|[A-Za-z])[.)]")
BEGINNING = -1  # in place of the passage that was written last, before any was


@dataclass(frozen=True)
class Passage:
    """A sentence or a line of one candidate, or of several that have the same, white space and case aside.

    Args:
        ids: Its tokens, at least one, as it stands in the first candidate that has it.
        places: Where it stands: pairs of a candidate and its place among the passages of that one.
        forms: Its tokens at those of its places where they are others.
        apart: Its tokens behind a passage that it does not follow in any candidate, so with white space in front; None
            if they are `ids`.
    """

    ids: tuple[int, ...]
    places: frozenset[tuple[int, int]]
    forms: Mapping[tuple[int, int], tuple[int, ...]] = field(default_factory=dict)
    apart: tuple[int, ...] | None = None

    def at(self, place: tuple[int, int]) -> tuple[int, ...]:
        """Return its tokens as it stands at one of its places."""
        return self.forms.get(place, self.ids)

    def behind(self, before: "Passage | None") -> set[tuple[int, ...]]:
        """Return the ways to write it behind another passage, or at the beginning: as it stands there, if it does."""
        own = {self.at(place) for place in self.follows(before)}
        return own or {self.ids if self.apart is None else self.apart}

    def follows(self, before: "Passage | None") -> list[tuple[int, int]]:
        """Return the places where it stands just behind another passage, or, for None, begins a candidate."""
        if before is None:
            return [(candidate, place) for candidate, place in self.places if place == 0]
        return [(candidate, place) for candidate, place in self.places if (candidate, place - 1) in before.places]


def split_passages(text: str) -> list[str]:
    r"""Split a text into its sentences and lines, white space in front; joined they are the text.

    >>> split_passages("Yes. It is!\n1. See.")
    ['Yes.', ' It is!', '\n1. See.']
    """
    passages: list[str] = []
    number = ""
    for passage in BOUNDARY.split(text.strip()):
        if LIST_NUMBER.fullmatch(passage):
            number += passage
        elif passage.strip():
            passages.append(number + passage)
            number = ""
    return [*passages, number] if number else passages


class PassageOrder:
    """What speaks for each passage of an input, and for the end, as the next.

    Args:
        passages: The passages of the input.
        coherence: What is added to the score of a passage that follows in its candidate the one that was written last,
            and of a candidate's first passage at the beginning, and of the end after a candidate's last passage.
        agreement: What is added to the score of a passage, times how much more of it the other candidates have than of
            the mean of all tokens; see `agreements`.
        consensus: What is added to the score of a passage, times how much more its candidate has in common with the
            others than the mean of all tokens; see `consensus_of`.
        most_repeated: Share, 0 to 1, of the distinct tokens of a passage that one of another candidate before it may
            have: with a larger one it says the same again.
    """

    def __init__(
        self,
        passages: Sequence[Passage],
        coherence: float = 0.0,
        agreement: float = 0.0,
        consensus: float = 0.0,
        most_repeated: float = 1.0,
    ) -> None:
        self.passages = passages
        self.coherence = coherence
        self._repeats = _repeats(passages, most_repeated)
        weighed = ((agreement, agreements(passages)), (consensus, consensus_of(passages)))
        self._shared = [sum(parts) for parts in zip(*(_above_mean(passages, *part) for part in weighed), strict=True)]
        self._last = {candidate: max(places) for candidate, places in _by_candidate(passages).items()}

    def says_something_new(self, index: int, written: Iterable[int]) -> bool:
        """Tell whether a passage is no repetition of one that is written."""
        return self._repeats[index].isdisjoint(written)

    def of_passage(self, index: int, before: int) -> float:
        """Return what is added to the score of a passage after another, or at the `BEGINNING`."""
        follows = bool(self.passages[index].follows(self._passage(before)))
        return self._shared[index] + self.coherence * follows

    def ways_to_write(self, index: int, before: int) -> set[tuple[int, ...]]:
        """Return the tokens that a passage may have after another, or at the `BEGINNING`."""
        return self.passages[index].behind(self._passage(before))

    def of_end(self, before: int) -> float:
        """Return what is added to the score of the end after a passage."""
        if before == BEGINNING:
            return 0.0
        return self.coherence * any(place == self._last[candidate] for candidate, place in self.passages[before].places)

    def _passage(self, index: int) -> Passage | None:
        return None if index == BEGINNING else self.passages[index]


def agreements(passages: Sequence[Passage]) -> list[float]:
    """Return for each passage the share of its distinct tokens that another candidate has, 0 to 1.

    It is the mean over the candidates beside the best that has the passage.
    """
    tokens = _tokens_by_candidate(passages)
    found = []
    for passage in passages:
        own, said = min(candidate for candidate, _ in passage.places), set(passage.ids)
        shares = [len(said & other) / len(said) for candidate, other in tokens.items() if candidate != own]
        found.append(fmean(shares) if shares else 0.0)
    return found


def consensus_of(passages: Sequence[Passage]) -> list[float]:
    """Return for each passage what the candidate that has it has in common with the others, 0 to 1.

    Two have in common the share 2 |A and B| / (|A| + |B|) of their distinct tokens (Dice), and the mean over the others
    counts. The candidate with most of it is the choice of least risk if all are about as good (Kumar and Byrne 2004,
    "Minimum Bayes-Risk Decoding for Statistical Machine Translation"). Of several candidates that have the passage the
    one with most counts.
    """
    tokens = _tokens_by_candidate(passages)
    common = {
        candidate: fmean([_dice(own, other) for rival, other in tokens.items() if rival != candidate] or [0.0])
        for candidate, own in tokens.items()
    }
    return [max(common[candidate] for candidate, _ in passage.places) for passage in passages]


def _tokens_by_candidate(passages: Sequence[Passage]) -> dict[int, set[int]]:
    return {
        candidate: set().union(*(passages[index].ids for index in places.values()))
        for candidate, places in _by_candidate(passages).items()
    }


def _above_mean(passages: Sequence[Passage], weight: float, shares: Sequence[float]) -> list[float]:
    """Return by how much each passage has more than the mean of all tokens, weighed."""
    lengths = [len(passage.ids) for passage in passages]
    mean = sum(share * n for share, n in zip(shares, lengths, strict=True)) / max(sum(lengths), 1)
    return [weight * (share - mean) for share in shares]


def _repeats(passages: Sequence[Passage], most: float) -> list[set[int]]:
    """Return for each passage those of other candidates of which it would be a repetition."""
    tokens = [set(passage.ids) for passage in passages]
    candidates = [{candidate for candidate, _ in passage.places} for passage in passages]
    return [
        {
            other
            for other, theirs in enumerate(tokens)
            if len(own & theirs) > most * len(own) and candidates[index].isdisjoint(candidates[other])
        }
        for index, own in enumerate(tokens)
    ]


def _dice(a: set[int], b: set[int]) -> float:
    return 2 * len(a & b) / (len(a) + len(b))


def shortest_candidate(passages: Sequence[Passage]) -> int:
    """Return the number of tokens of the candidate that has the fewest, or 0 if there is none."""
    return min(
        (
            sum(len(passages[index].at((candidate, place))) for place, index in places.items())
            for candidate, places in _by_candidate(passages).items()
        ),
        default=0,
    )


def _by_candidate(passages: Sequence[Passage]) -> Mapping[int, dict[int, int]]:
    """Return for each candidate which passage stands at each of its places."""
    found: dict[int, dict[int, int]] = {}
    for index, passage in enumerate(passages):
        for candidate, place in passage.places:
            found.setdefault(candidate, {})[place] = index
    return found
