"""Scores presentations of pairs: a flat list of them in, one logit each out.

Presentations are sorted by length and packed into batches of a token budget, so little is spent on padding. A logit
does not depend on the other pairs of its batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from transformers import BatchEncoding

from blender_hf.errors import ModelOutputError
from blender_hf.inputs import Item
from blender_hf.modeling import PairEncoding, PairRanker, PairRankerProcessor
from blender_hf.modeling.conversations import Message
from blender_hf.modeling.tokenization import unknown_id

from .concurrency import lock_of, lock_to_run
from .model_state import check_ids, evaluating, make_ready, reads_padding
from .streaming import one_ahead

# More is no faster on a CPU; a GPU needs larger batches.
DEFAULT_BATCH_TOKENS = {"cpu": 4096, "cuda": 65536}
# Maximum padding tokens per batch: beyond it, another batch is cheaper. Starting one is slow on a GPU, not on a CPU.
MAX_PADDING = {"cpu": 128, "cuda": 8192}

TokenIds = tuple[int, ...]
Texts = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Presentation:
    """A pair in one presentation order: a prompt and two candidates as texts.

    Args:
        source: The text of the prompt with its instruction.
        first: The candidate that is presented first.
        second: The other one.
        messages: The conversation of the prompt, for models that have a chat template; empty if only its text is known.
    """

    source: str
    first: str
    second: str
    messages: tuple[Message, ...] = field(default=(), compare=False, repr=False)


class Form(NamedTuple):
    """What the model reads for a presentation, and the sign of its logit: 0 if it ties without being read."""

    ids: TokenIds
    sign: int


Row = TypeVar("Row", bound=Sized)


class BatchScorer(ABC, Generic[Row]):
    """Runs a model that gives one number, or one encoding, a row of tokens, over rows of unequal length.

    Args:
        model: The model, on its device; it is put into evaluation mode, and runs in it even while it is trained.
        max_batch_tokens: Maximum tokens per batch, padding included; None chooses by device.
        compile: Whether the model is compiled (`torch.compile`): worth its minutes for long work on a GPU.
    """

    def __init__(self, model: Any, *, max_batch_tokens: int | None = None, compile: bool = False) -> None:
        make_ready(model)
        self.model = model
        self.max_batch_tokens = max_batch_tokens or DEFAULT_BATCH_TOKENS.get(model.device.type, 16384)
        free = getattr(model, "skips_padding", False) and not compile
        self.max_padding = self.max_batch_tokens if free else MAX_PADDING.get(model.device.type, 2048)
        if reads_padding(model):
            self.max_padding = 0
        self._call = torch.compile(model, dynamic=True) if compile else model

    @property
    def device(self) -> torch.device:
        """Where batches go; a model whose first weights wait elsewhere (`device_map`) fetches them from the CPU."""
        device: torch.device = self.model.device
        return torch.device("cpu") if device.type == "meta" else device

    @abstractmethod
    def pad(self, rows: Sequence[Row]) -> BatchEncoding:
        """Make a batch of tensors from rows, each (batch, length)."""

    def read(self, output: Any) -> torch.Tensor:
        """Return of the model's output on a batch what there is of each row, (batch,) or (batch, ...)."""
        return output.logits.flatten()

    def logits(self, rows: Sequence[Row], on_batch: Callable[[int], None] | None = None) -> list[float]:
        """Return the number of each row, in their order; NaN or infinity is a ModelOutputError."""
        return self.outputs(rows, on_batch).tolist()

    def outputs(self, rows: Sequence[Row], on_batch: Callable[[int], None] | None = None) -> torch.Tensor:
        """Return what `read` gives of each row, in their order, float32; NaN or infinity is a ModelOutputError."""
        batches = list(pack_by_tokens([len(row) for row in rows], self.max_batch_tokens, self.max_padding))
        padded = one_ahead(lambda batch: self._padded([rows[index] for index in batch]), batches)
        outputs: list[torch.Tensor] = []
        for batch, inputs in zip(batches, padded, strict=True):
            outputs.append(self._forward(inputs))
            if on_batch is not None:
                on_batch(len(batch))
        if not outputs:
            return torch.empty(0)
        # Fetched in one go: a GPU need not wait for us between batches.
        found = torch.cat(outputs).cpu()
        self.check(found)
        return in_order(found, batches)

    def check(self, found: torch.Tensor) -> None:
        """Raise ModelOutputError if there is NaN or infinity in what a model gave."""
        if not found.isfinite().all():
            raise ModelOutputError(
                "the ranker gave NaN or an infinite logit: its weights are damaged, or the dtype is too narrow for it; "
                "try dtype=torch.float32"
            )

    def _padded(self, rows: Sequence[Row]) -> BatchEncoding:
        batch = self.pad(rows)
        check_ids(self.model, batch["input_ids"])
        return batch

    @torch.inference_mode()
    def _forward(self, inputs: BatchEncoding) -> torch.Tensor:
        """Run the model on a padded batch; one that is too large for the device's memory is halved."""

        def run(rows: range) -> torch.Tensor:
            part = {name: tensor[rows.start : rows.stop] for name, tensor in inputs.items()}
            with lock_to_run(self.model), evaluating(self.model):
                on_device = {name: tensor.to(self.device, non_blocking=True) for name, tensor in part.items()}
                return self.read(self._call(**on_device)).float()

        return halved(run, range(len(inputs["input_ids"])))


class RankerScorer(BatchScorer[Row]):
    """Runs a PairRanker, over rows that its processor makes of texts.

    Args:
        model: The ranker, on its device.
        processor: Its processor.
        max_batch_tokens: Maximum tokens per batch, padding included; None chooses by device.
        compile: Whether the model is compiled (`torch.compile`): worth its minutes for long work on a GPU.
    """

    def __init__(
        self,
        model: PairRanker,
        processor: PairRankerProcessor,
        *,
        max_batch_tokens: int | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__(model, max_batch_tokens=max_batch_tokens, compile=compile)
        self.processor = processor
        self.unknown_id = unknown_id(processor.tokenizer)

    def tokenise(self, texts: Iterable[str]) -> dict[str, list[int]]:
        """Tokenize each different text once, nothing cut."""
        return tokenised(texts, self.processor)


class PairScorer(RankerScorer[TokenIds]):
    """Scores presentations with a PairRanker that reads pairs."""

    def encode(self, presentation: Presentation, texts: Texts) -> PairEncoding:
        """Assemble the input of a presentation from its tokenized texts."""
        return self.processor.encode_pair(
            texts[presentation.source], texts[presentation.first], texts[presentation.second]
        )

    def score(
        self,
        presentations: Sequence[Presentation],
        texts: Texts | None = None,
        on_batch: Callable[[int], None] | None = None,
    ) -> list[float]:
        """Score presentations; exact repeats are scored once, and by a symmetric ranker both orders of a pair too.

        One logit each, positive if the candidate presented first is better; 0 if both are the same tokens once cut.
        """
        if texts is None:
            texts = self.tokenise(text for p in presentations for text in (p.source, p.first, p.second))
        read = cache(lambda presentation: tuple(self.encode(presentation, texts).input_ids))
        forms = {presentation: self._form(presentation, read) for presentation in dict.fromkeys(presentations)}
        # In a fixed order, so that the same pairs make the same batches however they are given: then swapping
        # or permuting candidates gives the same bits.
        unique = sorted({form.ids for form in forms.values() if form.sign})
        logits = dict(zip(unique, self.logits(unique, on_batch), strict=True))
        found = (forms[presentation] for presentation in presentations)
        return [form.sign * logits[form.ids] if form.sign else 0.0 for form in found]

    def _form(self, presentation: Presentation, read: Callable[[Presentation], TokenIds]) -> Form:
        """Return what to read for a presentation.

        Candidates that are the same tokens tie, whatever their texts. To a symmetric ranker the two orders of a pair
        are one and the same.
        """
        ids = read(presentation)
        swapped = read(Presentation(presentation.source, presentation.second, presentation.first))
        if ids == swapped:
            return Form(ids, 0)
        return Form(swapped, -1) if self.model.config.symmetric and swapped < ids else Form(ids, 1)

    def pad(self, rows: Sequence[TokenIds]) -> BatchEncoding:
        """Make a batch of tensors `input_ids` and `attention_mask`, both (batch, length)."""
        return self.processor.pad(rows)


def presented(item: Item, first: str, second: str) -> Presentation:
    """Return the presentation of two candidates of an item."""
    return Presentation(item.source, first, second, item.messages)


def tokenised(texts: Iterable[str], processor: PairRankerProcessor) -> dict[str, list[int]]:
    """Tokenize each different text once, nothing cut."""
    different = list(dict.fromkeys(texts))
    with lock_of(processor.tokenizer):
        return dict(zip(different, processor.encode_texts(different), strict=True))


def halved(run: Callable[[Any], torch.Tensor], rows: Any) -> torch.Tensor:
    """Run a sequence of rows together; if they are too many for the device's memory, each half."""
    try:
        return run(rows)
    except torch.OutOfMemoryError:
        if len(rows) == 1:
            raise
    half = len(rows) // 2
    return torch.cat([halved(run, rows[:half]), halved(run, rows[half:])])


def in_order(found: torch.Tensor, batches: Iterable[Iterable[int]]) -> torch.Tensor:
    """Return what was found, batch by batch, in the order of the indices that the batches hold."""
    return found[torch.tensor([index for batch in batches for index in batch]).argsort()]


def pack_by_tokens(lengths: Sequence[int], max_batch_tokens: int, max_padding: int) -> Iterator[list[int]]:
    """Yield batches of indices of similar length, the longest first.

    >>> list(pack_by_tokens([3, 9, 4], 8, 8))
    [[1], [2, 0]]
    >>> list(pack_by_tokens([3, 9, 4], 100, 4))
    [[1], [2, 0]]
    """
    batch: list[int] = []
    padding = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        longest = lengths[batch[0]] if batch else lengths[index]
        padding += longest - lengths[index]
        if batch and (longest * (len(batch) + 1) > max_batch_tokens or padding > max_padding):
            yield batch
            batch, padding = [], 0
        batch.append(index)
    if batch:
        yield batch
