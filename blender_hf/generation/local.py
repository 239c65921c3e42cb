"""Language models that run locally, with transformers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from blender_hf.engine.concurrency import lock_to_run
from blender_hf.engine.model_state import check_ids, check_vocabulary
from blender_hf.errors import CheckpointError, first_line
from blender_hf.loading.checkpoints import (
    HubOptions,
    hub_settings,
    locate,
    pick_attention,
    pick_device,
    pick_dtype,
)
from blender_hf.loading.gguf_files import gguf_path, load_gguf_tokenizer
from blender_hf.loading.load_errors import reason_for
from blender_hf.loading.low_bits import has_low_bits, low_bit_language_model
from blender_hf.logs import patient_progress_bars
from blender_hf.modeling.chat_templates import PromptEncoder
from blender_hf.modeling.configurations import keep_generation_config, load_config, read_alike, use_exact_attention
from blender_hf.modeling.conversations import Message, report_unread, turns
from blender_hf.modeling.fast_kernels import use_fast_products
from blender_hf.modeling.hub_mixins import raise_if_incomplete
from blender_hf.modeling.tokenization import pad_left, pad_right
from blender_hf.modeling.tokenizer_files import load_tokenizer

from .outcomes import Answers, Failure, Outcome, Reply, empty_reason
from .sampling import Sampling
from .specs import HUB_FIELDS, LocalLLM
from .thoughts import MARK_TOKENS, OTHER_TOKENS, answer_in, open_mark_at_end

# What transformers says of a GGUF file of an architecture that it can't read.
UNREAD = "is not supported"


@dataclass(frozen=True)
class EncodedPrompt:
    """The token ids of a prompt, the mark of a thought that it ends with, if any, and room for new tokens."""

    index: int
    ids: list[int]
    mark: str
    room: int


class LocalModel:
    """A language model of transformers, on its device.

    A prompt is never truncated: one that is longer than the model's context is a failure. Where less than
    `max_new_tokens` of the context is left, the answer ends there and is `truncated`.

    Args:
        llm: Which model, and how to run it.

    Raises:
        CheckpointError: If it can't be loaded.
        InputError: If the device or the precision does not exist on this machine.
    """

    runs_here = True

    def __init__(self, llm: LocalLLM) -> None:
        self.llm = llm
        self.name = llm.label
        self.model, self.tokenizer = _load(llm)
        self._is_encoder_decoder = bool(self.model.config.is_encoder_decoder)
        pads = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id)
        # Any will do, since padding is masked.
        self._pad_token_id: int = next((token_id for token_id in pads if token_id is not None), 0)
        self._encode = PromptEncoder(self.tokenizer, is_encoder_decoder=self._is_encoder_decoder)
        added = self.tokenizer.added_tokens_decoder
        special = {*self.tokenizer.all_special_ids, *(i for i, token in added.items() if token.special)}
        self._marks = {i for i in special & added.keys() if added[i].content in MARK_TOKENS}
        shown = {i for i in special & added.keys() if added[i].content in OTHER_TOKENS}
        self._hidden = special - self._marks - shown

    @property
    def given_up(self) -> None:
        """Always None: a failure here says nothing about the next request."""

    @property
    def context_length(self) -> int | None:
        """Most tokens that the model reads and writes together; None if its configuration states no limit."""
        return getattr(self.model.config.get_text_config(), "max_position_embeddings", None)

    def start(self, requests: Sequence[Sequence[Message]], sampling: Sampling) -> Answers:
        """Write `n` answers to each conversation, as `RemoteModel.start` does; done when this returns."""
        done = Answers()
        with lock_to_run(self.model):
            done.set_result(self._answer_all(requests, sampling))
        return done

    def _answer_all(self, requests: Sequence[Sequence[Message]], sampling: Sampling) -> list[tuple[Outcome, ...]]:
        encoded = [self._encoded(index, messages, sampling) for index, messages in enumerate(requests)]
        readable = [row for row in encoded if isinstance(row, EncodedPrompt)]
        outcomes: dict[int, tuple[Outcome, ...]] = {
            index: (row,) * sampling.n for index, row in enumerate(encoded) if isinstance(row, Failure)
        }
        for batch in self._batches(readable, sampling.n):
            # An error of one model, such as running out of memory, must not cost the answers of the others.
            try:
                written = self._write(batch, sampling)
            except Exception as error:
                failure = Failure(self.name, f"it failed to generate: {first_line(error)}")
                written = [(failure,) * sampling.n] * len(batch)
            outcomes |= zip((row.index for row in batch), written, strict=True)
        return [outcomes[index] for index in range(len(requests))]

    def _encoded(self, index: int, messages: Sequence[Message], sampling: Sampling) -> EncodedPrompt | Failure:
        report_unread(turns(messages), f"{self.name}, prompt {index}")
        # A template may refuse a conversation, such as one with two messages of the same role, with any error.
        try:
            ids, text = self._encode(messages)
        except Exception as error:
            return Failure(self.name, f"its chat template refused the prompt: {first_line(error)}")
        room = self._room(len(ids), sampling.max_new_tokens)
        if room < 1:
            context = self.context_length
            return Failure(
                self.name, f"the prompt has {len(ids)} tokens; the model reads {context}, its answer included"
            )
        return EncodedPrompt(index, ids, open_mark_at_end(text), room)

    def _room(self, prompt_length: int, wanted: int) -> int:
        if self.context_length is None or self._is_encoder_decoder:
            return wanted if self.context_length is None or prompt_length <= self.context_length else 0
        return min(wanted, self.context_length - prompt_length)

    def _batches(self, rows: Sequence[EncodedPrompt], n: int) -> Iterator[list[EncodedPrompt]]:
        """Yield batches of prompts of similar length that have the same room for their answers."""
        batch: list[EncodedPrompt] = []
        for row in sorted(rows, key=lambda row: len(row.ids)):
            if batch and (row.room != batch[0].room or (len(batch) + 1) * n > self.llm.batch_size):
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    @torch.inference_mode()
    def _write(self, batch: Sequence[EncodedPrompt], sampling: Sampling) -> list[tuple[Outcome, ...]]:
        # A decoder continues its last token, so padding goes on the left.
        pad = pad_right if self._is_encoder_decoder else pad_left
        inputs = pad([row.ids for row in batch], self._pad_token_id).to(self.model.device)
        check_ids(self.model, inputs["input_ids"])
        options = {"max_new_tokens": batch[0].room, "pad_token_id": self._pad_token_id}
        options |= _generation_options(sampling)
        # Sampling uses the process's random number generator, whose state is restored.
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        with torch.random.fork_rng(devices, enabled=sampling.seed is not None):
            if sampling.seed is not None:
                torch.manual_seed(sampling.seed)
            written = self.model.generate(**inputs, **options)
        start = 0 if self._is_encoder_decoder else inputs["input_ids"].shape[1]
        rows = (row for row in batch for _ in range(sampling.n))
        outcomes = [self._outcome(row, ids) for row, ids in zip(rows, written[:, start:].tolist(), strict=True)]
        return [tuple(outcomes[first : first + sampling.n]) for first in range(0, len(outcomes), sampling.n)]

    def _outcome(self, row: EncodedPrompt, ids: Sequence[int]) -> Outcome:
        ends = self.model.generation_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends])
        truncated = ends.isdisjoint(ids) and len(ids) >= row.room
        answer = answer_in(row.mark + self._decoded(ids))
        return Reply(answer, truncated) if answer else Failure(self.name, empty_reason(truncated))

    def _decoded(self, ids: Sequence[int]) -> str:
        """Return the text of generated tokens, without special ones except for the marks of thoughts."""
        has_marks = not self._marks.isdisjoint(ids)
        kept = [i for i in ids if i not in self._hidden] if has_marks else ids
        return self.tokenizer.decode(kept, skip_special_tokens=not has_marks, clean_up_tokenization_spaces=False)


def _generation_options(sampling: Sampling) -> dict[str, Any]:
    """Return options over those of the checkpoint's generation_config.json, of which all others are obeyed."""
    always = {"num_return_sequences": sampling.n, "return_dict_in_generate": False}
    if sampling.temperature == 0:
        # Unset the checkpoint's sampling options, which transformers would warn of.
        return {**always, "do_sample": False, "num_beams": 1, "temperature": None, "top_p": None, "top_k": None}
    chosen = {"temperature": sampling.temperature, "top_p": sampling.top_p}
    given = {name: value for name, value in chosen.items() if value is not None}
    if not given and sampling.n == 1:
        return always
    return {**always, "do_sample": True, "num_beams": 1, **given}


def _load(llm: LocalLLM) -> tuple[Any, Any]:
    device = pick_device(llm.device)
    running: dict[str, Any] = {"dtype": pick_dtype(llm.dtype, device), **pick_attention(llm.attn_implementation)}
    hub = hub_settings(HubOptions(**{name: getattr(llm, name) for name in HUB_FIELDS}))
    home = locate(llm.model)
    try:
        with patient_progress_bars():
            model, tokenizer = (_from_gguf if llm.gguf_file else _from_checkpoint)(llm, home, running, hub)
        check_vocabulary(model, tokenizer)
    # Loading calls four libraries with errors of their own; the user needs one line in every case.
    except Exception as error:
        raise CheckpointError(
            f"can't load the language model {llm.origin!r}: {_reason(error, llm, home)} (give a folder or a Hub id "
            "that can be reached; a model on a server is written http://host:8000/v1#model)"
        ) from error
    use_exact_attention(model)
    keep_generation_config(model)
    use_fast_products(model)
    return model.eval().to(device), tokenizer


def _from_checkpoint(llm: LocalLLM, home: str, running: dict[str, Any], hub: dict[str, Any]) -> tuple[Any, Any]:
    config = load_config(home, **hub)
    tokenizer = load_tokenizer(home, **hub)
    if has_low_bits(config):
        return low_bit_language_model(home, config, **running, **hub), tokenizer
    auto_class: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model, info = auto_class.from_pretrained(home, config=config, output_loading_info=True, **running, **hub)
    raise_if_incomplete({"missing_keys": info["missing_keys"]}, llm.model, "language model")
    return model, tokenizer


def _from_gguf(llm: LocalLLM, home: str, running: dict[str, Any], hub: dict[str, Any]) -> tuple[Any, Any]:
    file = str(llm.gguf_file)
    gguf_path(home, file, **hub)  # first, for its errors say what is wrong
    config = read_alike(AutoConfig.from_pretrained(home, gguf_file=file, **hub))
    auto_class: Any = AutoModelForCausalLM
    model, info = auto_class.from_pretrained(
        home, gguf_file=file, config=config, output_loading_info=True, **running, **hub
    )
    raise_if_incomplete({"missing_keys": info["missing_keys"]}, llm.origin, "language model")
    return model, load_gguf_tokenizer(home, file, **hub)


def _reason(error: Exception, llm: LocalLLM, home: str) -> str:
    if llm.gguf_file and Path(home).is_dir():
        if UNREAD in str(error):
            file = Path(home, llm.gguf_file)
            return f"{first_line(error)}; llama.cpp may read it: `llama-server -m {file}` is http://localhost:8080/v1#{file.stem}"
        return first_line(error)
    return reason_for(error, home, revision=llm.revision, cache_dir=llm.cache_dir) or first_line(error)
