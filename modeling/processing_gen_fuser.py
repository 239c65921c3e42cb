"""From texts to the input of a fuser, in the layout of the paper (section 4; `llm-blender/gen_fuser_3b`).

    Instruction: {instruction}</s>Input: {input}</s>Candidate 0: <extra_id_0>:{c0}</s> ...
    Summarize candidates into a better one for the given instruction:

It is put together from token ids, so that texts from outside are text, and what is too long is cut by a stated rule.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from transformers import BatchEncoding, ProcessorMixin

from .chat import render_prompt
from .padding import pad_right
from .passages import Passage, split_passages
from .plain_text import PlainTextEncoder

REQUEST = "Summarize candidates into a better one for the given instruction:"


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


class GenFuserProcessor(ProcessorMixin):
    """Turns a prompt and its candidates into the input of a `GenFuser`, and its output into text.

    Args:
        tokenizer: A T5 tokenizer, with its `<extra_id_k>` tokens.
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
        self._encode_plain = PlainTextEncoder(tokenizer)
        self._fixed_ids: dict[str, list[int]] = {}
        vocabulary = tokenizer.get_vocab()
        self._sentinels = [vocabulary[f"<extra_id_{k}>"] for k in range(100) if f"<extra_id_{k}>" in vocabulary]

    @property
    def max_candidates(self) -> int:
        """How many candidates one input can hold: one for each `<extra_id_k>` of the tokenizer."""
        return len(self._sentinels)

    def encode(self, prompt: Any, candidates: Sequence[str], instruction: str | None = None) -> FusionEncoding:
        """Build the input for one prompt.

        Where the whole is too long, the prompt and every candidate keep a fair share of the room: what a short text
        does not need goes to the long ones. The closing request always stays, and no candidate is dropped.

        Args:
            prompt: A text or chat messages. Without an instruction it is the instruction, with an empty input.
            candidates: The texts, the best first.
            instruction: What is to be done with the prompt.

        Returns:
            The ids, what was cut, and the passages that faithful decoding may write.

        Raises:
            TypeError: If the candidates are one text.
            ValueError: If there are no candidates, more than there are sentinels, or no room for them.
        """
        texts = self._checked(candidates)
        text = render_prompt(prompt)
        task, source = (text, "") if instruction is None else (instruction, text)
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
        """Tokenise prompts with their candidates for `GenFuser.generate`.

        Args:
            prompts: Texts or conversations.
            candidates: For each prompt its candidates, the best first.

        Returns:
            A batch of tensors `input_ids` and `attention_mask`, both (batch, length).

        Raises:
            TypeError: If a single text is given instead of lists.
            ValueError: If the lists differ in length.
        """
        if isinstance(prompts, str) or len(prompts) != len(candidates):
            raise ValueError("give a list of prompts and, for each, a list of candidates")
        return self.pad([self.encode(p, c).input_ids for p, c in zip(prompts, candidates, strict=True)])

    def decode_text(self, ids: Sequence[int]) -> str:
        """Turn generated ids into text, without special tokens and outer white space."""
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip()

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
        split = [split_passages(text) for text in texts]
        ids = iter(self._encode_plain([passage for passages in split for passage in passages]))
        found: dict[str, tuple[list[int], set[tuple[int, int]]]] = {}
        for candidate, (passages, n_shown, n_cut) in enumerate(zip(split, shown, cut, strict=True)):
            encoded = [next(ids) for _ in passages]
            # The passages, tokenised alone, take about as many tokens as in the candidate.
            ends = accumulate(map(len, encoded))
            for place, (passage, passage_ids, end) in enumerate(zip(passages, encoded, ends, strict=True)):
                if passage_ids and (n_cut == 0 or end <= n_shown):
                    _, places = found.setdefault(" ".join(passage.split()).casefold(), (passage_ids, set()))
                    places.add((candidate, place))
        if not found:
            beginnings = [self._whole_words(*pair) for pair in zip(texts, shown, strict=True)]
            found = {str(k): (start, {(k, 0)}) for k, start in enumerate(beginnings) if start}
        return [Passage(tuple(passage_ids), frozenset(places)) for passage_ids, places in found.values()]

    def _whole_words(self, text: str, room: int) -> list[int]:
        """Return the ids of as many first words of a text as there is room for."""
        words = re.findall(r"\s*\S+", text)
        ends = accumulate(map(len, self._encode_plain(words)))
        kept = "".join(word for word, end in zip(words, ends, strict=True) if end <= room)
        return self._encode_plain([kept or text])[0][:room]


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
