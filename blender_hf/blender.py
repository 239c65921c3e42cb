"""Blender: rank the candidates of a prompt, compare two of them, fuse the best."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Unpack, cast, overload

import torch
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from .asynchronous import (
    AsyncMethods,
    BestOptions,
    BlendOptions,
    Call,
    CompareOptions,
    FuseOptions,
    GroupRewardOptions,
    RankOptions,
    RewardOptions,
    hashable,
)
from .data.records import as_items
from .engine.aggregation import AGGREGATIONS
from .engine.fusion import Fuser, ItemFuser, as_fuser, blend_items
from .engine.pairwise import Pairwise
from .engine.pointwise import Pointwise
from .engine.rankers import OwnRanker, as_ranker
from .engine.results import Blend, Comparison, Fusion, Ranking
from .engine.rewards import SCALES, duel_rewards, duels, group_rewards, references_of
from .engine.schedules import Schedule, as_schedule
from .engine.scorer import PairScorer
from .engine.separate import CandidateEncoder, Separate
from .engine.streaming import windowed
from .errors import BlenderError, InputError, chosen
from .export.backend import check_backend, load_fuser_for_onnx
from .export.onnx_ranker import load_onnx_ranker
from .generation.chat_fuser import is_chat_fuser, load_chat_fuser
from .generation.specs import ChatClient, LocalLLM, RemoteLLM
from .inputs import (
    CandidateInput,
    CandidateLists,
    Candidates,
    Item,
    Prompt,
    Prompts,
    check_tie_threshold,
    make_items,
    pairs_of,
)
from .judging.loading import load_named_judge, names_judge
from .judging.settings import JudgeSettings
from .loading.checkpoints import AUTO_FUSER, DEFAULT_RANKER, HubOptions, fuser_of, leave_out_length, load_fuser
from .loading.rankers import PointwiseOptions, load_any_ranker
from .modeling import CausalGenFuser, FusionProcessor, GenFuser, PairRanker, PairRankerProcessor
from .named_rankers import load_named_ranker

# How many prompts are worked on together: enough to fill batches, few enough that results arrive as they are made.
DEFAULT_WINDOW = 16
# Where a prompt has few comparisons at a time: one, or those of a round of a tournament.
WIDE_WINDOW = 256
FULL = Schedule()


class _RankOptions(RankOptions, total=False):
    progress: bool


class _BlendOptions(BlendOptions, total=False):
    progress: bool


class Blender(AsyncMethods):
    """Ranks, compares and fuses the answers of several language models (Jiang, Ren, Lin, ACL 2023).

    Every method takes one prompt and gives one result, or lists and gives a list. A prompt is a text or chat messages;
    a candidate is a text or `{"text", "model"}`. No result depends on what else is in the same call. Many threads may
    share a blender; its `async` methods work on requests together that come at about the same time.

    Args:
        ranker: The ranker: a `PairRanker`; a reward model, which is a sequence classification model with one label, or
            two; or any object with the method of `blender_hf.PairwiseRanker`, `AsyncPairwiseRanker` or
            `PointwiseRanker`. A model is put into evaluation mode, and scores in it even while it is trained; on a CPU
            one in float16 is computed in float32.
        ranker_processor: Its processor; the tokenizer of a reward model; None for an object that scores by itself.
        fuser: The fuser, a `GenFuser` or what fuses by itself, such as a `ChatFuser`; None to rank only.
        fuser_processor: The processor of a `GenFuser`.
        max_batch_tokens: Maximum tokens per batch of the ranker, padding included; None chooses by device.
        compile: Whether the ranker is compiled (`torch.compile`): worth its minutes for long work on a GPU.
        positive_label: Of a reward model with two labels, the index or the name of the one that means a good answer.
    """

    def __init__(
        self,
        ranker: PairRanker | PreTrainedModel | OwnRanker,
        ranker_processor: PairRankerProcessor | PreTrainedTokenizerBase | None = None,
        fuser: GenFuser | CausalGenFuser | ItemFuser | None = None,
        fuser_processor: FusionProcessor | None = None,
        *,
        max_batch_tokens: int | None = None,
        compile: bool = False,
        positive_label: int | str | None = None,
    ) -> None:
        if max_batch_tokens is not None and max_batch_tokens < 1:
            raise InputError(f"max_batch_tokens={max_batch_tokens}; use a positive number of tokens, or None")
        self._ranker = as_ranker(
            ranker,
            ranker_processor,
            max_batch_tokens=max_batch_tokens,
            compile=compile,
            positive_label=positive_label,
        )
        self._fuser = as_fuser(fuser, fuser_processor)

    @property
    def ranker(self) -> Pairwise | Separate | Pointwise:
        """What ranks; its `model` is the loaded model, whose `config` may be changed."""
        return self._ranker

    @property
    def scorer(self) -> PairScorer | CandidateEncoder | OwnRanker:
        """What scores pairs, or encodes or scores single candidates, for the ranker."""
        return self._ranker.scorer

    @property
    def fuser(self) -> ItemFuser | None:
        """What fuses; None in a blender that only ranks."""
        return self._fuser

    @classmethod
    def from_pretrained(
        cls,
        ranker: str | Path | OwnRanker | LocalLLM | RemoteLLM | ChatClient = DEFAULT_RANKER,
        fuser: Any = AUTO_FUSER,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        attn_implementation: str | None = None,
        revision: str | None = None,
        fuser_revision: str | None = None,
        subfolder: str | None = None,
        base: str | Path | None = None,
        token: str | bool | None = None,
        cache_dir: str | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool = False,
        truncation: Mapping[str, int | str] | None = None,
        length_neutral: bool = False,
        max_batch_tokens: int | None = None,
        compile: bool = False,
        backend: str = "torch",
        provider: str | None = None,
        file_name: str | None = None,
        positive_label: int | str | None = None,
        device_map: Any = None,
        quantization_config: Any = None,
        judge: JudgeSettings | Mapping[str, Any] | None = None,
    ) -> "Blender":
        """Load a ranker and a fuser.

        Args:
            ranker: "pair-ranker-mini" (bundled), a folder or a Hub id, of a `PairRanker` or of a reward model, which is
                any sequence classification model with one label, or two; of a reranker of sentence-transformers; or an
                object that ranks by itself, as in `Blender`. "reward:http://host:8000#model" is a reward model or a
                reranker on a server (vLLM, SGLang, text-embeddings-inference); "length", "random", "mlm:ID" and
                "simcls:ID" are the baselines of `blender-hf evaluate`. "judge:MODEL" asks a chat model which answer is
                better, MODEL being as behind "chat:" in `fuser`; so do a `RemoteLLM`, a `LocalLLM` and an
                `InferenceClient`. "mixture:...", "cascade:..." and "mbr:..." are made of other rankers.
            fuser: "gen-fuser-mini" (bundled), a folder or a Hub id, T5 repositories such as `llm-blender/gen_fuser_3b`
                and causal language models among them; "auto" for the one that the ranker's configuration names, else
                the bundled one; None to rank only. "chat:MODEL" lets a chat model fuse: a Hub id or a folder runs here,
                "http://host:8000/v1#m" is asked at that address, "providers:org/model" through Inference Providers;
                both need no "chat:". So do a `RemoteLLM`, a `LocalLLM` and an `InferenceClient`.
            device: Where both run; None takes a GPU where there is one.
            dtype: The precision of both; None is float32, "auto" is bfloat16 where the device has it in hardware.
            attn_implementation: How both compute attention: "eager", "sdpa", "flash_attention_2", ...; None leaves it
                to transformers. The scores differ by rounding alone.
            revision: Branch, tag or commit of the ranker.
            fuser_revision: Branch, tag or commit of the fuser.
            subfolder: Folder of the ranker inside its repository.
            base: For a ranker that is an adapter, a folder or Hub id of another copy of its language model, such as one
                in full precision; None takes the one that it names.
            token: Token for private repositories.
            cache_dir: Where downloads are kept.
            local_files_only: Never ask the Hub.
            trust_remote_code: Whether code from a repository may run; our own models never need it.
            truncation: How far and at which end the ranker's texts are cut, over what the checkpoint states: any of
                `max_pair_length`, `max_source_length`, `max_candidate_length`, `source_truncation_side` and
                `candidate_truncation_side`, as in `PairRankerConfig`; of a reward model `max_pair_length` alone.
            length_neutral: Whether the preference for answers that say more, which a ranker states beside what it
                learnt, is left out of its logits: its `distinct_token_weight` is put to 0.
            max_batch_tokens: Maximum tokens per batch of the ranker, padding included; None chooses by device.
            compile: Whether the ranker is compiled (`torch.compile`): worth its minutes for long work on a GPU.
            backend: "onnx" runs the exported ranker in ONNX Runtime, and the fuser too if it has ONNX files and Optimum
                is installed; otherwise the fuser runs in torch, where `device` and `dtype` are then for it alone.
            provider: Execution provider of ONNX Runtime: "CPUExecutionProvider" (default), "CUDAExecutionProvider", ...
            file_name: The ranker's ONNX file, at the top of its folder or under `onnx/`; `model.onnx` by default.
            positive_label: Of a reward model with two labels, the index or the name of the one that means a good
                answer; the score is then the log-odds of it.
            device_map: How transformers spreads a reward model over devices: "auto", or a mapping of its modules; in
                place of `device`, which is then the fuser's own choice. It needs accelerate.
            quantization_config: How transformers quantises a reward model while it loads it, such as
                `BitsAndBytesConfig(load_in_4bit=True)`. It needs accelerate, and the package of that method.
            judge: How a judge is asked, and what it may cost: a `blender_hf.judging.settings.JudgeSettings`, or its
                fields, such as `{"criteria": "Which answer is more concise?", "max_comparisons": 1000}`.

        Returns:
            The blender.

        Raises:
            CheckpointError: If a checkpoint can't be found or is not whole.
            InputError: If the device, the precision, the backend or its provider does not exist here; or if
                `length_neutral` is asked of a ranker without such a term.
        """
        hub = HubOptions(
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            trust_remote_code=trust_remote_code,
            subfolder=subfolder,
        )
        running: dict[str, Any] = {"device": device, "dtype": dtype, "attn_implementation": attn_implementation}
        if names_judge(ranker):
            ranker = load_named_judge(ranker, judge, hub, **running)
        elif judge is not None:
            raise InputError('judge= is for a ranker that is a language model, "judge:MODEL"; leave it out')
        ranker = cast(str | Path | OwnRanker, ranker)
        check_backend(
            backend,
            ranker=ranker,
            provider=provider,
            file_name=file_name,
            compile=compile,
            device=device,
            dtype=dtype,
            attn_implementation=attn_implementation,
        )
        reward = PointwiseOptions(
            positive_label=positive_label, device_map=device_map, quantization_config=quantization_config
        )
        model: Any
        if (named := load_named_ranker(ranker, hub, **running)) is not None:
            ranker = named
        if isinstance(ranker, OwnRanker):
            if base is not None:
                raise InputError("base= is for a ranker that is an adapter, and this is an object that ranks by itself")
            if truncation is not None:
                raise InputError("truncation= is for a PairRanker; an object that ranks by itself reads what it likes")
            if (given := reward.given()) is not None:
                raise InputError(f"{given}= is for a reward model, and this is an object that ranks by itself")
            model, processor = ranker, None
        elif backend == "onnx":
            if (given := reward.given()) is not None:
                raise InputError(f"{given}= is for a reward model in torch; leave out backend='onnx'")
            model, processor = load_onnx_ranker(
                ranker, hub, provider=provider, file_name=file_name, truncation=truncation
            )
        else:
            model, processor = load_any_ranker(ranker, hub, base=base, truncation=truncation, reward=reward, **running)
        if length_neutral:
            leave_out_length(getattr(model, "config", None), ranker)
        item_fuser = fuser and load_fuser_of(
            fuser,
            getattr(model, "config", None),
            replace(hub, revision=fuser_revision, subfolder=None),
            backend=backend,
            provider=provider,
            **running,
        )
        return cls(
            model,
            processor,
            item_fuser,
            max_batch_tokens=max_batch_tokens,
            compile=compile,
            positive_label=positive_label,
        )

    @overload
    def rank(self, prompts: Prompt, candidates: Candidates, **options: Unpack[_RankOptions]) -> Ranking: ...
    @overload
    def rank(self, prompts: Prompts, candidates: CandidateLists, **options: Unpack[_RankOptions]) -> list[Ranking]: ...
    def rank(
        self,
        prompts: Any,
        candidates: Any,
        *,
        instructions: Any = None,
        schedule: str | Schedule = "full",
        top_k: int | None = None,
        orders: str = "both",
        aggregation: str = "max_logits",
        progress: bool = False,
    ) -> Any:
        """Rank the candidates of each prompt.

        Args:
            prompts: A prompt, or a list of prompts.
            candidates: The candidates of the prompt, or a list of them for each prompt; lists may differ in length.
            instructions: What to do with the prompt, if stated separately.
            schedule: Which pairs are compared: "full" (all), "bubble", "knockout", "adaptive", or a
                `blender_hf.Schedule`, which has all options. A pointwise ranker scores each candidate once
                and knows all pairs, whatever the schedule.
            top_k: How many of the best matter to the schedule; see `Schedule`.
            orders: "both" compares a pair in both presentation orders, "one" in one.
            aggregation: How comparisons become scores: one of `blender_hf.AGGREGATIONS`. With a pointwise
                ranker, "max_logits" stands for the scores that it gives.
            progress: Whether to show a progress bar on stderr.

        Returns:
            A `Ranking`, or a list of them; an empty list for no prompts.

        Raises:
            InputTypeError: If something has the wrong type; the message names the item.
            InputError: If an item has no candidates, lists differ in length, or an option does not exist.
            ModelOutputError: If the ranker gives NaN.
        """
        items, single = make_items(prompts, candidates, instructions)
        call = self._rank_call(items, single, as_schedule(schedule, top_k, orders), aggregation)
        return self._perform(call, progress=progress)

    @overload
    def best_of_n(self, prompts: Prompt, candidates: Candidates, **options: Unpack[BestOptions]) -> str: ...
    @overload
    def best_of_n(self, prompts: Prompts, candidates: CandidateLists, **options: Unpack[BestOptions]) -> list[str]: ...
    def best_of_n(
        self,
        prompts: Any,
        candidates: Any,
        *,
        instructions: Any = None,
        schedule: str | Schedule = "adaptive",
        orders: str = "both",
    ) -> Any:
        """Return the best candidate of each prompt, with few comparisons.

        Args:
            prompts: A prompt, or a list of prompts.
            candidates: The candidates of the prompt, or a list of them for each prompt.
            instructions: What to do with the prompt, if stated separately.
            schedule: "adaptive" compares until it is the best with 95 % confidence, "knockout" plays one tournament of
                N - 1 comparisons; or any other, as in `rank`.
            orders: "both" compares a pair in both presentation orders, "one" in one.

        Returns:
            The text of the best, or a list of texts; `rank` with a schedule gives a `Ranking`.
        """
        return self._extreme("best", prompts, candidates, instructions, as_schedule(schedule, 1, orders))

    @overload
    def worst_of_n(self, prompts: Prompt, candidates: Candidates, **options: Unpack[BestOptions]) -> str: ...
    @overload
    def worst_of_n(self, prompts: Prompts, candidates: CandidateLists, **options: Unpack[BestOptions]) -> list[str]: ...
    def worst_of_n(
        self,
        prompts: Any,
        candidates: Any,
        *,
        instructions: Any = None,
        schedule: str | Schedule = "adaptive",
        orders: str = "both",
    ) -> Any:
        """Return the worst candidate of each prompt; everything is as in `best_of_n`."""
        return self._extreme("worst", prompts, candidates, instructions, as_schedule(schedule, 1, orders))

    @overload
    def reward(self, prompts: Prompt, candidates: Candidates, **options: Unpack[RewardOptions]) -> list[float]: ...
    @overload
    def reward(
        self, prompts: Prompts, candidates: CandidateLists, **options: Unpack[RewardOptions]
    ) -> list[list[float]]: ...
    def reward(
        self,
        prompts: Any,
        candidates: Any,
        *,
        reference: Any = None,
        rule: str | None = None,
        instructions: Any = None,
        scale: str = "logit",
    ) -> Any:
        """Compare each candidate with a reference answer: one comparison a candidate, in both orders.

        Args:
            prompts: A prompt, or a list of prompts.
            candidates: The candidates of the prompt, or a list of them for each prompt.
            reference: What they are compared with, a text or `{"text", "model"}`, or a list of one for each prompt.
            rule: Instead, which of the candidates it is: "first", "last", "longest" or "shortest".
            instructions: What to do with the prompt, if stated separately.
            scale: "logit" (0 is as good as the reference), "probability" that it is better than the reference (0 to 1,
                calibrated by the checkpoint's temperature), or "llm-blender", the difference of both orders that the
                old package returned, which is twice the logit.

        Returns:
            A list with a number for each candidate, or a list of such lists. Higher is better; a candidate that is the
            reference's text gets what a tie is worth, without a comparison.

        Raises:
            InputError: If neither or both of `reference` and `rule` are given, or an option does not exist.
        """
        items, single = make_items(prompts, candidates, instructions)
        chosen(SCALES, scale, "scale")
        references = references_of(items, single, reference, rule)
        groups = [duels(item, one) for item, one in zip(items, references, strict=True)]

        def finish(comparisons: list[Comparison]) -> list[list[float]]:
            found = iter(comparisons)
            return [duel_rewards([next(found) for _ in group], scale) for group in groups]

        return self._perform(self._compare_call([duel for group in groups for duel in group], single, finish=finish))

    @overload
    def group_reward(
        self, prompts: Prompt, candidates: Candidates, **options: Unpack[GroupRewardOptions]
    ) -> list[float]: ...
    @overload
    def group_reward(
        self, prompts: Prompts, candidates: CandidateLists, **options: Unpack[GroupRewardOptions]
    ) -> list[list[float]]: ...
    def group_reward(self, prompts: Any, candidates: Any, *, instructions: Any = None, scale: str = "logit") -> Any:
        """Compare each candidate with all others of its prompt, as a reward in GRPO.

        Args:
            prompts: A prompt, or a list of prompts.
            candidates: The candidates of the prompt, or a list of them for each prompt.
            instructions: What to do with the prompt, if stated separately.
            scale: "logit", "probability" or "llm-blender", as in `reward`.

        Returns:
            A list with a number for each candidate, or a list of such lists: the mean over the others, higher is
            better. Logits of a group sum to 0, and the mean probability of a group is 0.5.

        Raises:
            InputError: If an item has no candidates, or an option does not exist.
        """
        items, single = make_items(prompts, candidates, instructions)
        chosen(SCALES, scale, "scale")

        return self._perform(
            self._rank_call(items, single, finish=lambda rankings: [group_rewards(one, scale) for one in rankings])
        )

    @overload
    def compare(
        self,
        prompts: Prompt,
        candidates_a: CandidateInput,
        candidates_b: CandidateInput,
        **options: Unpack[CompareOptions],
    ) -> Comparison: ...
    @overload
    def compare(
        self,
        prompts: Prompts,
        candidates_a: Candidates,
        candidates_b: Candidates,
        **options: Unpack[CompareOptions],
    ) -> list[Comparison]: ...
    def compare(
        self,
        prompts: Any,
        candidates_a: Any,
        candidates_b: Any,
        *,
        instructions: Any = None,
        tie_threshold: float = 0.0,
    ) -> Any:
        """Compare two candidates of each prompt, in both presentation orders.

        Args:
            prompts: A prompt, or a list of prompts.
            candidates_a: A candidate, or one for each prompt.
            candidates_b: The other candidate, or one for each prompt.
            instructions: What to do with the prompt, if stated separately.
            tie_threshold: How far, 0 to 0.5, the probability may be from 0.5 and still be a tie.

        Returns:
            A `Comparison`, or a list of them.

        Raises:
            InputTypeError: If something has the wrong type; the message names the item.
            InputError: If lists differ in length or the threshold is out of range.
            ModelOutputError: If the ranker gives NaN.
        """
        check_tie_threshold(tie_threshold)
        items, single = make_items(*pairs_of(prompts, candidates_a, candidates_b), instructions)
        return self._perform(self._compare_call(items, single, tie_threshold))

    @overload
    def fuse(self, prompts: Prompt, candidates: Candidates, **options: Unpack[FuseOptions]) -> Fusion: ...
    @overload
    def fuse(self, prompts: Prompts, candidates: CandidateLists, **options: Unpack[FuseOptions]) -> list[Fusion]: ...
    def fuse(
        self, prompts: Any, candidates: Any, *, instructions: Any = None, generation: Mapping[str, Any] | None = None
    ) -> Any:
        """Write one answer from the candidates of each prompt.

        Args:
            prompts: A prompt, or a list of prompts.
            candidates: The candidates of the prompt, the best first, or a list of them for each prompt. All are used.
            instructions: What to do with the prompt, if stated separately.
            generation: Options of `generate`, such as `{"num_beams": 4, "max_new_tokens": 128}`, over the checkpoint's;
                for a chat model those of `blender_hf.generation.sampling.Sampling`.

        Returns:
            A `Fusion`, or a list of them.

        Raises:
            InputTypeError: If something has the wrong type; the message names the item.
            InputError: If an item has no candidates or more than the fuser can take, or lists differ in length.
            BlenderError: If this blender has no fuser; `GenerationError` if it is a chat model that gave no answer.
        """
        items, single = make_items(prompts, candidates, instructions)
        kind = ("fuse", hashable(generation))
        return self._perform(Call(kind, items, single, partial(self.iter_fuse, generation=generation)))

    @overload
    def blend(self, prompts: Prompt, candidates: Candidates, **options: Unpack[_BlendOptions]) -> Blend: ...
    @overload
    def blend(self, prompts: Prompts, candidates: CandidateLists, **options: Unpack[_BlendOptions]) -> list[Blend]: ...
    def blend(
        self,
        prompts: Any,
        candidates: Any,
        *,
        instructions: Any = None,
        top_k: int = 3,
        fallback: bool = True,
        schedule: str | Schedule = "full",
        aggregation: str = "max_logits",
        generation: Mapping[str, Any] | None = None,
        progress: bool = False,
    ) -> Any:
        """Rank the candidates of each prompt, fuse the best of them, and keep the better of fusion and best candidate.

        Args:
            prompts: A prompt, or a list of prompts.
            candidates: The candidates of the prompt, or a list of them for each prompt.
            instructions: What to do with the prompt, if stated separately.
            top_k: How many of the best different candidates are fused.
            fallback: Return the best candidate where the ranker does not prefer the fused text to it. False returns
                every fused text.
            schedule: Which pairs are compared, as in `rank`; it seeks the best `top_k`.
            aggregation: How comparisons become scores.
            generation: Options of `generate` over the checkpoint's.
            progress: Whether to show a progress bar on stderr.

        Returns:
            A `Blend`, or a list of them; its `returned` says which of the two `output` is. Where a chat model as fuser
            gives no answer, `fusion_error` says why, and the best candidate is returned.

        Raises:
            InputTypeError: If something has the wrong type; the message names the item.
            InputError: If an item has no candidates, lists differ in length, or an option does not exist.
            BlenderError: If this blender has no fuser; `GenerationError` if it is a chat model that gave no answer, and
                there is no `fallback`.
        """
        items, single = make_items(prompts, candidates, instructions)
        options: dict[str, Any] = {
            "top_k": top_k,
            "fallback": fallback,
            "schedule": schedule,
            "aggregation": aggregation,
        }
        kind = ("blend", *options.values(), hashable(generation))
        work = partial(self.iter_blend, **options, generation=generation)
        return self._perform(Call(kind, items, single, work), progress=progress)

    def iter_rank(
        self,
        items: Iterable[Item | Mapping[str, Any]],
        *,
        schedule: str | Schedule = "full",
        aggregation: str = "max_logits",
        window: int = DEFAULT_WINDOW,
    ) -> Iterator[Ranking]:
        """Rank items from any iterable, lazily and in order, with constant memory.

        Args:
            items: What `make_item` gives, or mappings `{"prompt", "candidates", "instruction"?}`; they may come from a
                generator of any length, and are read one window ahead.
            schedule: Which pairs are compared.
            aggregation: How comparisons become scores.
            window: How many items are worked on together.

        Returns:
            An iterator of one ranking an item.
        """
        chosen(AGGREGATIONS, aggregation, "aggregation")
        how = as_schedule(schedule)

        def rank(batch: Sequence[Item], prepared: Any) -> list[Ranking]:
            return self._ranker.rank(batch, how, aggregation, prepared)

        return windowed(as_items(items), self._ranker.prepare, rank, window)

    def iter_fuse(
        self,
        items: Iterable[Item | Mapping[str, Any]],
        *,
        generation: Mapping[str, Any] | None = None,
        window: int = DEFAULT_WINDOW,
    ) -> Iterator[Fusion]:
        """Fuse the candidates of items, the best first, lazily and in order."""
        fuser = self._require_fuser()
        return windowed(as_items(items), lambda batch: None, lambda batch, _: fuser.fuse(batch, generation), window)

    def iter_blend(
        self,
        items: Iterable[Item | Mapping[str, Any]],
        *,
        top_k: int = 3,
        fallback: bool = True,
        schedule: str | Schedule = "full",
        aggregation: str = "max_logits",
        generation: Mapping[str, Any] | None = None,
        window: int = DEFAULT_WINDOW,
    ) -> Iterator[Blend]:
        """Blend items from any iterable, lazily and in order; the options are those of `blend`."""
        chosen(AGGREGATIONS, aggregation, "aggregation")
        fuser = self._require_fuser()
        if not 2 <= top_k <= fuser.max_candidates:
            raise InputError(f"top_k={top_k}; this fuser takes from 2 to {fuser.max_candidates} candidates")

        how = as_schedule(schedule, None if as_schedule(schedule).name == "full" else top_k)

        def blend(batch: Sequence[Item], prepared: Any) -> list[Blend]:
            rankings = self._ranker.rank(batch, how, aggregation, prepared)
            return blend_items(
                batch, rankings, self._ranker, fuser, top_k=top_k, fallback=fallback, generation=generation
            )

        return windowed(as_items(items), self._ranker.prepare, blend, window)

    def iter_compare(self, items: Iterable[Item], tie_threshold: float = 0.0) -> Iterator[Comparison]:
        """Compare the two candidates of each item, lazily and in order; see `compare` and `iter_rank`."""

        def compare(batch: Sequence[Item], prepared: Any) -> list[Comparison]:
            return self._ranker.compare(batch, tie_threshold, prepared)

        return windowed(items, self._ranker.prepare, compare, WIDE_WINDOW)

    def _rank_call(
        self,
        items: Sequence[Item],
        single: bool,
        schedule: Schedule = FULL,
        aggregation: str = "max_logits",
        window: int = DEFAULT_WINDOW,
        finish: Callable[[list[Ranking]], list[Any]] = list,
    ) -> Call:
        work = partial(self.iter_rank, schedule=schedule, aggregation=aggregation, window=window)
        return Call(("rank", schedule, aggregation, window), items, single, work, finish)

    def _compare_call(
        self,
        items: Sequence[Item],
        single: bool,
        tie_threshold: float = 0.0,
        finish: Callable[[list[Comparison]], list[Any]] = list,
    ) -> Call:
        work = partial(self.iter_compare, tie_threshold=tie_threshold)
        return Call(("compare", tie_threshold), items, single, work, finish)

    def _extreme(
        self, seek: Literal["best", "worst"], prompts: Any, candidates: Any, instructions: Any, schedule: Schedule
    ) -> Any:
        items, single = make_items(prompts, candidates, instructions)

        def finish(rankings: list[Ranking]) -> list[str]:
            return [ranking.best if seek == "best" else ranking.worst for ranking in rankings]

        call = self._rank_call(items, single, replace(schedule, seek=seek), window=WIDE_WINDOW, finish=finish)
        return self._perform(call)

    def _require_fuser(self) -> ItemFuser:
        if self._fuser is None:
            raise BlenderError(
                "this blender has no fuser: load one with Blender.from_pretrained(fuser='gen-fuser-mini')"
            )
        return self._fuser


def load_fuser_of(
    fuser: Any,
    config: PretrainedConfig | None,
    hub: HubOptions,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    attn_implementation: str | None = None,
    backend: str = "torch",
    provider: str | None = None,
) -> ItemFuser:
    """Load what `fuser=` of `from_pretrained` names, unless it is None; the ranker's configuration may name one."""
    if is_chat_fuser(fuser):
        return load_chat_fuser(fuser, hub, device, dtype, attn_implementation)
    name, revision = fuser_of(config, fuser, hub.revision)
    hub = replace(hub, revision=revision)
    if backend == "onnx":
        return Fuser(*load_fuser_for_onnx(name, hub, device=device, dtype=dtype, provider=provider))
    return Fuser(*load_fuser(name, hub, device=device, dtype=dtype, attn_implementation=attn_implementation))
