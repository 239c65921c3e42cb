"""A language model that runs here as a ranker: the logits of the labels that would follow the question."""

from collections.abc import Iterator, Sequence
from functools import partial
from inspect import signature
from statistics import fmean
from typing import Any

import torch
from transformers import BatchEncoding, DynamicCache

from blender_hf.data.value_cache import key_of_texts
from blender_hf.engine.concurrency import lock_of, lock_to_run
from blender_hf.engine.model_state import check_ids, evaluating
from blender_hf.engine.scorer import BatchScorer, Presentation, halved, in_order, pack_by_tokens
from blender_hf.errors import CheckpointError, InputError, first_line
from blender_hf.generation.local import LocalModel
from blender_hf.generation.specs import LocalLLM
from blender_hf.modeling.chat_templates import PromptEncoder
from blender_hf.modeling.separate_encoding import cache_name
from blender_hf.modeling.tokenization import pad_left

from .questions import LABELS, Question
from .records import Answer, Records, Usage
from .settings import Inquiry, JudgeSettings

TokenIds = tuple[int, ...]
# Fewer tokens than these in common are read again: a call of the model costs more.
MIN_SHARED = 24


class LocalJudge:
    """A chat model of transformers that is asked which of two answers is better; a `PairwiseRanker`.

    The logit is that of the label A less that of B after the question, so nothing is generated.

    Args:
        llm: Which model, and how to run it.
        settings: How it is asked.

    Raises:
        CheckpointError: If it can't be loaded, or is no chat model whose labels are single tokens.
        InputError: If a setting is for models on servers.
    """

    def __init__(self, llm: LocalLLM, settings: JudgeSettings) -> None:
        self._inquiry = Inquiry(llm.model, settings)
        if settings.ask is not None:
            raise InputError(f"{llm.label}: ask={settings.ask!r} is for a judge on a server; the logits are read here")
        loaded = LocalModel(llm)
        self.llm = llm
        self.settings = settings
        self.name = llm.label
        self.model = loaded.model
        self.logit_temperature = settings.logit_temperature
        self._context = loaded.context_length
        self._tokenizer = loaded.tokenizer
        _check_chat(self.name, loaded)
        # Templates without thoughts ignore the option; with them, the label would follow a thought.
        self._encode = PromptEncoder(loaded.tokenizer, enable_thinking=False)
        self._scorer = LabelScorer(loaded.model, _label_ids(self.name, loaded.tokenizer), loaded.tokenizer.pad_token_id)
        self._records = Records(
            self.name,
            settings.cache_file(remote=False),
            settings.max_comparisons,
            settings.on_unreadable == "tie",
        )

    @property
    def usage(self) -> Usage:
        """What was asked so far."""
        return self._records.usage

    @property
    def n_criteria(self) -> int:
        """How many questions one presentation takes."""
        return len(self._inquiry.criteria)

    def logits(self, presentations: Sequence[Presentation]) -> list[float]:
        """Compare the two candidates of each presentation; see `PairwiseRanker.logits`."""
        asked = [[(self._key(one), one) for one in self._inquiry.questions(pair)] for pair in presentations]
        questions = {key: question for pair in asked for key, question in pair}
        answers = self._records.known(list(questions))
        missing = [key for key in questions if key not in answers]
        self._records.reserve(len(missing))
        rows = {key: self.input_ids(questions[key]) for key in missing}
        # In a fixed order, so that the same pairs make the same batches however they are given.
        ordered = sorted(missing, key=lambda key: rows[key])
        prompts = [questions[key].presentation.source for key in ordered]
        for key, logit in zip(ordered, self._scorer.scores([rows[key] for key in ordered], prompts), strict=True):
            answers[key] = Answer(logit, input_tokens=len(rows[key]))
            self._records.keep(key, answers[key])
        return [fmean(self._records.logit(answers[key]) for key, _ in pair) for pair in asked]

    def input_ids(self, question: Question) -> TokenIds:
        """Return what the model reads of a question, which is never cut.

        Raises:
            InputError: If it is longer than the model's context, or the chat template refuses it.
        """
        template = question.template
        with lock_of(self._tokenizer):
            try:
                ids, _ = self._encode(question.chat(), add_generation_prompt=template.add_generation_prompt)
            except Exception as error:  # a template may raise any
                raise InputError(f"the chat template of {self.name} refuses a question: {first_line(error)}") from None
        if not template.keeps_bos and ids[:1] == [self._tokenizer.bos_token_id]:
            ids = ids[1:]
        if self._context is not None and len(ids) > self._context:
            raise InputError(
                f"a comparison has {len(ids)} tokens, and {self.name} reads {self._context}: its prompt begins "
                f"{question.presentation.source[:60]!r}; shorten it, or use a judge with a longer context"
            )
        return tuple(ids)

    def _key(self, question: Question) -> bytes:
        where = (self.llm.origin, str(self.llm.revision or ""), str(self.model.dtype))
        return key_of_texts((*where, *question.identity))


class LabelScorer(BatchScorer[TokenIds]):
    """Runs a causal language model over questions, and returns the logit of one label less that of the other.

    What all questions about a prompt begin with is read once, where the model keeps keys and values alone.

    Args:
        model: The model, on its device.
        labels: The tokens of the two labels.
        pad_token_id: A token for padding, which is masked; None takes any.
    """

    def __init__(self, model: Any, labels: tuple[int, int], pad_token_id: int | None) -> None:
        super().__init__(model)
        self._labels = list(labels)
        self._pad_token_id = pad_token_id or 0
        parameters = signature(model.forward).parameters
        # Of the last place alone: the logits of all would be the largest tensor by far.
        self._last = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}
        self._call = partial(self._call, **self._last, **({"use_cache": False} if "use_cache" in parameters else {}))
        self._has_positions = "position_ids" in parameters
        self._cache_name = str(cache_name(model))
        self.shares_prefixes = self._has_positions and _keeps_keys_and_values(model)

    def pad(self, rows: Sequence[TokenIds]) -> BatchEncoding:
        """Make a batch, (batch, length) each; a decoder continues its last token, so padding is on the left."""
        batch = pad_left(rows, self._pad_token_id)
        if self._has_positions:
            batch["position_ids"] = (batch["attention_mask"].cumsum(dim=1) - 1).clamp(min=0)
        return batch

    def read(self, output: Any) -> torch.Tensor:
        """Return of the model's output the difference of both labels at the last place, (batch,)."""
        a, b = output.logits[:, -1, self._labels].float().unbind(dim=1)
        return a - b

    def scores(self, rows: Sequence[TokenIds], prompts: Sequence[str]) -> list[float]:
        """Return the number of each row, in their order; `prompts` are those that the rows are about."""
        if not self.shares_prefixes:
            return self.logits(rows)
        found: dict[int, float] = {}
        for group, shared in _groups(rows, prompts):
            few = [rows[index][shared:] for index in group]
            found |= zip(group, self._behind(rows[group[0]][:shared], few) if shared else self.logits(few), strict=True)
        return [found[index] for index in range(len(rows))]

    @torch.inference_mode()
    def _behind(self, prefix: TokenIds, rows: Sequence[TokenIds]) -> list[float]:
        """Score rows that go on from one prefix, which is read once."""
        with lock_to_run(self.model), evaluating(self.model):
            states = self._read_prefix(prefix)
            batches = list(
                pack_by_tokens([len(prefix) + len(row) for row in rows], self.max_batch_tokens, self.max_padding)
            )

            def run(batch: Sequence[int]) -> torch.Tensor:
                return self._go_on(states, len(prefix), [rows[index] for index in batch])

            found = torch.cat([halved(run, batch) for batch in batches]).cpu()
        self.check(found)
        return in_order(found, batches).tolist()

    def _read_prefix(self, prefix: TokenIds) -> DynamicCache:
        cache = DynamicCache()
        ids = torch.tensor([prefix], device=self.model.device)
        check_ids(self.model, ids)
        self.model(input_ids=ids, use_cache=True, **{self._cache_name: cache}, **self._last)
        return cache

    def _go_on(self, states: DynamicCache, n_read: int, rows: Sequence[TokenIds]) -> torch.Tensor:
        cache = DynamicCache()
        layers: list[Any] = states.layers
        for number, layer in enumerate(layers):
            keys, values = (part.expand(len(rows), -1, -1, -1) for part in (layer.keys, layer.values))
            cache.update(keys, values, number)
        batch = pad_left(rows, self._pad_token_id)
        check_ids(self.model, batch["input_ids"])
        real = batch["attention_mask"]
        mask = torch.cat([torch.ones(len(rows), n_read, dtype=real.dtype), real], dim=1)
        inputs = {
            "input_ids": batch["input_ids"],
            "attention_mask": mask,
            "position_ids": n_read + (real.cumsum(dim=1) - 1).clamp(min=0),
        }
        on_device = {name: tensor.to(self.model.device) for name, tensor in inputs.items()}
        return self.read(self.model(**on_device, use_cache=True, **{self._cache_name: cache}, **self._last))


def _groups(rows: Sequence[TokenIds], prompts: Sequence[str]) -> Iterator[tuple[list[int], int]]:
    """Yield the rows of each prompt, by their indices, and how many tokens they share; 0 if none are worth it."""
    alone: list[int] = []
    by_prompt: dict[str, list[int]] = {}
    for index, prompt in enumerate(prompts):
        by_prompt.setdefault(prompt, []).append(index)
    for group in by_prompt.values():
        shared = _shared_length([rows[index] for index in group])
        if len(group) > 1 and shared >= MIN_SHARED:
            yield group, shared
        else:
            alone += group
    if alone:
        yield alone, 0


def _shared_length(rows: Sequence[TokenIds]) -> int:
    """Return how many tokens rows begin with in common; the last token of each stays, since the label follows it."""
    first, last = min(rows), max(rows)
    differs = next((n for n, both in enumerate(zip(first, last, strict=False)) if both[0] != both[1]), len(first))
    return min(differs, min(map(len, rows)) - 1)


def _keeps_keys_and_values(model: Any) -> bool:
    """Return whether all that a model keeps of what it read are the keys and values of every layer, of every token."""
    if getattr(model, "_is_stateful", False) or cache_name(model) is None:
        return False
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None) or ["full_attention"]
    return set(kinds) == {"full_attention"} and not getattr(config, "sliding_window", None)


def _check_chat(name: str, loaded: LocalModel) -> None:
    if loaded.model.config.is_encoder_decoder:
        raise CheckpointError(f"{name} is an encoder-decoder; a judge that runs here is a causal chat model")
    if not loaded.tokenizer.chat_template:
        raise CheckpointError(f"{name} has no chat template: a judge must be a chat model, such as an -Instruct one")


def _label_ids(name: str, tokenizer: Any) -> tuple[int, int]:
    """Return the tokens of the labels, which must be one for each."""
    ids = tokenizer(list(LABELS), add_special_tokens=False)["input_ids"]
    for label, found in zip(LABELS, ids, strict=True):
        if len(found) != 1 or found[0] == tokenizer.unk_token_id:
            raise CheckpointError(
                f"the label {label} is {len(found)} tokens of {name}, and its logit is that of one: use another judge, "
                "or one on a server with ask='verdict'"
            )
    return ids[0][0], ids[1][0]
