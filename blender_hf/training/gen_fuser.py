"""Training of a small GenFuser from nothing, with a tokenizer of its own.

    python -m blender_hf.training.gen_fuser --data train.jsonl.gz --output DIR

A small model can't learn to write in hours, but it can learn to select and to merge. The weights start as a copying
machine, see `copying_init`, and training teaches what to copy and when to stop.
"""

import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from torch.utils.data import Dataset
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
    set_seed,
)
from transformers.trainer_pt_utils import LengthGroupedSampler

from blender_hf.data.preferences import read_json_lines
from blender_hf.modeling import GenFuser, GenFuserConfig, GenFuserProcessor
from blender_hf.modeling.processing_gen_fuser import split_passages

from .arguments import last_checkpoint, parse_settings
from .fusion_data import FusionExample, merging_examples, selection_examples
from .saving import save_checkpoint

SENTINELS = [f"<extra_id_{k}>" for k in range(100)]


@dataclass
class GenFuserTrainingConfig:
    """Settings of a run; the defaults are those of `gen-fuser-mini`."""

    data: str = field(metadata={"help": "JSONL file of judged pairs"})
    output: str = field(metadata={"help": "folder of the trained checkpoint"})
    vocab_size: int = field(default=8192, metadata={"help": "size of the tokenizer's vocabulary"})
    d_model: int = field(default=256, metadata={"help": "width of the model"})
    layers: int = field(default=3, metadata={"help": "layers of the encoder and of the decoder"})
    max_train_tokens: int = field(default=400, metadata={"help": "longer examples are left out of training"})
    batch_size: int = field(default=16, metadata={"help": "examples a step"})
    learning_rate: float = field(default=1e-3, metadata={"help": "peak learning rate"})
    max_steps: int = field(default=1000, metadata={"help": "steps of training"})
    bf16: bool = field(default=False, metadata={"help": "compute in bfloat16 where the device does so fast"})
    max_minutes: float = field(default=600.0, metadata={"help": "training ends after so many minutes"})
    seed: int = field(default=0, metadata={"help": "seed of data, order and weights"})


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
        model_max_length=1024,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, config: GenFuserTrainingConfig) -> GenFuser:
    """Make an untrained small fuser that already copies."""
    model = GenFuser(
        GenFuserConfig(
            vocab_size=len(tokenizer),
            d_model=config.d_model,
            d_kv=64,
            d_ff=4 * config.d_model,
            num_heads=config.d_model // 64,
            num_layers=config.layers,
            num_decoder_layers=config.layers,
            feed_forward_proj="relu",
            dropout_rate=0.0,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=tokenizer.pad_token_id,
            max_candidate_length=288,
            faithful=True,
            faithful_least_share=0.3,  # of three candidates about one
        )
    )
    copying_init(model)
    model.generation_config = GenerationConfig(
        max_new_tokens=448,
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
    head of the decoder's last cross-attention looks for the place whose token before is the token just written, and
    passes on the token of that place, which the tied output layer turns into a logit. These are the two steps of an
    induction head (Olsson et al. 2022, arXiv 2209.11895), given instead of waited for.
    """
    width, size = model.config.d_model, model.config.d_kv
    basis = torch.linalg.qr(torch.randn(width, width)).Q.T
    read, write, value = basis[:size], basis[size : 2 * size], basis[2 * size : 3 * size]
    encoder = model.encoder.block[0].layer[0].SelfAttention
    encoder.relative_attention_bias.weight[:, 0] = -4.0
    encoder.relative_attention_bias.weight[1, 0] = 8.0  # bucket 1 is the place just before
    encoder.q.weight[:size] = 0.0
    encoder.v.weight[:size] = read
    encoder.o.weight[:, :size] = write.T
    cross = model.decoder.block[-1].layer[1].EncDecAttention
    cross.q.weight[:size] = read
    cross.k.weight[:size] = write
    cross.v.weight[:size] = value
    cross.o.weight[:, :size] = 2.0 * value.T
    for block in (*model.encoder.block, *model.decoder.block):
        nn.init.normal_(block.layer[-1].DenseReluDense.wo.weight, std=0.01)


class FusionDataset(Dataset):
    """Examples as token ids; those longer than the limit are left out."""

    def __init__(self, examples: Iterable[FusionExample], processor: GenFuserProcessor, max_tokens: int) -> None:
        encoded = (encode_example(example, processor) for example in examples)
        self.examples = [e for e in encoded if len(e["input_ids"]) + len(e["labels"]) <= max_tokens]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, list[int]]:
        return self.examples[index]


def encode_example(example: FusionExample, processor: GenFuserProcessor) -> dict[str, list[int]]:
    """Return the input and the target as ids; the target is made of passages, as faithful decoding writes it."""
    tokenize = processor.tokenizer
    target = [
        token
        for passage in split_passages(example.target)
        for token in tokenize(passage, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    ]
    encoding = processor.encode(example.prompt, example.candidates)
    return {"input_ids": encoding.input_ids, "labels": [*target, tokenize.eos_token_id]}


class GenFuserTrainer(Seq2SeqTrainer):
    """A `Seq2SeqTrainer` that groups examples of similar length."""

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> LengthGroupedSampler:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        lengths = [len(example["input_ids"]) + len(example["labels"]) for example in dataset.examples]
        generator = torch.Generator().manual_seed(self.args.seed)
        return LengthGroupedSampler(self.args.train_batch_size, lengths=lengths, generator=generator)


class StopAfter(TrainerCallback):
    """Ends training after so many minutes."""

    def __init__(self, minutes: float) -> None:
        self.minutes = minutes

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self._end = time.monotonic() + 60 * self.minutes

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop when the time is up."""
        control.should_training_stop = control.should_training_stop or time.monotonic() > self._end


def train(config: GenFuserTrainingConfig) -> GenFuser:
    """Train a tokenizer and a fuser and save them, in float16.

    Args:
        config: The settings.

    Returns:
        The trained fuser.
    """
    set_seed(config.seed)
    records = list(read_json_lines(config.data))
    random.Random(config.seed).shuffle(records)
    texts = (text for r in records for text in (r["prompt"], *(c["text"] for c in r["candidates"])))
    tokenizer = train_tokenizer(texts, config.vocab_size)
    processor = GenFuserProcessor(tokenizer, max_source_length=1024, max_candidate_length=288)
    examples = [*merging_examples(records, 3, config.seed), *selection_examples(records, 3, config.seed)]
    model = build_model(tokenizer, config)
    trainer = GenFuserTrainer(
        model=model,
        args=_arguments(config),
        train_dataset=FusionDataset(examples, processor, config.max_train_tokens),
        data_collator=lambda batch: _collate(batch, processor),
        callbacks=[StopAfter(config.max_minutes)],
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(trainer.args.output_dir))
    save_checkpoint(model, processor, config.output)
    return model


def _arguments(config: GenFuserTrainingConfig) -> Seq2SeqTrainingArguments:
    return Seq2SeqTrainingArguments(
        output_dir=str(Path(config.output) / "trainer"),
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        max_steps=config.max_steps,
        warmup_steps=50,
        lr_scheduler_type="linear",
        logging_steps=25,
        save_steps=100,
        save_total_limit=1,
        report_to=[],
        seed=config.seed,
        bf16=config.bf16,
        use_cpu=not torch.accelerator.is_available(),  # else transformers takes bf16 for a wish for a GPU
        remove_unused_columns=False,
    )


def _collate(batch: Sequence[dict[str, list[int]]], processor: GenFuserProcessor) -> dict[str, torch.Tensor]:
    inputs = processor.pad([example["input_ids"] for example in batch])
    longest = max(len(example["labels"]) for example in batch)
    labels = [example["labels"] + [-100] * (longest - len(example["labels"])) for example in batch]
    return {**inputs, "labels": torch.tensor(labels)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a training from the command line."""
    train(parse_settings(GenFuserTrainingConfig, "gen_fuser", train.__doc__, argv))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
