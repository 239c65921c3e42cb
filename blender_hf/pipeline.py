"""`pipeline("llm-blending")`: from candidates to one answer, as a pipeline of transformers.

Importing this module registers the task.
"""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import transformers
from huggingface_hub.utils import tqdm
from packaging.version import Version
from transformers import Pipeline, PreTrainedModel
from transformers.pipelines import PIPELINE_REGISTRY

from .blender import DEFAULT_WINDOW, Blender, load_fuser_of
from .data.columns import Columns
from .data.records import item_from_mapping
from .engine.aggregation import AGGREGATIONS
from .engine.model_state import make_ready
from .engine.results import Blend
from .engine.reward_model import is_reward_model
from .engine.schedules import as_schedule
from .engine.streaming import with_results
from .errors import InputError, InputTypeError, chosen
from .export.backend import check_backend
from .export.onnx_ranker import load_onnx_ranker
from .generation.candidates import CandidateWriter, Generated
from .generation.chat_fuser import is_chat_fuser
from .generation.prompts import is_prompt, prompt_item_from_input
from .generation.sampling import Sampling
from .generation.specs import on_device
from .inputs import Item
from .loading.checkpoints import (
    AUTO_FUSER,
    DEFAULT_RANKER,
    HubOptions,
    check_processor,
    explained,
    hub_settings,
    locate,
    save_portable,
)
from .loading.rankers import AutoRanker
from .logs import OWN
from .modeling import PairRankerConfig, PairRankerProcessor
from .modeling.hub_mixins import access_of
from .modeling.pipeline_llm_blending import rows_of
from .modeling.tokenizer_files import load_tokenizer, restore_tokens

TASK = "llm-blending"


class OwnPipelines(dict[str, Any]):
    """What `custom_pipelines` of a ranker is where this package is: it names the task, and hides the code for it.

    So `pipeline(model="org/pair-ranker")` finds the task, and takes the pipeline that is registered here. Were the task
    in it, transformers would ask for `trust_remote_code`, to run the code of the repository instead.
    """

    def __contains__(self, task: object) -> bool:
        return False


class BlenderPipeline(Pipeline):
    """Ranks the candidates of a prompt, fuses the best, and keeps the fusion if the ranker prefers it.

        pipeline("llm-blending")({"prompt": "2 + 2?", "candidates": ["4", {"text": "5", "model": "parrot"}]})

    An input is `{"prompt": text or chat messages, "candidates": [...], "instruction"?: text}`, or a record of another
    shape in docs/data.md; a candidate is a text or `{"text", "model"}`. The output is `Blend.to_dict()`: `output`,
    `returned`, `best`, `fused`, `fused_from`, `fusion_error`, `ranking`, `comparison`. A list gives a list; a generator
    or a dataset gives a generator that works as it is read.

    With `llms=[...]` it takes a bare prompt, a text or chat messages, and lets them write the candidates; what an input
    has of its own stays. The output then also has `failures`, the models that gave no answer.

    The base class's contract, tensors between `preprocess`, `_forward` and `postprocess`, is bypassed: `__call__` works
    on windows of checked items, for the comparisons of many prompts fill one batch, and the rounds of a schedule depend
    on each other.

    Args:
        llms: Language models, as in `blender_hf.generate`.
        sampling: How they write: a `Sampling`, or a mapping such as `{"temperature": 0.7, "n": 2}`.
        fuser: "gen-fuser-mini" (bundled), a folder or a Hub id; "auto" is the one that the ranker's configuration
            names, else the bundled one; "chat:MODEL" is a chat model, as in `Blender.from_pretrained`; None ranks only,
            and returns the best candidate.
        fuser_revision: Branch, tag or commit of the fuser.
        token: Token for a private fuser; by default the one that the ranker was loaded with.
        local_files_only: Never ask the Hub for the fuser.
        backend: "onnx" runs an exported ranker, whose ONNX file lies beside its weights; see `Blender.from_pretrained`.
        provider: Execution provider of ONNX Runtime.
        file_name: The ranker's ONNX file.
        max_batch_tokens: Maximum tokens per batch of the ranker, padding included; None chooses by device.
        **kwargs: `model`, `processor`, `device`, `dtype` and the options of a call: `batch_size` (prompts that are
            worked on together), `columns` (names of keys, as in `blender_hf.data.labelled_formats.read_labelled`),
            `top_k`, `fallback`, `schedule`, `aggregation`, `generation`, `progress`; see `Blender`.
    """

    # A pair ranker has a processor, a reward model a tokenizer; which of them is needed is known only later.
    _load_processor = None
    _load_tokenizer = None
    _load_feature_extractor = False  # type: ignore[assignment]  # what transformers annotates as None is a flag
    _load_image_processor = False  # type: ignore[assignment]

    def __init__(
        self,
        *args: Any,
        llms: Sequence[Any] | None = None,
        sampling: Sampling | Mapping[str, Any] | None = None,
        fuser: Any = AUTO_FUSER,
        fuser_revision: str | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        max_batch_tokens: int | None = None,
        backend: str = "torch",
        provider: str | None = None,
        file_name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        check_backend(backend, provider=provider, file_name=file_name)
        reached = access_of(self.model)
        access, beside = (get(token, local_files_only) for get in (reached.options, reached.options_beside))
        if backend == "onnx":
            # transformers has loaded the weights, for it must; the files beside them take their place.
            hub = HubOptions(revision=getattr(self.model.config, "_commit_hash", None), **beside)
            running: Any
            running, _ = load_onnx_ranker(str(self.model.name_or_path), hub, provider=provider, file_name=file_name)
            self.model = running
        make_ready(self.model)  # before the fuser, which is loaded in its precision
        item_fuser = (
            None
            if fuser is None
            else load_fuser_of(
                fuser,
                self.model.config,
                HubOptions(revision=fuser_revision, **access),
                device=self.device,
                dtype=None if is_chat_fuser(fuser) else self.model.dtype,
                backend=backend,
                provider=provider,
            )
        )
        self._reader = self._reads(beside)
        self.blender = Blender(self.model, self._reader, item_fuser, max_batch_tokens=max_batch_tokens)
        self._fuses = fuser is not None
        self._writer = None if llms is None else CandidateWriter(on_device(llms, self.device), sampling)

    def _reads(self, access: Mapping[str, Any]) -> Any:
        """Return what reads for the ranker: the processor of a pair ranker, the tokenizer of a reward model."""
        config: Any = self.model.config
        name, revision = str(config.name_or_path), getattr(config, "_commit_hash", None)
        options = HubOptions(revision=revision, **access)
        hub = hub_settings(options)
        if is_reward_model(config):
            if self.tokenizer is None:
                return explained(lambda: load_tokenizer(name, **hub), name, "ranker", options)
            restore_tokens(self.tokenizer, name, **hub)
            return self.tokenizer
        if self.processor is None:
            self.processor = explained(
                lambda: PairRankerProcessor.from_pretrained(name, **hub), name, "ranker", options
            )
        processor: Any = self.processor
        check_processor(config, processor)
        return processor

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:  # type: ignore[override]  # every option has a name
        """Blend one input, a list of them, or those of a generator or dataset.

        Args:
            inputs: A mapping, or any iterable of mappings; with `llms`, also a prompt, or any iterable of prompts.
            **kwargs: Options of this call, over those of the pipeline.

        Returns:
            A dictionary, a list of them for a list, or a generator of them.

        Raises:
            InputTypeError: If something has the wrong type; the message names the item.
            InputError: If an item can't be used or an option does not exist.
            GenerationError: If no language model answered a prompt.
        """
        _, options, _ = self._sanitize_parameters(**kwargs)
        options = {**self._forward_params, **options}
        columns = Columns(options.pop("columns", None))
        if isinstance(inputs, Mapping) or (self._writer is not None and is_prompt(inputs)):
            return next(self._run(list(self._all_checked([inputs], columns, ["the input"])), options))
        rows = rows_of(inputs)
        if rows is None:
            raise InputTypeError(
                f'expected {{"prompt", "candidates"}} or an iterable of such mappings, not {type(inputs).__name__}'
            )
        if isinstance(inputs, list | tuple):
            # A list is checked whole before the work on its first item begins.
            return list(self._run(list(self._all_checked(inputs, columns)), options))
        return self._run(self._all_checked(rows, columns), options)

    def save_pretrained(self, save_directory: str | os.PathLike[Any], **kwargs: Any) -> None:
        """Save the ranker and what reads for it, with which `pipeline(TASK, model=save_directory)` ranks alike.

        Not the fuser, which has a repository of its own: name it in the ranker's configuration (`fuser`), or again.

        Args:
            save_directory: The folder.
            **kwargs: Options of `transformers.PreTrainedModel.save_pretrained`.

        Raises:
            InputError: If the ranker runs in ONNX Runtime, where there are no weights to save.
        """
        if not isinstance(self.model, PreTrainedModel):
            raise InputError("a pipeline with backend='onnx' has no weights to save: copy the folder of the ranker")
        save_portable(self.model, self._reader, Path(save_directory), **kwargs)

    def preprocess(self, inputs: Any) -> Item:  # type: ignore[override]
        """Check an input."""
        return next(self._all_checked([inputs], Columns(self._forward_params.get("columns")), ["the input"]))

    def _forward(self, model_inputs: Item, **options: Any) -> Blend:  # type: ignore[override]
        options.pop("columns", None)
        (result,) = self._results([model_inputs], options)
        return result[1]

    def postprocess(self, model_outputs: Blend) -> dict[str, Any]:  # type: ignore[override]
        """Turn a result into plain dictionaries and lists."""
        return model_outputs.to_dict()

    def _all_checked(
        self, values: Iterable[Any], columns: Columns, names: Sequence[str] | None = None
    ) -> Iterator[Item]:
        check = item_from_mapping if self._writer is None else prompt_item_from_input
        for index, value in enumerate(values):
            yield check(value, where=names[index] if names else f"item {index}", columns=columns)
        columns.report("the inputs")

    def _run(self, given: Iterable[Item], options: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for generated, result in self._results(given, options):
            failures = {} if generated is None else {"failures": [vars(failure) for failure in generated.failures]}
            yield {**self.postprocess(result), **failures}

    def _results(self, given: Iterable[Item], options: dict[str, Any]) -> Iterator[tuple[Generated | None, Blend]]:
        """Yield the result of each checked input, with what language models wrote for it, if any do."""
        if self._writer is None:
            return ((None, result) for result in self._blend(given, options))
        generated = self._writer.iter(given)
        return with_results(generated, lambda one: one.item, lambda items: self._blend(items, options))

    def _blend(self, items: Iterable[Item], options: dict[str, Any]) -> Iterator[Blend]:
        own = dict(options)
        window = own.pop("batch_size", DEFAULT_WINDOW)
        if own.pop("progress", False):
            items = tqdm(items, unit="prompt", name=OWN)
        if self._fuses:
            return self.blender.iter_blend(items, window=window, **own)
        if idle := {"fallback", "generation"} & own.keys():
            raise InputError(f"{', '.join(sorted(idle))} can do nothing in a pipeline that ranks only (fuser=None)")
        own["schedule"] = as_schedule(own.get("schedule", "full"), own.pop("top_k", None))
        ranked = self.blender.iter_rank(items, window=window, **own)
        return (Blend(ranking.best, "best", ranking, None, None) for ranking in ranked)

    def _sanitize_parameters(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        known = ("batch_size", "progress", "top_k", "fallback", "schedule", "aggregation", "generation", "columns")
        ignored = ("num_workers",)  # of every pipeline; there are no workers here, the scorer does the batching
        unknown = sorted(set(options) - {*known, *ignored})
        if unknown:
            raise InputError(f"the pipeline has no option {', '.join(unknown)}; it has {', '.join(known)}")
        options = {name: value for name, value in options.items() if name != "batch_size" or value is not None}
        size = options.get("batch_size", DEFAULT_WINDOW)
        if not isinstance(size, int) or size < 1:
            raise InputError(f"batch_size={size!r}; at least one prompt is worked on at a time")
        Columns(options.get("columns"))
        if "aggregation" in options:
            chosen(AGGREGATIONS, options["aggregation"], "aggregation")
        if "schedule" in options:
            as_schedule(options["schedule"])
        return {}, {name: value for name, value in options.items() if name in known}, {}


def _default_model() -> Any:
    """Return the bundled ranker and its revision in the form that the installed transformers expects."""
    default = (locate(DEFAULT_RANKER), "main")
    # transformers 4 keeps a default for each framework. Drop this with the support for it.
    return default if Version(transformers.__version__).major >= 5 else {"pt": default}


def _names_no_default_of_ours(record: logging.LogRecord) -> bool:
    """Return whether to log what transformers logs: not its advice to name a model, where we chose the default."""
    return f"defaulted to {locate(DEFAULT_RANKER)} " not in record.getMessage()


def _register() -> None:
    """Register the task, with the bundled ranker as its default model."""
    logging.getLogger("transformers.pipelines").addFilter(_names_no_default_of_ours)
    PairRankerConfig.pipelines_type = OwnPipelines
    if TASK not in PIPELINE_REGISTRY.supported_tasks:
        PIPELINE_REGISTRY.register_pipeline(
            TASK,
            pipeline_class=BlenderPipeline,
            pt_model=AutoRanker,
            default={"model": _default_model()},
            type="text",
        )


_register()
