"""Reward models: any `AutoModelForSequenceClassification` with one or two labels scores a prompt with one candidate.

With a chat template the prompt and the candidate, as the assistant's last message, are written as the template says;
without one they are a pair of texts, as the tokenizer writes pairs. Special tokens in them are treated as plain text.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import torch
from transformers import BatchEncoding, PretrainedConfig, PreTrainedModel

from blender_hf.errors import CheckpointError, InputError, chosen
from blender_hf.inputs import Candidate, Item, make_item
from blender_hf.modeling import PairRankerConfig
from blender_hf.modeling.chat_templates import ChatTemplate, with_texts
from blender_hf.modeling.conversations import Message
from blender_hf.modeling.ranking_math import indistinguishable
from blender_hf.modeling.tokenization import (
    PlainTextEncoder,
    affixes,
    n_positions,
    pad_right,
    unknown_id,
    unknown_in,
)
from blender_hf.modeling.tokenizer_files import PROBE

from .concurrency import lock_of
from .model_state import check_vocabulary, n_token_types, reads_end, reads_padding
from .results import Truncation, Unread
from .scorer import BatchScorer

# Where the text of message N will stand in a rendered template: characters for private use, which no template has.
SLOT = "\ue0b5{}\ue0b6"
SLOTS = re.compile("\ue0b5(\\d+)\ue0b6")
# Minimum room, in tokens, that must be left for the texts.
MIN_ROOM = 16


@dataclass(frozen=True)
class RewardEncoding:
    """A prompt with one candidate, as a reward model reads it."""

    input_ids: tuple[int, ...]  # the token ids
    # which of the two texts each is of, where the tokenizer says so; empty elsewhere
    token_type_ids: tuple[int, ...] = ()
    truncated_prompt: int = 0  # how many tokens of the prompt were cut
    truncated_candidate: int = 0  # how many tokens of the candidate were cut
    unknown_prompt: int = 0  # how many tokens of the prompt the tokenizer does not know
    unknown_candidate: int = 0  # the same of the candidate

    @property
    def key(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What the model reads of it."""
        return self.input_ids, self.token_type_ids

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True)
class Part:
    """A stretch of an input: fixed token ids, or the place (`slot`) of a text; all of one token type."""

    ids: tuple[int, ...] = ()
    slot: int | None = None
    token_type: int | None = None


class RewardModelScorer(BatchScorer[RewardEncoding]):
    """A pointwise ranker that runs a reward model; each candidate's score depends on it and its prompt alone.

    Args:
        model: A sequence classification model with one label, or two, on its device.
        tokenizer: Its tokenizer; with a chat template, the prompt and the candidate become a conversation.
        max_batch_tokens: Maximum tokens per batch, padding included; None chooses by device.
        compile: Whether the model is compiled (`torch.compile`): worth its minutes for long work on a GPU.
        positive_label: Of two labels, the index or the name of the one that means a good answer; the score is then the
            log-odds of it. None for a model with one.

    Raises:
        CheckpointError: If the model has another number of labels, or the tokenizer can't be used.
        InputError: If it has no such label.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Any,
        *,
        max_batch_tokens: int | None = None,
        compile: bool = False,
        positive_label: int | str | None = None,
    ) -> None:
        self._positive = positive_index(model.config, type(model).__name__, positive_label)
        super().__init__(model, max_batch_tokens=max_batch_tokens, compile=compile)
        self.tokenizer = tokenizer
        check_vocabulary(model, tokenizer)
        self.inputs = RewardInputs(tokenizer, reading_length(tokenizer, model.config), n_token_types(model))
        # That of the model, not of the tokenizer: a decoder looks for it to find the last token.
        stated = getattr(model.config.get_text_config(), "pad_token_id", None)
        self._pad_token_id: int | None = None if stated is None or stated < 0 else stated
        if self._pad_token_id is None or getattr(model.config, "summary_type", None) == "last":
            self.max_batch_tokens = 1  # the head reads the last place, padding or not, so each row is a batch
        if reads_end(model):
            check_end(model.config, self.inputs)
            if tokenizer.chat_template or self._pad_token_id == model.config.eos_token_id:
                self.max_batch_tokens = 1  # the rows of a batch must all have as many of these tokens

    def scores(self, items: Sequence[Item]) -> list[tuple[float, ...]]:
        """Score the candidates of each item; see `PointwiseRanker`."""
        return [scores for scores, _, _ in self.scores_and_readings(items)]

    def scores_and_readings(self, items: Sequence[Item]) -> list[tuple[tuple[float, ...], Truncation, Unread]]:
        """Score the candidates of each item, and report what was cut or not read; equal inputs are scored once."""
        encoded = self.inputs.encode(items)
        # In a fixed order, so that the same inputs make the same batches however they are given.
        unique = sorted({row.key: row for rows in encoded for row in rows}.values(), key=lambda row: row.key)
        found = dict(zip((row.key for row in unique), self.logits(unique), strict=True))
        return [
            (tuple(found[row.key] for row in rows), *readings_of(item, rows))
            for item, rows in zip(items, encoded, strict=True)
        ]

    def read(self, output: Any) -> torch.Tensor:
        """Return the score of each row, (batch,): the only logit, or the log-odds of the positive label of two."""
        if self._positive is None:
            return super().read(output)
        return output.logits[:, self._positive] - output.logits[:, 1 - self._positive]

    def pad(self, rows: Sequence[RewardEncoding]) -> BatchEncoding:
        """Make a batch of tensors `input_ids`, `attention_mask` and, if the model reads them, `token_type_ids`."""
        batch = pad_right([row.input_ids for row in rows], self._pad_token_id or 0)
        if all(row.token_type_ids for row in rows):
            batch["token_type_ids"] = pad_right([row.token_type_ids for row in rows], 0)["input_ids"]
        if reads_padding(self.model):
            del batch["attention_mask"]  # there is no padding, and FNet does not take one
        return batch


def is_reward_model(config: Any) -> bool:
    """Return whether a configuration is a reward model's, not a pair ranker's."""
    return isinstance(config, PretrainedConfig) and config.model_type != PairRankerConfig.model_type


def positive_index(config: Any, name: str, positive_label: int | str | None) -> int | None:
    """Return which of two labels means a good answer; None for a model with one label, whose logit is the score.

    Raises:
        CheckpointError: If the configuration has another number of labels, or two and it is not said which.
        InputError: If there is no such label, or no choice.
    """
    if config.num_labels == 1:
        if positive_label is not None:
            raise InputError(f"positive_label={positive_label!r} is for a model with two labels, and {name} has one")
        return None
    labels = [str(config.id2label[index]) for index in range(config.num_labels)]
    if config.num_labels != 2 or positive_label is None:
        listed = ", ".join(f"{index} ({label})" for index, label in enumerate(labels))
        hint = f"; of two, positive_label= says which means a good answer: {listed}" if config.num_labels == 2 else ""
        raise CheckpointError(
            f"{name} has {config.num_labels} labels; a reward model has one, which is the score of a candidate{hint}"
        )
    choices = {**{str(index): index for index in range(2)}, **{label: index for index, label in enumerate(labels)}}
    return chosen(choices, str(positive_label), f"positive_label of {name}")


def check_end(config: Any, inputs: "RewardInputs") -> None:
    """Raise CheckpointError unless inputs have the token whose state is the score of a model that reads its end."""
    [[row]] = inputs.encode([make_item(PROBE, [PROBE])])
    if config.eos_token_id not in row.input_ids:
        raise CheckpointError(
            f"a {config.model_type} model scores at the last token that ends texts (eos_token_id="
            f"{config.eos_token_id}), and its tokenizer writes none: load the tokenizer that it was trained with, or "
            'state "add_eos_token": true in tokenizer_config.json'
        )


class RewardInputs:
    """Encodes items for a reward model.

    An input that is too long is cut as `assembled` does it, each text at the end that the tokenizer states.

    Args:
        tokenizer: The tokenizer; left as it is.
        max_length: Maximum tokens of an input.
        n_types: How many token types the model tells apart; with fewer than two, none are made.

    Raises:
        CheckpointError: If the tokenizer can't be used.
    """

    def __init__(self, tokenizer: Any, max_length: int, n_types: float = 0) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._unknown_id = unknown_id(tokenizer)
        self._skeletons: dict[str, list[int]] = {}
        if tokenizer.chat_template:
            self._template = ChatTemplate(tokenizer)
            # What delimits messages stands around the user's too; <think> and the like are the assistant's to write.
            self._render([{"role": "user", "content": ""}], "the chat template")  # one that refuses this is named
            delimiters = self._template.delimiters()
            self._plain = PlainTextEncoder(tokenizer, delimiters)
            self._guarded = _guarded(tokenizer, delimiters)
        else:
            self._plain = PlainTextEncoder(tokenizer)
            self._pair = pair_parts(tokenizer, n_types)

    def encode(self, items: Sequence[Item]) -> list[list[RewardEncoding]]:
        """Encode each candidate of each item with its prompt."""
        with lock_of(self._tokenizer):
            if not self._tokenizer.chat_template:
                return [self._encode_pairs(item) for item in items]
            return [self._encode_chats(item) for item in items]

    def _encode_pairs(self, item: Item) -> list[RewardEncoding]:
        source, *candidates = self._plain([item.source, *item.texts])
        rows = [self._assemble(self._pair, [source, candidate], item.where) for candidate in candidates]
        return self._counted(rows, item, [source, *candidates])

    def _encode_chats(self, item: Item) -> list[RewardEncoding]:
        item.report_unread()
        chats = [self._template.fitted((*item.messages, *answer_messages(candidate))) for candidate in item.candidates]
        written = [self._render(chat, item.where) for chat in chats]
        ids = self._tokenizer(written, add_special_tokens=False, verbose=False)["input_ids"]
        rows = [
            RewardEncoding(tuple(row))
            if self._is_clean(row, self._skeleton(chat, item.where))
            else self._encode_by_parts(item, text)
            for chat, row, text in zip(chats, ids, item.texts, strict=True)
        ]
        if not any(self._unknown_id in row for row in ids) and all(item.texts):
            return rows
        return self._counted(rows, item, self._plain([item.source, *item.texts]))

    def _counted(
        self, rows: Sequence[RewardEncoding], item: Item, ids: Sequence[Sequence[int]]
    ) -> list[RewardEncoding]:
        """Note the unknown tokens of an item, whose prompt and candidates have these ids."""
        of_prompt, *counts = (
            unknown_in(text, row, self._unknown_id) for text, row in zip((item.source, *item.texts), ids, strict=True)
        )
        return [
            replace(row, unknown_prompt=of_prompt, unknown_candidate=number)
            for row, number in zip(rows, counts, strict=True)
        ]

    def _is_clean(self, ids: Sequence[int], expected: Sequence[int]) -> bool:
        """Return whether an input fits, and has no special tokens except the template's."""
        return len(ids) <= self._max_length and [i for i in ids if i in self._guarded] == expected

    def _skeleton(self, chat: Sequence[Message], where: str) -> list[int]:
        """Return the special tokens that the template writes for these roles and tool calls."""
        numbers = count()
        # The text beside tool calls may be missing, and a template may ask whether it is.
        has_text = ["tool_calls" not in message or bool(message["content"]) for message in chat]
        empty = [with_texts(message, lambda text: SLOT.format(next(numbers))) for message in chat]
        empty = [message if has else {**message, "content": ""} for message, has in zip(empty, has_text, strict=True)]
        key = json.dumps(empty, default=str)
        if key not in self._skeletons:
            written = self._render(empty, where)
            ids = self._tokenizer(SLOTS.sub("x", written), add_special_tokens=False)["input_ids"]
            self._skeletons[key] = [i for i in ids if i in self._guarded]
        return self._skeletons[key]

    def _encode_by_parts(self, item: Item, candidate: str) -> RewardEncoding:
        """Encode template and texts separately, so that texts can be cut, and can't forge the template's tokens.

        Tool calls are in the texts here: in the form of the template they could be cut nowhere.
        """
        prompt = self._template.fitted(item.messages, texts_alone=True)
        chat = [*prompt, {"role": "assistant", "content": candidate}]
        # Only the stripped text is held back: the template keeps or strips white space at its ends.
        texts = [message["content"].strip() for message in chat]
        held = [
            {**message, "content": message["content"].replace(inner, SLOT.format(n))} if inner else message
            for n, (message, inner) in enumerate(zip(chat, texts, strict=True))
        ]
        pieces = SLOTS.split(self._render(held, item.where))
        return self._assemble(list(self._parts(pieces)), self._plain(texts), item.where)

    def _parts(self, pieces: Sequence[str]) -> Iterator[Part]:
        for fixed, slot in zip(pieces[::2], [*pieces[1::2], None], strict=True):
            yield Part(tuple(self._tokenizer(fixed, add_special_tokens=False)["input_ids"]) if fixed else ())
            if slot is not None:
                yield Part(slot=int(slot))

    def _assemble(self, parts: Sequence[Part], texts: Sequence[Sequence[int]], where: str) -> RewardEncoding:
        try:
            return assembled(parts, texts, self._max_length, self._tokenizer.truncation_side)
        except ValueError as error:
            raise InputError(f"{where}: {error}") from None

    def _render(self, chat: Sequence[Message], where: str) -> str:
        try:
            return self._template.render(chat)
        # A template raises what it likes, mostly jinja2.TemplateError.
        except Exception as error:
            roles = ", ".join(message["role"] for message in chat)
            raise InputError(f"{where}: the ranker's chat template refuses messages of {roles}: {error}") from None


def reading_length(tokenizer: Any, config: Any) -> int:
    """Return the maximum input length of a model, by its tokenizer and its table of positions."""
    return min(tokenizer.model_max_length, n_positions(config) or tokenizer.model_max_length)


def assembled(parts: Sequence[Part], texts: Sequence[Sequence[int]], max_length: int, side: str) -> RewardEncoding:
    """Put an input together; texts that are too long for it are cut.

    The last text is the candidate, the others are the prompt. The candidate keeps at least half of the room for text,
    the prompt the rest, and room that one of them does not need goes to the other. The oldest text of the prompt is cut
    first, each at the given side. Raises ValueError if the fixed parts leave no room for text.
    """
    room = max_length - sum(len(part.ids) for part in parts)
    if room < MIN_ROOM:
        raise ValueError(f"of the {max_length} tokens that the ranker reads, {room} are left for text")
    kept, cut_prompt, cut_candidate = _cut(texts, room, side)
    filled = [(part.ids if part.slot is None else kept[part.slot], part.token_type) for part in parts]
    types = tuple(token_type for ids, token_type in filled for _ in ids if token_type is not None)
    return RewardEncoding(tuple(i for ids, _ in filled for i in ids), types, cut_prompt, cut_candidate)


def pair_parts(tokenizer: Any, n_types: float = 0) -> list[Part]:
    """Return the parts that a tokenizer makes of a pair of texts, or raise CheckpointError if that can't be told.

    They have token types if the model tells at least two apart, and all of those that the tokenizer makes.
    """
    try:
        fixed = affixes(tokenizer, 2)
    except ValueError as error:
        raise CheckpointError(str(error)) from None
    encoded = tokenizer(PROBE, PROBE, return_token_type_ids=_makes_types(tokenizer) and n_types > 1)
    types = encoded.get("token_type_ids")
    if types and max(types) >= n_types:
        types = None  # the model was trained without them
    length = (len(encoded["input_ids"]) - sum(map(len, fixed))) // 2  # of each probe
    parts: list[Part] = []
    place = 0
    for slot, ids in enumerate(fixed):
        # Affixes may have several types, as the two [SEP] of BERT have.
        parts += [Part((token,), token_type=types and types[place + n]) for n, token in enumerate(ids)]
        place += len(ids)
        if slot < 2:
            parts.append(Part(slot=slot, token_type=types and types[place]))
            place += length
    return parts


def readings_of(item: Item, rows: Sequence[RewardEncoding]) -> tuple[Truncation, Unread]:
    """Return what was cut and not read of an item, by the inputs that its candidates became."""
    cut = Truncation(max(row.truncated_prompt for row in rows), tuple(row.truncated_candidate for row in rows))
    same = indistinguishable(item.texts, (row.key for row in rows))
    return cut, Unread(rows[0].unknown_prompt, tuple(row.unknown_candidate for row in rows), same)


def answer_messages(candidate: Candidate) -> tuple[Message, ...]:
    """Return the messages of the assistant that a candidate is."""
    messages = candidate.messages or ()
    if len(messages) > 1:
        return messages
    return tuple({**message, "role": "assistant"} for message in messages) or (
        {"role": "assistant", "content": candidate.text},
    )


def _makes_types(tokenizer: Any) -> bool:
    """Return whether a tokenizer makes token types when it is asked; its files may state that it makes none.

    Whether it makes them unasked depends on the version of transformers.
    """
    return "token_type_ids" in tokenizer.init_kwargs.get("model_input_names", ["token_type_ids"])


def _guarded(tokenizer: Any, delimiters: Sequence[str]) -> set[int]:
    """Return the tokens that no text may become: special tokens, and the template's delimiters."""
    added = tokenizer.added_tokens_decoder.items()
    special = {token_id for token_id, token in added if token.special or token.content in delimiters}
    return (special | set(tokenizer.all_special_ids)) - {tokenizer.unk_token_id}


def _cut(texts: Sequence[Sequence[int]], room: int, side: str) -> tuple[list[tuple[int, ...]], int, int]:
    """Cut texts so that they fit: the kept ids of each, and how many were cut of the prompt and of the candidate."""
    *prompt, candidate = texts
    length = sum(map(len, prompt))
    for_candidate = min(len(candidate), max(room - length, room // 2))
    cut_prompt = left = max(0, length - (room - for_candidate))
    kept = []
    for ids in prompt:
        cut = min(left, len(ids))
        left -= cut
        kept.append(_without(ids, cut, side))
    cut_candidate = len(candidate) - for_candidate
    return [*kept, _without(candidate, cut_candidate, side)], cut_prompt, cut_candidate


def _without(ids: Sequence[int], cut: int, side: str) -> tuple[int, ...]:
    return tuple(ids[cut:] if side == "left" else ids[: len(ids) - cut])
