"""From texts to the input of a fuser, in the layout of the paper (section 4; `llm-blender/gen_fuser_3b`).

    Instruction: {instruction}</s>Input: {input}</s>Candidate 0: <extra_id_0>:{c0}</s> ...
    Summarize candidates into a better one for the given instruction:

It is put together from token ids, so that texts from outside are text, and what is too long is cut by a stated rule.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from transformers import BatchEncoding, ProcessorMixin

from .hub_mixins import PortableProcessorMixin
from .tokenization import PlainTextEncoder, pad_right, render_prompt, restore_prefix_space

REQUEST = "Summarize candidates into a better one for the given instruction:"
MOST_SENTINELS = 100
# What may stand before a passage while it is tokenised: no tokenizer joins both with what comes behind.
NEIGHBOURS = (".", "a")
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


@dataclass(frozen=True)
class FusionEncoding:
    """The input of a fuser for one prompt.

    Args:
        input_ids: The token ids.
        truncated_prompt: How many tokens of the prompt (instruction and input) were cut.
        truncated_candidates: How many tokens of each candidate were cut.
        passages: Whole passages of the candidates, for faithful decoding.
    """

    input_ids: list[int]
    truncated_prompt: int
    truncated_candidates: tuple[int, ...]
    passages: list[Passage]


class GenFuserProcessor(PortableProcessorMixin, ProcessorMixin):
    """Turns a prompt and its candidates into the input of a `GenFuser`, and its output into text.

    Args:
        tokenizer: A tokenizer of T5, ByT5 or mT5, with its `<extra_id_k>` tokens.
        max_source_length: Most tokens of the input; the closing request always stays.
        max_candidate_length: Most tokens of a candidate.
        **kwargs: Options of every processor in transformers.
    """

    attributes = ["tokenizer"]  # noqa: RUF012 (the form that transformers 4 expects)
    tokenizer_class = "AutoTokenizer"

    def __init__(
        self, tokenizer: Any = None, max_source_length: int = 1024, max_candidate_length: int = 128, **kwargs: Any
    ) -> None:
        super().__init__(tokenizer, **kwargs)
        self.max_source_length = max_source_length
        self.max_candidate_length = max_candidate_length
        self._sentinels = sentinels_of(tokenizer)
        self._encode_plain = PlainTextEncoder(tokenizer, token_ids=self._sentinels)
        self._fixed_ids: dict[str, list[int]] = {}

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> "GenFuserProcessor":
        """Load a processor, as in transformers, with a tokenizer that does what its tokenizer.json states.

        Args:
            pretrained_model_name_or_path: A Hub id or a folder.
            **kwargs: The options of `transformers.ProcessorMixin.from_pretrained`.

        Returns:
            The processor.
        """
        processor = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        restore_prefix_space(processor.tokenizer, pretrained_model_name_or_path, **kwargs)
        return processor

    @property
    def max_candidates(self) -> int:
        """How many candidates one input can hold: one for each `<extra_id_k>` of the tokenizer."""
        return len(self._sentinels)

    def encode(self, prompt: Any, candidates: Sequence[str], instruction: str | None = None) -> FusionEncoding:
        """Build the input for one prompt.

        Where the whole is too long, the prompt and every candidate keep a fair share of the room: what a short text
        does not need goes to the long ones. The closing request always stays, and no candidate is dropped.

        Args:
            prompt: A string or chat messages.
            candidates: The texts, the best first.
            instruction: What to do with the prompt. Beside a string it is the layout's instruction and the string the
                input; in all other cases the text of the whole conversation is the instruction, with an empty input.

        Returns:
            The ids, what was cut, and the passages that faithful decoding may write.

        Raises:
            TypeError: If the candidates are one text.
            ValueError: If there are no candidates, more than there are sentinels, or no room for them.
        """
        texts = self._checked(candidates)
        apart = isinstance(prompt, str) and instruction is not None
        task, source = (instruction, prompt) if apart else (render_prompt(prompt, instruction), "")
        heads = [self._fixed("Instruction:"), self._fixed("Input:")]
        heads += [[*self._fixed(f"Candidate {k}:"), self._sentinels[k]] for k in range(len(texts))]
        bodies = self._encode_plain([task, source, *(f":{text}" for text in texts)])
        kept, cut = self._share(heads, bodies)
        eos = [self.tokenizer.eos_token_id]
        parts = [[*head, *body, *eos] for head, body in zip(heads, kept, strict=True)]
        ids = [token for part in parts for token in part] + [*self._fixed(REQUEST), *eos]
        passages = self._all_passages(texts, [len(body) for body in kept[2:]], cut[2:])
        return FusionEncoding(ids, cut[0] + cut[1], tuple(cut[2:]), passages)

    def pad(self, inputs: Sequence[Sequence[int]]) -> BatchEncoding:
        """Make a batch of tensors `input_ids` and `attention_mask`, both (batch, length)."""
        return pad_right(inputs, self.tokenizer.pad_token_id)

    def __call__(self, prompts: Sequence[Any], candidates: Sequence[Sequence[str]]) -> BatchEncoding:
        """Tokenise prompts with their candidates, for training and for a fuser that writes freely.

        `GenFuser.generate` of a faithful fuser needs the passages too, which `encode` returns: without them it is not
        faithful, and warns.

        Args:
            prompts: Texts or conversations.
            candidates: For each prompt its candidates, the best first.

        Returns:
            A batch of tensors `input_ids` and `attention_mask`, both (batch, length).

        Raises:
            TypeError: If a single text is given instead of lists.
            ValueError: If the lists differ in length.
        """
        if isinstance(prompts, str) or isinstance(candidates, str):
            raise TypeError("give a list of prompts and, for each, a list of candidates; one of them is a single text")
        if len(prompts) != len(candidates):
            raise ValueError(
                f"there are {len(prompts)} prompts and {len(candidates)} lists of candidates; give one list for each"
            )
        return self.pad([self.encode(p, c).input_ids for p, c in zip(prompts, candidates, strict=True)])

    def encode_passages(self, text: str) -> list[list[int]]:
        """Tokenise a text passage by passage, as faithful decoding writes it.

        The first is tokenised as every text is, the others as they stand in the text. So the tokens of all, one behind
        the other, are decoded to the text, outer white space aside, if the tokenizer loses nothing.

        Args:
            text: The text.

        Returns:
            The ids of each passage of `split_passages`.
        """
        passages = split_passages(text)
        followers = list(zip([passage.split()[-1] for passage in passages], passages[1:], strict=False))
        return [*self._encode_plain(passages[:1]), *self._encode_behind(followers)]

    def decode_text(self, ids: Sequence[int]) -> str:
        """Turn generated ids into text, without special tokens, sentinels and outer white space."""
        sentinels = set(self._sentinels)
        kept = [token_id for token_id in map(int, ids) if token_id not in sentinels]
        return self.tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip()

    @property
    def model_input_names(self) -> list[str]:
        """Names of the tensors that `GenFuser` takes from this processor."""
        return ["input_ids", "attention_mask"]

    def _checked(self, candidates: Sequence[str]) -> list[str]:
        if isinstance(candidates, str):
            raise TypeError("candidates must be a list of texts, not one text")
        if not candidates:
            raise ValueError("there are no candidates to fuse")
        if len(candidates) > self.max_candidates:
            raise ValueError(
                f"{len(candidates)} candidates are more than the {self.max_candidates} that this fuser can tell apart; "
                "fuse the best ones"
            )
        return list(candidates)

    def _fixed(self, text: str) -> list[int]:
        """Tokenise a text of our own, once."""
        if text not in self._fixed_ids:
            self._fixed_ids[text] = self._encode_plain([text])[0]
        return self._fixed_ids[text]

    def _share(
        self, heads: Sequence[Sequence[int]], bodies: Sequence[Sequence[int]]
    ) -> tuple[list[list[int]], list[int]]:
        limits = [len(bodies[0]), len(bodies[1]), *(min(len(b), self.max_candidate_length) for b in bodies[2:])]
        fixed = sum(len(head) + 1 for head in heads) + len(self._fixed(REQUEST)) + 1
        room = self.max_source_length - fixed
        if room < len(bodies):
            raise ValueError(
                f"max_source_length={self.max_source_length} leaves no room for {len(bodies) - 2} candidates"
            )
        shares = fair_shares(limits, room)
        kept = [list(body[:share]) for body, share in zip(bodies, shares, strict=True)]
        return kept, [len(body) - share for body, share in zip(bodies, shares, strict=True)]

    def _all_passages(self, texts: Sequence[str], shown: Sequence[int], cut: Sequence[int]) -> list[Passage]:
        """Collect the passages of all candidates, each text once, without those that the input shows only in part."""
        forms: dict[str, dict[tuple[int, int], tuple[int, ...]]] = {}
        behind_others: dict[str, str] = {}
        for candidate, (text, n_shown, n_cut) in enumerate(zip(texts, shown, cut, strict=True)):
            passages, encoded = split_passages(text), self.encode_passages(text)
            # The passages take about as many tokens as the candidate in the input.
            ends = accumulate(map(len, encoded))
            for place, (passage, ids, end) in enumerate(zip(passages, encoded, ends, strict=True)):
                if ids and (n_cut == 0 or end <= n_shown):
                    same = " ".join(passage.split()).casefold()
                    forms.setdefault(same, {})[candidate, place] = tuple(ids)
                    behind_others.setdefault(same, separated(passages, place))
        if not forms:
            beginnings = [self._whole_words(*pair) for pair in zip(texts, shown, strict=True)]
            return [Passage(tuple(ids), frozenset({(k, 0)})) for k, ids in enumerate(beginnings) if ids]
        apart = self._encode_behind([(NEIGHBOURS[0], text) for text in behind_others.values()])
        return [_passage(*pair) for pair in zip(forms.values(), apart, strict=True)]

    def _encode_behind(self, pairs: Sequence[tuple[str, str]]) -> list[list[int]]:
        """Return the tokens of each text as it stands behind another, so without a space that a tokenizer adds."""
        rows = self._encode_plain([part for before, text in pairs for part in (before, before + text)])
        found = [_rest(rows[2 * place], rows[2 * place + 1]) for place in range(len(pairs))]
        return [
            self._behind_a_neighbour(text) if ids is None else ids for ids, (_, text) in zip(found, pairs, strict=True)
        ]

    def _behind_a_neighbour(self, text: str) -> list[int]:
        """Return the tokens of a text whose first token holds some of what stands before it."""
        rests = (_rest(*self._encode_plain([before, before + text])) for before in NEIGHBOURS)
        return next((ids for ids in rests if ids is not None), None) or self._encode_plain([text])[0]

    def _whole_words(self, text: str, room: int) -> list[int]:
        """Return the ids of as many first words of a text as there is room for."""
        words = re.findall(r"\s*\S+", text)
        ends = accumulate(map(len, self._encode_plain(words)))
        kept = "".join(word for word, end in zip(words, ends, strict=True) if end <= room)
        return self._encode_plain([kept or text])[0][:room]


def sentinels_of(tokenizer: Any) -> list[int]:
    """Return the ids of the tokens that stand in front of the candidates: those with which T5 was taught to fill gaps.

    Those of mT5 are pieces of its vocabulary like any other, in front of which a space belongs
    (https://github.com/google-research/multilingual-t5/issues/24); where a tokenizer has added others by the plain
    names, its model may have no embeddings for them.

    Args:
        tokenizer: A tokenizer of transformers.
    """
    vocabulary = tokenizer.get_vocab()
    names = [(f"\N{LOWER ONE EIGHTH BLOCK}<extra_id_{k}>", f"<extra_id_{k}>") for k in range(MOST_SENTINELS)]
    found = [next((vocabulary[name] for name in pair if name in vocabulary), None) for pair in names]
    return [token_id for token_id in found if token_id is not None]


def separated(passages: Sequence[str], place: int) -> str:
    r"""Return a passage of a text as it is written behind one that it does not follow there.

    It keeps the white space in front of it. Where it has none, as at the beginning of a text, it gets a space, or a
    line break if it is a line of its own.

    >>> separated(["Steps:", "\n1. Boil."], 0), separated(["Yes.", " No."], 0), separated(["Yes.", " No."], 1)
    ('\nSteps:', ' Yes.', ' No.')
    """
    passage = passages[place]
    if passage[0].isspace():
        return passage
    alone = place == 0 and re.match(r"\s*\n", "".join(passages[1:2])) is not None
    return ("\n" if alone else " ") + passage


def _passage(forms: Mapping[tuple[int, int], tuple[int, ...]], apart: Sequence[int]) -> Passage:
    first = next(iter(forms.values()))
    others = {place: ids for place, ids in forms.items() if ids != first}
    return Passage(first, frozenset(forms), others, tuple(apart))


def _rest(start: Sequence[int], whole: Sequence[int]) -> list[int] | None:
    """Return what follows a start in a sequence that begins with it; None if it does not."""
    return list(whole[len(start) :]) if list(whole[: len(start)]) == list(start) else None


def fair_shares(wanted: Sequence[int], room: int) -> list[int]:
    """Divide room fairly: nobody gets more than wanted, and nobody less than another who wants as much.

    >>> fair_shares([10, 100, 100], 70)
    [10, 30, 30]
    """
    shares = [0] * len(wanted)
    open_places = sorted(range(len(wanted)), key=lambda i: wanted[i])
    for position, index in enumerate(open_places):
        shares[index] = min(wanted[index], room // (len(wanted) - position))
        room -= shares[index]
    return shares


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
