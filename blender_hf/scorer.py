"""The engine: a flat list of presentations of pairs goes in, one logit each comes out.

Presentations are sorted by length and packed into batches of a token budget, so little is spent on padding. What a pair
is scored as does not depend on the pairs beside it.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from .errors import ModelOutputError
from .modeling import PairEncoding, PairRanker, PairRankerProcessor

# A batch of long pairs falls out of a CPU's cache; a GPU wants more work at once than it takes to fill it.
DEFAULT_BATCH_TOKENS = {"cpu": 4096, "cuda": 65536}


@dataclass(frozen=True)
class Presentation:
    """A pair in one order of presentation: a prompt and two candidates as texts."""

    source: str
    first: str
    second: str


@dataclass(frozen=True)
class Scored:
    """What the model said of a presentation.

    Args:
        logit: Positive if the candidate that was read first is the better one.
        encoding: The tokens that the model read and what was cut.
    """

    logit: float
    encoding: PairEncoding


class PairScorer:
    """Scores presentations with a PairRanker.

    Args:
        model: The ranker, on its device, in evaluation mode.
        processor: Its processor.
        max_batch_tokens: Most tokens of a batch, padding included; None chooses by the device.
    """

    def __init__(
        self, model: PairRanker, processor: PairRankerProcessor, *, max_batch_tokens: int | None = None
    ) -> None:
        self.model = model
        self.processor = processor
        self.max_batch_tokens = max_batch_tokens or DEFAULT_BATCH_TOKENS.get(model.device.type, 16384)

    def score(
        self, presentations: Sequence[Presentation], on_batch: Callable[[int], None] | None = None
    ) -> list[Scored]:
        """Score presentations; exact repeats are scored once.

        Args:
            presentations: The pairs, each in one order.
            on_batch: Called after each batch with the number of presentations in it, for progress.

        Returns:
            One result a presentation, in their order.

        Raises:
            ModelOutputError: If the model gives NaN or an infinite logit.
        """
        encoded = self._encode(dict.fromkeys(presentations))
        # In an order of their own, so that the same pairs make the same batches however they are given: then swapping
        # or permuting candidates gives the same bits.
        unique = sorted(encoded, key=lambda presentation: encoded[presentation].input_ids)
        encodings = [encoded[presentation] for presentation in unique]
        logits = [math.nan] * len(unique)
        for batch in pack_by_tokens([len(encoding.input_ids) for encoding in encodings], self.max_batch_tokens):
            for index, logit in zip(batch, self._forward([encodings[i].input_ids for i in batch]), strict=True):
                logits[index] = logit
            if on_batch is not None:
                on_batch(len(batch))
        results = dict(zip(unique, map(Scored, logits, encodings), strict=True))
        return [results[presentation] for presentation in presentations]

    def _encode(self, presentations: Iterable[Presentation]) -> dict[Presentation, PairEncoding]:
        texts = list(dict.fromkeys(text for p in presentations for text in (p.source, p.first, p.second)))
        ids = dict(zip(texts, self.processor.encode_texts(texts), strict=True))
        return {p: self.processor.encode_pair(ids[p.source], ids[p.first], ids[p.second]) for p in presentations}

    @torch.inference_mode()
    def _forward(self, batch: Sequence[Sequence[int]]) -> list[float]:
        inputs = self.processor.pad(batch).to(self.model.device)
        logits = self.model(**inputs).logits.float().tolist()
        if not all(map(math.isfinite, logits)):
            raise ModelOutputError(
                "the ranker gave NaN or an infinite logit: its weights are damaged, or the dtype is too narrow for it; "
                "try dtype=torch.float32"
            )
        return logits


def pack_by_tokens(lengths: Sequence[int], max_batch_tokens: int) -> Iterator[list[int]]:
    """Yield batches of indices of similar length, each at most `max_batch_tokens` with its padding, or a single one.

    >>> list(pack_by_tokens([3, 9, 4], 8))
    [[1], [2, 0]]
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > max_batch_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
