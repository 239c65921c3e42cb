"""Rankers that encode each candidate once: N readings give the logits of all pairs of N candidates."""

import json
import math
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import groupby
from typing import Any

import numpy as np
import torch
from transformers import BatchEncoding

from blender_hf.errors import InputError, chosen
from blender_hf.inputs import Item
from blender_hf.modeling import CandidateEncoding, PairRanker, PairRankerProcessor
from blender_hf.modeling.ranking_math import compare_encodings
from blender_hf.modeling.row_layouts import Part

from .aggregation import AGGREGATIONS
from .concurrency import lock_of, lock_to_run
from .model_state import check_ids, evaluating
from .results import Comparison, Matrix, Ranking, Truncation, Unread, make_ranking
from .schedules import Schedule
from .scorer import RankerScorer, halved, in_order, pack_by_tokens, tokenised
from .unread import UnreadWarning, unread_of

# The schedule of rankings in which every pair was compared.
ALL_PAIRS = "full"
# How many encodings are kept, of a few hundred bytes each.
MAX_KEPT = 100_000
# Of how many weights a number is looked at, to see whether they are still the same.
N_SAMPLED = 32


class CandidateEncoder(RankerScorer[CandidateEncoding]):
    """Encodes candidates with a `PairRanker` that reads each by itself.

    An encoding does not depend on the other candidates of its batch. Where the model allows it (`shares_prompts`), the
    prompt is read once for all of its candidates; a model that is compiled reads whole rows. Encodings are kept, as
    long as the weights are the same, so ranking again with one more candidate reads that candidate alone.
    """

    def __init__(self, model: PairRanker, processor: PairRankerProcessor, **options: Any) -> None:
        super().__init__(model, processor, **options)
        self._reads_prompts_once = self._call is model and getattr(model, "shares_prompts", False)
        self._kept: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self._weights: Any = None

    def encode(self, rows: Sequence[CandidateEncoding]) -> np.ndarray:
        """Return the encoding of each row, (rows, tasks, 1 + preference_dim), float64."""
        keys = [_key(row) for row in rows]
        with lock_of(self):
            self._forget_if_trained()
            # In a fixed order, so that the same candidates make the same batches however they are given.
            missing = sorted(
                {key: row for key, row in zip(keys, rows, strict=True) if key not in self._kept}.items(),
                key=lambda entry: (entry[1].prompt_ids, entry[1].candidate_ids),
            )
            fresh = dict(zip((key for key, _ in missing), self._run([row for _, row in missing]), strict=True))
            found = [fresh[key] if key in fresh else self._kept[key] for key in keys]
            for key, encoding in zip(keys, found, strict=True):
                self._kept[key] = encoding
                self._kept.move_to_end(key)
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        return np.stack(found)

    def forget(self) -> None:
        """Drop the encodings that are kept, so that all are made again."""
        self._kept.clear()

    def pad(self, rows: Sequence[CandidateEncoding]) -> BatchEncoding:
        """Make a batch of tensors, (batch, length) each, of whole rows."""
        return self.processor.pad_candidates(rows)

    def read(self, output: Any) -> torch.Tensor:
        """Return the encodings of the model's output, (batch, tasks, 1 + preference_dim)."""
        return output.encodings

    def _run(self, rows: Sequence[CandidateEncoding]) -> np.ndarray:
        found = self._behind_prompts(rows) if self._reads_prompts_once and rows else self.outputs(rows)
        return found.double().numpy()

    def _behind_prompts(self, rows: Sequence[CandidateEncoding]) -> torch.Tensor:
        """Encode candidates, those of a prompt next to each other, by reading each prompt once."""
        groups = [list(group) for _, group in groupby(rows, key=lambda row: row.prompt_ids)]
        lengths = [len(group[0].prompt_ids) for group in groups]
        chunks = list(pack_by_tokens(lengths, self.max_batch_tokens, self.max_padding))
        found = torch.cat([halved(self._encode_groups, [groups[index] for index in chunk]) for chunk in chunks])
        self.check(found)
        ends = np.cumsum([len(group) for group in groups])
        places = [range(ends[index] - len(groups[index]), ends[index]) for chunk in chunks for index in chunk]
        return in_order(found, places)

    def _encode_groups(self, groups: Sequence[Sequence[CandidateEncoding]]) -> torch.Tensor:
        """Return the encodings of the candidates of some prompts, group by group."""
        entries = [(number, row.candidate_ids) for number, group in enumerate(groups) for row in group]
        longest = max(len(group[0].prompt_ids) for group in groups)
        lengths = [longest + len(ids) for _, ids in entries]
        batches = list(pack_by_tokens(lengths, self.max_batch_tokens, self.max_padding))
        with torch.inference_mode(), lock_to_run(self.model), evaluating(self.model):
            prompts = self.model.read_prompts(**self._on_device([group[0].prompt_ids for group in groups]))

            def encode(places: Sequence[int]) -> torch.Tensor:
                numbers, ids = zip(*(entries[place] for place in places), strict=True)
                index = torch.tensor(numbers, device=self.model.device)
                return self.model.encode_after(prompts, index, **self._on_device(ids)).float()

            # Fetched in one go: a GPU need not wait for us between batches.
            return in_order(torch.cat([halved(encode, batch) for batch in batches]).cpu(), batches)

    def _on_device(self, rows: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
        batch = self.processor.pad(rows)
        check_ids(self.model, batch["input_ids"])
        return {name: tensor.to(self.model.device, non_blocking=True) for name, tensor in batch.items()}

    def _forget_if_trained(self) -> None:
        weights = _state_of(self.model)
        if weights != self._weights:
            self.forget()
            self._weights = weights

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_kept": OrderedDict(), "_weights": None}


class ItemTokens:
    """The tokens of items, each different prompt and candidate tokenized once, nothing cut.

    Args:
        items: Prompts with their candidates.
        processor: The ranker's processor.

    Raises:
        InputError: If the ranker's chat template refuses a conversation; the message names the item.
    """

    def __init__(self, items: Iterable[Item], processor: PairRankerProcessor) -> None:
        items = list(items)
        different = {_prompt_key(item): item for item in items}
        self._encode = processor.encode_candidate
        self._texts = tokenised((text for item in items for text in item.texts), processor)
        with lock_of(processor.tokenizer):
            found = _encoded_prompts(list(different.values()), processor)
        self._prompts = dict(zip(different, found, strict=True))

    def rows(self, item: Item) -> list[CandidateEncoding]:
        """Return what the ranker reads of each candidate of an item."""
        prompt = self._prompts[_prompt_key(item)]
        return [self._encode(prompt, self._texts[text]) for text in item.texts]

    def unread(self, item: Item, rows: Sequence[CandidateEncoding], unknown_id: int | None) -> Unread:
        """Return what of an item the ranker can't read, of which it reads these rows."""
        ids = [self._prompts[_prompt_key(item)].ids, *(self._texts[text] for text in item.texts)]
        return unread_of(item, ids, (row.input_ids for row in rows), unknown_id)


class Separate:
    """Ranks by comparing encodings, of which each candidate has one: all pairs, whatever the schedule.

    Args:
        scorer: Encodes the candidates.
    """

    def __init__(self, scorer: CandidateEncoder) -> None:
        self.scorer = scorer
        self._warning = UnreadWarning("ranker")

    @property
    def model(self) -> PairRanker:
        """The loaded model."""
        return self.scorer.model

    def prepare(self, items: Sequence[Item]) -> ItemTokens:
        """Tokenize all prompts and candidates of the items, each once."""
        return ItemTokens(items, self.scorer.processor)

    def rank(
        self, items: Sequence[Item], schedule: Schedule, aggregation: str, prepared: ItemTokens | None = None
    ) -> list[Ranking]:
        """Rank the candidates of every item; all comparisons are known, whatever the schedule."""
        chosen(AGGREGATIONS, aggregation, "aggregation")  # a misspelt name fails before the long work
        return [
            make_ranking(
                item,
                logits,
                aggregation,
                temperature=self.model.config.logit_temperature,
                truncated=truncated,
                schedule=ALL_PAIRS,
                unread=unread,
                n_encodings=n_encodings,
            )
            for item, (logits, truncated, unread, n_encodings) in zip(items, self._judge(items, prepared), strict=True)
        ]

    def compare(
        self, items: Sequence[Item], tie_threshold: float = 0.0, prepared: ItemTokens | None = None
    ) -> list[Comparison]:
        """Compare the two candidates of every item; there is no presentation order."""
        temperature = self.model.config.logit_temperature
        return [
            Comparison(logits[0][1], logits[1][0], truncated, temperature, tie_threshold, unread)
            for logits, truncated, unread, _ in self._judge(items, prepared)
        ]

    def _judge(
        self, items: Sequence[Item], prepared: ItemTokens | None
    ) -> list[tuple[Matrix, Truncation, Unread, int]]:
        """Return of each item all logits, what was cut and not read, and how many encodings it took."""
        if not items:
            return []
        tokens = self.prepare(items) if prepared is None else prepared
        rows = [tokens.rows(item) for item in items]
        encodings = self.scorer.encode([row for of_item in rows for row in of_item])
        ends = np.cumsum([len(of_item) for of_item in rows])[:-1]
        return [
            (_matrix(found), *self._reading(item, of_item, tokens), len({row.input_ids for row in of_item}))
            for item, of_item, found in zip(items, rows, np.split(encodings, ends), strict=True)
        ]

    def _reading(self, item: Item, rows: Sequence[CandidateEncoding], tokens: ItemTokens) -> tuple[Truncation, Unread]:
        unread = tokens.unread(item, rows, self.scorer.unknown_id)
        self._warning.check(item.where, unread)
        return Truncation(rows[0].truncated_source, tuple(row.truncated_candidate for row in rows)), unread


def _prompt_key(item: Item) -> str:
    """Return what tells conversations apart; two that are rendered alike may be read differently."""
    return json.dumps(item.messages, default=str)


def _encoded_prompts(items: Sequence[Item], processor: PairRankerProcessor) -> list[Part]:
    try:
        return processor.encode_prompts([item.messages for item in items])
    except ValueError:
        for item in items:
            try:
                processor.encode_prompts([item.messages])
            except ValueError as error:
                raise InputError(f"{item.where}: {error}") from error
        raise


def _matrix(encodings: np.ndarray) -> Matrix:
    """Return all logits of candidates from their encodings, (candidates, tasks, 1 + preference_dim)."""
    logits = compare_encodings(encodings[:, None], encodings[None, :]).mean(axis=-1).tolist()
    # One NaN for all, since tuples are equal only if they hold the same.
    return tuple(tuple(math.nan if i == j else logit for j, logit in enumerate(row)) for i, row in enumerate(logits))


def _key(row: CandidateEncoding) -> bytes:
    """Return a digest of what is read."""
    ids = np.array([len(row.prompt_ids), *row.input_ids], dtype=np.int64)
    return blake2b(ids.tobytes(), digest_size=16).digest()


def _state_of(model: Any) -> Any:
    """Return what changes with the encodings that a model gives: its weights, its adapters, and how it pools.

    Of each weight that is where it is and how often it was written to, and of some of them a number, since what writes
    through `.data`, as averages of weights do, is not counted.
    """
    if not isinstance(model, torch.nn.Module):
        return None
    weights = list(model.parameters())
    places = [(weight.data_ptr(), weight.dtype, 0 if weight.is_inference() else weight._version) for weight in weights]
    numbers: dict[torch.device, list[torch.Tensor]] = {}
    for weight in weights[:: -max(1, len(weights) // N_SAMPLED)]:  # those of the head first
        # Quantised weights and shards are of other types, which may have no single numbers.
        if type(weight) is torch.nn.Parameter and weight.numel() and not weight.is_meta:
            numbers.setdefault(weight.device, []).append(weight.detach()[tuple(size // 2 for size in weight.shape)])
    sample = [torch.stack(of_device).tolist() for of_device in numbers.values()]
    # Which adapters of PEFT are in use.
    adapters = [
        (own["_disable_adapters"], str(own.get("_active_adapter")), str(own.get("scaling")))
        for own in map(vars, model.modules())
        if "_disable_adapters" in own
    ]
    config: Any = model.config
    return places, sample, adapters, (config.pooling, config.shared_prompt)
