"""`pipeline(model="org/pair-ranker", trust_remote_code=True)`: blending on a machine without the package blender-hf.

The result is that of `pipeline("llm-blending")` in the package: all pairs are compared, in both presentation orders or
by encodings of the candidates, the best candidates are fused, and the fusion is kept if the ranker prefers it. The
package has more: schedules, aggregations, batches over several prompts, and prompts that are read once.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch
from transformers import Pipeline
from transformers.utils import logging

from .conversations import (
    Message,
    after_prompt,
    as_messages,
    candidate_of,
    render_answer,
    render_turns,
    report_unread,
    turns,
)
from .fusion_generation import one_text_options
from .hub_mixins import access_of
from .modeling_gen_fuser import GenFuser
from .processing_gen_fuser import GenFuserProcessor
from .processing_pair_ranker import PairRankerProcessor
from .ranking_math import (
    best_distinct,
    compare_encodings,
    count_cycles,
    indistinguishable,
    is_flip,
    keeps_fusion,
    mean_logit,
    order_of,
    preferred_of,
    probability_of,
    ranks_of,
)
from .record_fields import candidates_of, missing, prompt_of, read_fields
from .row_layouts import Part
from .tokenization import unknown_id, unknown_in

if TYPE_CHECKING:
    # From a local folder, transformers 4 loads only the files that this one names; these are what its imports import.
    from .chat_templates import PromptEncoder  # noqa: F401
    from .configuration_gen_fuser import GenFuserConfig  # noqa: F401
    from .configuration_pair_ranker import PairRankerConfig  # noqa: F401
    from .fast_kernels import use_fast_products  # noqa: F401
    from .fusion_encoding import FusionProcessor  # noqa: F401
    from .modeling_causal_gen_fuser import CausalGenFuser  # noqa: F401
    from .processing_causal_gen_fuser import CausalGenFuserProcessor  # noqa: F401
    from .record_values import candidate_parts  # noqa: F401
    from .segmentation import split_segments  # noqa: F401

logger = logging.get_logger(__name__)
AUTO_FUSER = "auto"
DEFAULT_BATCH_SIZE = 16
OPTIONS = ("batch_size", "top_k", "fallback", "generation")
# Of what a ranker with separate encodings has read for a prompt: the tokens of each candidate's row, and its encoding.
Encodings = dict[tuple[int, ...], torch.Tensor]


@dataclass(frozen=True)
class BlendingInput:
    """A prompt with its candidates, checked; `messages` is the conversation, `source` its text."""

    prompt: Any
    instruction: str | None
    messages: tuple[Message, ...]
    source: str
    texts: tuple[str, ...]
    models: tuple[str | None, ...]


@dataclass(frozen=True)
class Tokenized:
    """The tokens of a prompt and of some candidates, uncut."""

    source: str  # the text of the prompt
    texts: Sequence[str]
    ids: Mapping[str, Sequence[int]]  # of all of these texts
    prompt: Part | None  # the prompt as a ranker with separate encodings reads it


def rows_of(inputs: Any) -> Iterable[Any] | None:
    """Return the rows of an iterable or of a sequence-like dataset such as `KeyDataset`; None for anything else."""
    if isinstance(inputs, str):
        return None
    if isinstance(inputs, Iterable):
        return inputs
    if hasattr(inputs, "__getitem__") and hasattr(inputs, "__len__"):
        return (inputs[index] for index in range(len(inputs)))
    return None


class LlmBlendingPipeline(Pipeline):
    """Ranks the candidates of a prompt, fuses the best, and keeps the fusion if the ranker prefers it.

    An input is `{"prompt": string or chat messages, "candidates": [...], "instruction"?: string, "system"?: string}`,
    or a mapping with other names of these, which `record_fields.NAMES` lists; a candidate is a string, `{"text",
    "model"}` or chat messages. The output has `output`, `returned` ("fused" or "best"), `best`, `fused`, `fused_from`,
    `ranking`, `fusion` and `comparison`. A list gives a list; any other iterable gives a generator.

    Args:
        fuser: A folder or a Hub id; "auto" is the fuser that the ranker's configuration names, if any; None only ranks,
            and returns the best candidate.
        fuser_revision: Branch, tag or commit of the fuser; None is that of the ranker's configuration for its fuser.
        token: Token for a private fuser; by default the one that the ranker was loaded with.
        local_files_only: Never ask the Hub for the fuser.
        **kwargs: `model`, `processor`, `device`, `dtype` and the options of a call: `batch_size` (how many pairs,
            or candidates, the ranker reads at once), `top_k` (how many candidates are fused), `fallback`, `generation`.

    Raises:
        ValueError: If the processor does not belong to the ranker, or its pairs are longer than what the ranker reads.
    """

    model: Any  # a PairRanker; its file imports this one
    processor: PairRankerProcessor
    # None: the AutoProcessor of transformers 4 loses the token on the way, so what it can't load is loaded here.
    _load_processor = None
    # The annotations of transformers say None for what are booleans.
    _load_tokenizer = False  # type: ignore[assignment]
    _load_feature_extractor = False  # type: ignore[assignment]
    _load_image_processor = False  # type: ignore[assignment]

    def __init__(
        self,
        *args: Any,
        fuser: str | None = AUTO_FUSER,
        fuser_revision: str | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if self.model.dtype == torch.float16 and self.device.type == "cpu":
            self.model.float()  # checkpoints are stored in float16, which is slow and inexact on a CPU
        self.model.eval()
        access = access_of(self.model)
        if self.processor is None:
            self.processor = _processor_of(self.model.config, access.options_beside(token, local_files_only))
        self.processor.check_tokens(self.model.config)
        self.processor.check_lengths(self.model.config)
        home, revision = (fuser, fuser_revision)
        if fuser == AUTO_FUSER:
            home, revision = self.model.config.fuser, fuser_revision or self.model.config.fuser_revision
        self.fuser: Any = None
        self.fuser_processor: Any = None
        if home is not None:
            hub = {**access.options(token, local_files_only), **({} if revision is None else {"revision": revision})}
            # False: this repository has all the code, so nobody needs to trust that of another one.
            self.fuser_processor = GenFuserProcessor.from_pretrained(home, trust_remote_code=False, **hub)
            self.fuser = GenFuser.from_pretrained(home, dtype=self.model.dtype, **hub).eval().to(self.device)

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:  # type: ignore[override] # all options by name
        """Blend one input, a list of them, or those of any other iterable, with options over those of the pipeline.

        Raises:
            TypeError: If something has the wrong type; the message names the item.
            ValueError: If an item can't be used or an option does not exist.
        """
        _, options, _ = self._sanitize_parameters(**kwargs)
        options = {"batch_size": self._batch_size, **self._forward_params, **options}
        if isinstance(inputs, Mapping):
            return self._forward(self.preprocess(inputs), **options)
        rows = rows_of(inputs)
        if rows is None:
            raise TypeError(f"expected a mapping or an iterable of mappings, not {type(inputs).__name__}")
        items = (self.preprocess(record, where=f"item {index}") for index, record in enumerate(rows))
        if isinstance(inputs, list | tuple):
            return [self._forward(item, **options) for item in list(items)]
        return (self._forward(item, **options) for item in items)

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """Save the ranker with its code, and its processor; the fuser has a repository of its own."""
        self.model.save_pretrained(save_directory, processor=self.processor, **kwargs)

    # An input here is no dictionary of tensors, and a result no model output.
    def preprocess(self, inputs: Any, where: str = "the input") -> BlendingInput:  # type: ignore[override]
        """Check an input."""
        if not isinstance(inputs, Mapping):
            raise TypeError(f'{where}: expected {{"prompt", "candidates"}}, not {type(inputs).__name__}')
        try:
            fields = read_fields(inputs)
            prompt, instruction = prompt_of(fields)
            candidates = candidates_of(fields)
            if candidates is None:
                raise ValueError(missing("candidates", fields))
            if fields.unread:
                listed = ", ".join(f'"{key}"' for key in fields.unread)
                logger.warning_once(f"not read: {listed}")
            messages = as_messages(prompt, instruction)
            said = turns(messages)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{where}: {error}") from None
        asked = (prompt, instruction)
        pairs = [_candidate(value, f"{where}, candidate {index}", *asked) for index, value in enumerate(candidates)]
        if not pairs:
            raise ValueError(f"{where}: there are no candidates; give at least one answer to rank")
        texts, models = zip(*pairs, strict=True)
        report_unread(said, where)
        return BlendingInput(prompt, instruction, messages, render_turns(said), texts, models)

    def postprocess(self, model_outputs: dict[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        """Return the result unchanged: it is plain dictionaries and lists."""
        return model_outputs

    @torch.inference_mode()
    def _forward(  # type: ignore[override]
        self,
        model_inputs: BlendingInput,
        batch_size: int | None = None,
        top_k: int = 3,
        fallback: bool = True,
        generation: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        rows = batch_size or DEFAULT_BATCH_SIZE
        known: Encodings = {}
        ranking = self._rank(model_inputs, rows, known)
        chosen = best_distinct(ranking["candidates"], ranking["order"], top_k) if self.fuser is not None else []
        if len(chosen) < 2:
            return _result(ranking, None, None, fused=False)
        fusion = self._fuse(model_inputs, chosen, generation or {})
        comparison = self._compare(model_inputs, fusion["text"], ranking["best"], rows, known)
        kept = not fallback or keeps_fusion(fusion["text"], comparison["preferred"])
        return _result(ranking, fusion, comparison, fused=kept)

    def _rank(self, item: BlendingInput, rows: int, known: Encodings) -> dict[str, Any]:
        read = self._tokenize(item, item.texts)
        orders = self._both_orders(read, rows, known)
        means = {pair: mean_logit(*both) for pair, both in orders.items()}
        means |= {(b, a): -logit for (a, b), logit in means.items()}
        n = len(item.texts)
        # Identical texts tie with 0 without a comparison.
        logits = [[means.get((a, b), 0.0) for b in item.texts] for a in item.texts]
        scores = [math.fsum(row) / max(n - 1, 1) for row in logits]
        order = order_of(scores)
        return {
            "candidates": list(item.texts),
            "models": list(item.models),
            "order": list(order),
            "ranks": list(ranks_of(scores)),
            "scores": scores,
            "comparisons": [[None if i == j else logit for j, logit in enumerate(row)] for i, row in enumerate(logits)],
            "n_comparisons": len(orders),
            "n_encodings": len(known) or len(orders) * (1 if self.model.config.symmetric else 2),
            "flip_rate": sum(is_flip(*both) for both in orders.values()) / len(orders) if orders else None,
            "n_cycles": count_cycles(logits),
            **self._reading(read),
            "schedule": "full",
            "best": item.texts[order[0]],
        }

    def _fuse(self, item: BlendingInput, chosen: Sequence[int], generation: Mapping[str, Any]) -> dict[str, Any]:
        texts = [item.texts[index] for index in chosen]
        encoding = self.fuser_processor.encode(item.prompt, texts, item.instruction)
        inputs = self.fuser_processor.pad([encoding.input_ids]).to(self.device)
        extractive = {"segments": [encoding.segments]} if self.fuser.config.extractive else {}
        written = self.fuser_processor.new_tokens(inputs, self.fuser.generate(**inputs, **extractive, **generation))[0]
        ends, most = self.fuser.end_ids(generation), self.fuser.max_new_tokens(generation)
        cut = {"prompt": encoding.truncated_prompt, "candidates": list(encoding.truncated_candidates)}
        unread = {"prompt": encoding.unknown_prompt, "candidates": list(encoding.unknown_candidates)}
        return {
            "text": self.fuser_processor.decode_text(written),
            "fused_from": list(chosen),
            "truncated": cut,
            "unread": {**unread, "indistinguishable": []},
            "unfinished": most is not None and len(written) >= most and set(ends).isdisjoint(written),
        }

    def _compare(self, item: BlendingInput, a: str, b: str, rows: int, known: Encodings) -> dict[str, Any]:
        read = self._tokenize(item, (a, b))
        ab, ba = self._both_orders(read, rows, known).get((a, b), (0.0, 0.0))
        logit = mean_logit(ab, ba)
        probability = probability_of(logit, self.model.config.logit_temperature)
        return {
            "preferred": preferred_of(probability),
            "logit": logit,
            "probability": probability,
            "logit_ab": ab,
            "logit_ba": ba,
            **self._reading(read),
        }

    def _tokenize(self, item: BlendingInput, texts: Sequence[str]) -> Tokenized:
        different = list(dict.fromkeys((item.source, *texts)))
        ids = dict(zip(different, self.processor.encode_texts(different), strict=True))
        prompt = self.processor.encode_prompts([item.messages])[0] if self.model.config.is_separate else None
        return Tokenized(item.source, texts, ids, prompt)

    def _both_orders(self, read: Tokenized, rows: int, known: Encodings) -> dict[tuple[str, str], tuple[float, float]]:
        """Return for each pair (a, b) of different texts its logit with a first, and with b first.

        With separate encodings, candidates that are not yet `known` are read, and added to it.
        """
        ids, different = read.ids, list(dict.fromkeys(read.texts))
        pairs = list(combinations(different, 2))
        if read.prompt is not None:
            encoded = [self.processor.encode_candidate(read.prompt, ids[text]) for text in different]
            new = {row.input_ids: row for row in encoded if row.input_ids not in known}
            known.update(zip(new, self._read([*new.values()], self.processor.pad_candidates, rows), strict=True))
            encodings = torch.stack([known[row.input_ids] for row in encoded])
            matrix = compare_encodings(encodings[:, None], encodings[None, :]).mean(dim=-1).tolist()
            places = list(combinations(range(len(different)), 2))
            logits = [*(matrix[i][j] for i, j in places), *(matrix[j][i] for i, j in places)]
        else:
            shown = [*pairs, *((b, a) for a, b in pairs)]
            inputs = [self.processor.encode_pair(ids[read.source], ids[a], ids[b]).input_ids for a, b in shown]
            logits = [value.item() for value in self._read(inputs, self.processor.pad, rows)]
        return dict(zip(pairs, zip(logits[: len(pairs)], logits[len(pairs) :], strict=True), strict=True))

    def _read(self, inputs: Sequence[Any], pad: Callable[[Sequence[Any]], Any], rows: int) -> list[torch.Tensor]:
        """Return what the ranker gives of each row, the logit of a pair or the encoding of a candidate, in float64."""
        by_length = sorted(range(len(inputs)), key=lambda index: len(inputs[index]))
        found: dict[int, torch.Tensor] = {}
        for start in range(0, len(inputs), rows):
            batch = by_length[start : start + rows]
            output = self.model(**pad([inputs[index] for index in batch]).to(self.device))
            values = output.encodings if self.model.config.is_separate else output.logits
            found |= zip(batch, values.float().cpu().double(), strict=True)
        if not all(value.isfinite().all() for value in found.values()):
            raise ArithmeticError("the ranker gave NaN or an infinite logit; try dtype=torch.float32")
        return [found[index] for index in range(len(inputs))]

    def _reading(self, read: Tokenized) -> dict[str, Any]:
        """Return how much is cut and not read."""
        rows, cut_prompt, cut = zip(*(self._cut(read, text) for text in read.texts), strict=True)
        unknown = unknown_id(self.processor.tokenizer)
        counts = [unknown_in(text, read.ids[text], unknown) for text in (read.source, *read.texts)]
        same = indistinguishable(read.texts, rows)
        return {
            "truncated": {"prompt": cut_prompt[0], "candidates": list(cut)},
            "unread": {"prompt": counts[0], "candidates": counts[1:], "indistinguishable": [*map(list, same)]},
        }

    def _cut(self, read: Tokenized, text: str) -> tuple[tuple[int, ...], int, int]:
        """Return what is read of a prompt and a candidate, and how many tokens of either are cut."""
        ids = read.ids[text]
        if read.prompt is not None:
            row = self.processor.encode_candidate(read.prompt, ids)
            return row.input_ids, row.truncated_source, row.truncated_candidate
        pair = self.processor.encode_pair(read.ids[read.source], ids, ids)  # whose budget depends on the prompt alone
        return tuple(pair.input_ids), pair.truncated_source, pair.truncated_first

    def _sanitize_parameters(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        known = {name: value for name, value in options.items() if name in OPTIONS}
        unknown = sorted(set(options) - {*OPTIONS, "num_workers"})  # which every pipeline has; there are none here
        if unknown:
            raise ValueError(f"the pipeline has no option {', '.join(unknown)}; it has {', '.join(OPTIONS)}")
        if known.get("top_k", 2) < 2:
            raise ValueError(f"top_k={known['top_k']}; fusing takes 2 candidates or more")
        one_text_options(known.get("generation"))
        return {}, known, {}


def _processor_of(config: Any, access: Mapping[str, Any]) -> PairRankerProcessor:
    """Load the processor from the ranker's repository, at the same commit."""
    commit = getattr(config, "_commit_hash", None)
    hub = {**access, **({} if commit is None else {"revision": commit})}
    return PairRankerProcessor.from_pretrained(config.name_or_path, trust_remote_code=False, **hub)


def _candidate(value: Any, where: str, prompt: Any, instruction: str | None) -> tuple[str, str | None]:
    """Return the text of a candidate and the name of its model."""
    try:
        text, model, messages = candidate_of(value)
        if messages is not None:
            own = after_prompt(messages, prompt, instruction)
            report_unread(turns(own), where)
            text = render_answer(own)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{where}: {error}") from None
    return text, model


def _result(
    ranking: dict[str, Any], fusion: dict[str, Any] | None, comparison: dict[str, Any] | None, *, fused: bool
) -> dict[str, Any]:
    return {
        "output": fusion["text"] if fused and fusion else ranking["best"],
        "returned": "fused" if fused else "best",
        "ranking": ranking,
        "fusion": fusion,
        "comparison": comparison,
        "best": ranking["best"],
        "fused": fusion["text"] if fusion else None,
        "fused_from": fusion["fused_from"] if fusion else [],
        "fusion_error": None,
    }
