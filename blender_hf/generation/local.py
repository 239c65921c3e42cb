"""Language models that run here, with transformers."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from blender_hf.errors import CheckpointError
from blender_hf.loading.checkpoints import HubOptions, first_line, hub_settings, locate, pick_device, pick_dtype
from blender_hf.modeling.fast_kernels import use_fast_products
from blender_hf.modeling.tokenization import Message

from .chat import answer_in
from .local_prompts import PromptEncoder
from .outcomes import Answers, Failure, Outcome, Reply, empty_reason
from .sampling import Sampling
from .specs import LocalLLM


@dataclass(frozen=True)
class Encoded:
    """A prompt that a model can continue.

    Args:
        index: Which of the requests it is.
        ids: Its token ids.
        thinking: Whether it ends where the model goes on thinking.
        room: How many tokens the model may write.
    """

    index: int
    ids: list[int]
    thinking: bool
    room: int


class LocalModel:
    """A language model of transformers, on its device.

    A prompt is never cut: one that is longer than the model reads is a failure. Where less than `max_new_tokens` is
    left after it, the answer ends there, and says `truncated`.

    Args:
        llm: Which it is, and how it runs.

    Raises:
        CheckpointError: If it can't be loaded.
        InputError: If the device or the precision does not exist here.
    """

    runs_here = True

    def __init__(self, llm: LocalLLM) -> None:
        self.llm = llm
        self.name = llm.label
        self.model, self.tokenizer = _load(llm)
        self._writes_apart = bool(self.model.config.is_encoder_decoder)
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        # What a model continues has to stand right before what it writes.
        self.tokenizer.padding_side = "right" if self._writes_apart else "left"
        self._encode = PromptEncoder(self.tokenizer, answers_apart=self._writes_apart)
        self._lock = threading.Lock()

    @property
    def given_up(self) -> None:
        """Always None: what fails here, fails by itself."""

    @property
    def context_length(self) -> int | None:
        """Most tokens that the model reads and writes together; None if its configuration states no such limit."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    def start(self, requests: Sequence[Sequence[Message]], sampling: Sampling) -> Answers:
        """Write `n` answers to each conversation, as in `RemoteModel.start`; it is done when this returns."""
        done = Answers()
        with self._lock:
            done.set_result(self._answer_all(requests, sampling))
        return done

    def _answer_all(self, requests: Sequence[Sequence[Message]], sampling: Sampling) -> list[tuple[Outcome, ...]]:
        encoded = [self._encoded(index, messages, sampling) for index, messages in enumerate(requests)]
        readable = [row for row in encoded if isinstance(row, Encoded)]
        outcomes: dict[int, tuple[Outcome, ...]] = {
            index: (row,) * sampling.n for index, row in enumerate(encoded) if isinstance(row, Failure)
        }
        for batch in self._batches(readable, sampling.n):
            # Whatever one model does wrong, such as running out of memory, must not cost the answers of the others.
            try:
                written = self._write(batch, sampling)
            except Exception as error:
                written = [(Failure(self.name, f"it failed to generate: {first_line(error)}"),) * sampling.n] * len(
                    batch
                )
            outcomes |= zip((row.index for row in batch), written, strict=True)
        return [outcomes[index] for index in range(len(requests))]

    def _encoded(self, index: int, messages: Sequence[Message], sampling: Sampling) -> Encoded | Failure:
        # A template may refuse a conversation, such as one with two turns of the same role; what it raises is its own.
        try:
            ids, text = self._encode(messages)
        except Exception as error:
            return Failure(self.name, f"its chat template refused the prompt: {first_line(error)}")
        room = self._room(len(ids), sampling.max_new_tokens)
        if room < 1:
            read = self.context_length
            return Failure(self.name, f"the prompt has {len(ids)} tokens; the model reads {read}, its answer included")
        return Encoded(index, ids, text.rstrip().endswith("<think>"), room)

    def _room(self, prompt_length: int, wanted: int) -> int:
        if self.context_length is None or self._writes_apart:
            return wanted if self.context_length is None or prompt_length <= self.context_length else 0
        return min(wanted, self.context_length - prompt_length)

    def _batches(self, rows: Sequence[Encoded], n: int) -> Iterator[list[Encoded]]:
        """Put prompts of similar length together, and only those that have the same room for their answers."""
        batch: list[Encoded] = []
        for row in sorted(rows, key=lambda row: len(row.ids)):
            if batch and (row.room != batch[0].room or (len(batch) + 1) * n > self.llm.batch_size):
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    @torch.inference_mode()
    def _write(self, batch: Sequence[Encoded], sampling: Sampling) -> list[tuple[Outcome, ...]]:
        inputs = self.tokenizer.pad({"input_ids": [row.ids for row in batch]}, return_tensors="pt")
        inputs = inputs.to(self.model.device)
        options = {"max_new_tokens": batch[0].room, "pad_token_id": self.tokenizer.pad_token_id}
        options |= self._freedom(sampling)
        # Sampling draws from the generator of the process, which is left as it was.
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        with torch.random.fork_rng(devices, enabled=sampling.seed is not None):
            if sampling.seed is not None:
                torch.manual_seed(sampling.seed)
            written = self.model.generate(**inputs, **options)
        start = 0 if self._writes_apart else inputs["input_ids"].shape[1]
        rows = (row for row in batch for _ in range(sampling.n))
        outcomes = [self._outcome(row, ids) for row, ids in zip(rows, written[:, start:].tolist(), strict=True)]
        return [tuple(outcomes[first : first + sampling.n]) for first in range(0, len(outcomes), sampling.n)]

    def _freedom(self, sampling: Sampling) -> dict[str, Any]:
        if sampling.temperature == 0:
            # What the checkpoint says of sampling is then of no use, and transformers would warn of it.
            return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        chosen = {"temperature": sampling.temperature, "top_p": sampling.top_p}
        given = {name: value for name, value in chosen.items() if value is not None}
        if not given and sampling.n == 1:
            return {}
        return {"do_sample": True, "num_return_sequences": sampling.n, **given}

    def _outcome(self, row: Encoded, ids: Sequence[int]) -> Outcome:
        ends = self.model.generation_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends])
        truncated = ends.isdisjoint(ids) and len(ids) >= row.room
        text = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        answer = answer_in(f"<think>{text}" if row.thinking else text)
        return Reply(answer, truncated) if answer else Failure(self.name, empty_reason(truncated))


def _load(llm: LocalLLM) -> tuple[Any, Any]:
    device = pick_device(llm.device)
    dtype = pick_dtype(llm.dtype, device)
    hub = hub_settings(
        HubOptions(
            llm.revision,
            llm.token,
            llm.cache_dir,
            local_files_only=llm.local_files_only,
            trust_remote_code=llm.trust_remote_code,
        )
    )
    home = locate(llm.model)
    try:
        config = AutoConfig.from_pretrained(home, **hub)
        kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        tokenizer = AutoTokenizer.from_pretrained(home, **hub)
        model = kind.from_pretrained(home, config=config, dtype=dtype, **hub)
    # Loading calls into four libraries, each with errors of its own; the user needs one line in every case.
    except Exception as error:
        raise CheckpointError(
            f"can't load the language model {llm.model!r}: {first_line(error)} (give a folder or a Hub id that can be "
            "reached; a model on a server is written http://host:8000/v1#model)"
        ) from error
    use_fast_products(model)
    return model.eval().to(device), tokenizer
