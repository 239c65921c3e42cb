"""Training of a `GenFuser` from any T5-like or causal language model, on from a fuser, or from scratch.

From scratch a small model is made, with a tokenizer of its own. It can't learn to write in hours, but it can learn to
select and to merge: its weights start as a copying machine, see `copying_init`, and training teaches what to copy and
when to stop.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, cast

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainingArguments,
)

from blender_hf.blender import Blender
from blender_hf.data.labelled import LabelledPrompt, check_metric
from blender_hf.errors import InputError
from blender_hf.loading.checkpoints import locate, pick_attention
from blender_hf.loading.models import load_model
from blender_hf.modeling import (
    CausalGenFuser,
    CausalGenFuserProcessor,
    FusionProcessor,
    GenFuser,
    GenFuserConfig,
    GenFuserProcessor,
)
from blender_hf.modeling.tokenization import n_positions

from .cards import fuser_card
from .fuser_trainer import FusionDataset, GenFuserTrainer, StopAfter, collator_for
from .fusion_data import FusionExample, merging_examples, reference_examples, selection_examples
from .settings import HEAD_WIDTH, FuserSettings
from .training_run import TrainingRun, check_evaluation

Prompts = Sequence[LabelledPrompt]
LENGTHS = ("max_source_length", "max_candidate_length")
SENTINELS = [f"<extra_id_{k}>" for k in range(100)]
# Longer than the examples of training: positions are relative, and what guides its choice knows no length.
MAX_SOURCE_LENGTH, MAX_CANDIDATE_LENGTH, MAX_NEW_TOKENS = 2048, 640, 768
# What a fuser can learn: the task of the paper, and two that need no reference.
TASKS: dict[str, Callable[[Prompts, FuserSettings], Iterator[FusionExample]]] = {
    "reference": lambda prompts, settings: reference_examples(
        prompts, settings.top_k, _orders(prompts, settings), metric=settings.metric
    ),
    "selection": lambda prompts, settings: selection_examples(prompts, settings.top_k, settings.sampling_seed),
    "merging": lambda prompts, settings: merging_examples(prompts, settings.top_k, settings.sampling_seed),
}


class FuserRun(TrainingRun[FuserSettings, FusionExample]):
    """The training run of a fuser."""

    settings_class = FuserSettings

    @staticmethod
    def arguments_class() -> type[TrainingArguments]:
        """Return the class of the trainer's arguments."""
        return Seq2SeqTrainingArguments

    def _check_settings(self) -> None:
        if unknown := set(self.settings.tasks) - set(TASKS):
            raise InputError(f"unknown task {', '.join(sorted(unknown))}; use {', '.join(TASKS)}")

    def _training_examples(self) -> list[FusionExample]:
        settings, prompts = self.settings, self.data.prompts
        if settings.metric is not None:
            check_metric(prompts, settings.metric)
        examples = {task: _examples(task, prompts, settings) for task in settings.tasks}
        self._tasks = [task for task, found in examples.items() for _ in found]  # of each example
        if not self._tasks:
            raise InputError(_nothing_to_learn(prompts, settings))
        return [example for found in examples.values() for example in found]

    def _eval_examples(self) -> list[FusionExample]:
        settings = self.settings
        return [example for task in settings.tasks for example in _examples(task, self.eval_data.prompts, settings)]

    def _check_examples(self) -> None:
        check_evaluation(self.arguments, self.eval_examples, [])

    def _starting_point(self) -> tuple[GenFuser | CausalGenFuser, FusionProcessor]:
        return starting_point(self.settings, self.data.prompts)

    def _fitting(self, examples: list[FusionExample], model: PreTrainedModel) -> list[FusionExample]:
        """Leave out examples that are too long."""
        top_k, limit = self.settings.top_k, self.processor.max_candidates
        if top_k > limit:
            raise InputError(
                f"top_k={top_k} candidates are more than the {limit} that {self.settings.model} can tell apart: lower "
                "top_k, or give the tokenizer of a T5 more <extra_id_k> tokens"
            )
        self._dataset = self._encoded(examples, model)
        if not len(self._dataset):
            raise InputError(
                f"there is nothing to train on: all {len(examples)} examples are longer than max_train_tokens, or than "
                "the positions of the model; raise it, or lower max_source_length"
            )
        return [examples[index] for index in self._dataset.kept]

    def _encoded(self, examples: list[FusionExample], model: PreTrainedModel) -> FusionDataset:
        limit = self.settings.max_train_tokens
        if not model.config.is_encoder_decoder and (positions := n_positions(model.config)) is not None:
            limit = positions if limit is None else min(limit, positions)
        return FusionDataset(examples, self.processor, max_tokens=limit, by_segments=model.config.extractive)

    def _trainer(self, model: PreTrainedModel, arguments: Any, examples: list[FusionExample]) -> GenFuserTrainer:
        minutes = self.settings.max_minutes
        return GenFuserTrainer(
            model=model,
            args=arguments,
            train_dataset=self._dataset,
            eval_dataset=self._encoded(self.eval_examples, model) if self.eval_examples else None,
            data_collator=collator_for(self.processor, model),
            callbacks=[*self.callbacks, *([] if minutes is None else [StopAfter(minutes)])],
        )

    def _evaluate(self, trainer: Trainer, model: PreTrainedModel) -> dict[str, Any]:
        return trainer.evaluate()

    def _counts(self, trainer: Trainer, examples: list[FusionExample]) -> dict[str, Any]:
        counts = dict.fromkeys(self.settings.tasks, 0)
        for index in self._dataset.kept:
            counts[self._tasks[index]] += 1
        return {"training examples": counts, "too long": self._dataset.n_left_out}

    def _card(self, metrics: Mapping[str, Any], examples: list[FusionExample]) -> str:
        return fuser_card(self.folder, self.settings, metrics)


def _nothing_to_learn(prompts: Prompts, settings: FuserSettings) -> str:
    if "reference" not in settings.tasks or not any(prompt.reference for prompt in prompts):
        return "there is nothing to train on: the task reference needs references, and the others judged pairs"
    known = sorted({name for prompt in prompts for name in prompt.scores})
    return (
        "there is nothing to train on: there are references, but it is not known which candidates are the best; name "
        f"a ranker, or as metric scores of the data: {', '.join(known) or 'it has none'}"
    )


def starting_point(settings: FuserSettings, prompts: Prompts) -> tuple[GenFuser | CausalGenFuser, FusionProcessor]:
    """Load the fuser or language model that training goes on from, or make a small T5 with a tokenizer of its own."""
    lengths = {name: getattr(settings, name) for name in LENGTHS if getattr(settings, name) is not None}
    if settings.model is not None:
        where = locate(settings.model)
        hub = {"revision": settings.revision}
        processor = GenFuserProcessor.from_pretrained(where, **hub, **lengths)
        # A causal fuser has the configuration of its language model; what it reads is up to its processor.
        stated = {} if isinstance(processor, CausalGenFuserProcessor) else lengths
        attention = pick_attention(settings.attn_implementation)
        loading: dict[str, Any] = {"dtype": torch.float32, **attention, **hub, **stated}
        model = load_model(GenFuser, where, own_weights=True, **loading)
        if isinstance(processor, CausalGenFuserProcessor):
            end_as_trained(model, processor)
        return model.train(), processor
    tokenizer = train_tokenizer(_texts(prompts), settings.vocab_size)
    own = {"max_source_length": MAX_SOURCE_LENGTH, "max_candidate_length": MAX_CANDIDATE_LENGTH, **lengths}
    model = build_model(tokenizer, d_model=settings.d_model, layers=settings.layers)
    for name, length in own.items():
        setattr(model.config, name, length)
    return model, GenFuserProcessor(tokenizer, **own)


def end_as_trained(model: CausalGenFuser, processor: CausalGenFuserProcessor) -> None:
    """Let a causal fuser end its answers at the token that ends those of its training too."""
    ends = model.end_ids({})
    if processor.end_id not in ends:
        model.generation_config.eos_token_id = [*ends, processor.end_id]


def _texts(prompts: Prompts) -> Iterable[str]:
    return (text for prompt in prompts for text in (prompt.item.source, *prompt.item.texts))


def _examples(task: str, prompts: Prompts, settings: FuserSettings) -> list[FusionExample]:
    shuffled = list(prompts)
    random.Random(settings.sampling_seed).shuffle(shuffled)
    return list(islice(TASKS[task](shuffled, settings), settings.max_examples))


def _orders(prompts: Prompts, settings: FuserSettings) -> Iterator[Sequence[int]] | None:
    """Yield the orders of a ranker, lazily; None takes those of the data."""
    if settings.ranker is None:
        return None
    blender = Blender.from_pretrained(settings.ranker, None)
    return (ranking.order for ranking in blender.iter_rank(prompt.item for prompt in prompts))


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a cased byte-level tokenizer with the special tokens of T5; no text is unknown to it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<pad>", "</s>", "<unk>", *SENTINELS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=SENTINELS,
        clean_up_tokenization_spaces=False,
        add_prefix_space=True,  # stated, for else transformers 4 overrules what the tokenizer has
        model_max_length=MAX_SOURCE_LENGTH,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, *, d_model: int, layers: int) -> GenFuser:
    """Make an untrained small fuser that already copies."""
    model = GenFuser(
        GenFuserConfig(
            vocab_size=len(tokenizer),
            d_model=d_model,
            d_kv=HEAD_WIDTH,
            d_ff=4 * d_model,
            num_heads=d_model // HEAD_WIDTH,
            num_layers=layers,
            num_decoder_layers=layers,
            feed_forward_proj="relu",
            dropout_rate=0.0,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=tokenizer.pad_token_id,
            max_candidate_length=MAX_CANDIDATE_LENGTH,
            extractive=True,
            extractive_min_length_ratio=1.0,
            # Chosen on dev data, see the card of gen-fuser-mini.
            extractive_coherence=12.0,
            extractive_agreement=12.0,
            extractive_consensus=60.0,
            extractive_max_overlap=0.7,
        )
    )
    copying_init(model)
    model.generation_config = GenerationConfig(
        max_new_tokens=MAX_NEW_TOKENS,
        num_beams=1,
        do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    return model


@torch.no_grad()
def copying_init(model: GenFuser) -> None:
    """Set weights so that the untrained model continues what it has written as its input does.

    One head of the encoder's first layer looks at the token before, and writes it into a subspace of the state. One
    head of the decoder's last cross-attention looks for the position whose token before is the token just written, and
    passes on the token of that position, which the tied output layer turns into a logit. These are the two steps of an
    induction head (Olsson et al. 2022, arXiv 2209.11895), built in instead of waited for.
    """
    width, size = model.config.d_model, model.config.d_kv
    basis = torch.linalg.qr(torch.randn(width, width)).Q.T
    read, write, value = basis[:size], basis[size : 2 * size], basis[2 * size : 3 * size]
    # A `ModuleList` promises no attributes of its layers.
    encoder = cast(Any, model.encoder.block)[0].layer[0].SelfAttention
    encoder.relative_attention_bias.weight[:, 0] = -4.0
    encoder.relative_attention_bias.weight[1, 0] = 8.0  # bucket 1 is the position just before
    encoder.q.weight[:size] = 0.0
    encoder.v.weight[:size] = read
    encoder.o.weight[:, :size] = write.T
    cross = cast(Any, model.decoder.block)[-1].layer[1].EncDecAttention
    cross.q.weight[:size] = read
    cross.k.weight[:size] = write
    cross.v.weight[:size] = value
    cross.o.weight[:, :size] = 2.0 * value.T
    for block in (*model.encoder.block, *model.decoder.block):
        nn.init.normal_(block.layer[-1].DenseReluDense.wo.weight, std=0.01)
