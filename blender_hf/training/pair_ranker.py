"""Training of a PairRanker on judged pairs.

    python -m blender_hf.training.pair_ranker --backbone ENCODER --data train.jsonl.gz --output DIR

The objective is that of the paper (section 3.3): the binary cross-entropy of the logit of one order of presentation,
where the better candidate stands first as often as second. Soft labels (shares of votes) and ties (0.5) are used as
they are.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import AutoConfig, Trainer, TrainingArguments, set_seed
from transformers.trainer_pt_utils import LengthGroupedSampler

from blender_hf.data.preferences import PreferencePair, read_json_lines, read_preferences, sample_per_source
from blender_hf.modeling import PairRanker, PairRankerProcessor
from blender_hf.modeling.ranker_tokenizer import load_tokenizer

from .arguments import last_checkpoint, parse_settings
from .ranking_data import damaged_pairs
from .saving import save_checkpoint

# What the families of encoders call their dropouts.
DROPOUT_NAMES = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "attention_dropout",
    "embedding_dropout",
    "mlp_dropout",
)


MARKER_WORDS = ("question", "first answer", "second reply")


@dataclass
class PairRankerTrainingConfig:
    """Settings of a run; the defaults are those of `pair-ranker-mini`."""

    backbone: str = field(metadata={"help": "Hub id or folder of the encoder"})
    data: str = field(metadata={"help": "JSONL file of judged pairs"})
    output: str = field(metadata={"help": "folder of the trained checkpoint"})
    pooling: str = field(default="mean", metadata={"help": "what represents a part: marker or mean"})
    max_pair_length: int = field(default=1024, metadata={"help": "most tokens of a pair"})
    max_source_length: int = field(default=224, metadata={"help": "most tokens of a prompt"})
    max_pairs_per_source: int = field(default=1500, metadata={"help": "pairs kept of each collection"})
    damaged_pairs: int = field(default=1500, metadata={"help": "self-made pairs of a good and a damaged answer"})
    short_pairs: int = field(default=7000, metadata={"help": "pairs of the first phase, the shortest ones"})
    dropout: float = field(default=0.0, metadata={"help": "dropout inside the encoder"})
    batch_size: int = field(default=16, metadata={"help": "pairs a step"})
    learning_rate: float = field(default=1e-4, metadata={"help": "peak learning rate of the encoder"})
    head_learning_rate: float = field(default=5e-4, metadata={"help": "peak learning rate of the new head"})
    epochs: float = field(default=1.0, metadata={"help": "passes over all pairs in the second phase"})
    bf16: bool = field(default=False, metadata={"help": "compute in bfloat16 where the device does so fast"})
    seed: int = field(default=0, metadata={"help": "seed of sampling, order, presentation and weights"})


class PairDataset(Dataset):
    """Pairs as token ids, in both orders of presentation."""

    def __init__(self, pairs: Sequence[PreferencePair], processor: PairRankerProcessor) -> None:
        texts = {text for pair in pairs for text in (pair.prompt, pair.candidate_a, pair.candidate_b)}
        ids = dict(zip(texts, processor.encode_texts(list(texts)), strict=True))

        def encode(pair: PreferencePair) -> list[int]:
            return processor.encode_pair(ids[pair.prompt], ids[pair.candidate_a], ids[pair.candidate_b]).input_ids

        self.examples = [
            {"input_ids": encode(pair), "swapped_ids": encode(pair.swapped()), "label": pair.label} for pair in pairs
        ]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.examples[index]


class PairRankerTrainer(Trainer):
    """A `transformers.Trainer` that groups pairs of similar length and gives the new head a rate of its own."""

    head_learning_rate: float = 5e-4

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> LengthGroupedSampler:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        lengths = [len(example["input_ids"]) for example in dataset.examples]
        generator = torch.Generator().manual_seed(self.args.seed)
        return LengthGroupedSampler(self.args.train_batch_size, lengths=lengths, generator=generator)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Build AdamW with two groups of weights: the encoder and the head."""
        named = [(name, weight) for name, weight in self.model.named_parameters() if weight.requires_grad]
        groups = [
            {"params": [w for n, w in named if not n.startswith("head.")], "lr": self.args.learning_rate},
            {"params": [w for n, w in named if n.startswith("head.")], "lr": self.head_learning_rate},
        ]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=self.args.weight_decay)
        return self.optimizer


def train(config: PairRankerTrainingConfig) -> PairRanker:
    """Train a ranker and save it, in float16, with its processor.

    Args:
        config: The settings.

    Returns:
        The trained ranker.
    """
    set_seed(config.seed)
    lengths = {
        "max_pair_length": config.max_pair_length,
        "max_source_length": config.max_source_length,
        "max_candidate_length": config.max_pair_length // 2,
        "source_truncation_side": "left",  # the last turns of a conversation say most about the answer
    }
    encoder_config = AutoConfig.from_pretrained(config.backbone)
    dropout = {name: config.dropout for name in DROPOUT_NAMES if hasattr(encoder_config, name)}
    tokenizer = load_tokenizer(config.backbone)
    n_tokens = len(tokenizer)
    processor = PairRankerProcessor.for_training(tokenizer, **lengths)
    model = PairRanker.from_backbone(
        config.backbone,
        n_added_tokens=len(tokenizer) - n_tokens,
        n_positions=config.max_pair_length,
        pooling=config.pooling,
        backbone_options=dropout,
        **processor.special_token_ids(),
        **lengths,
    )
    initialise_markers(model, tokenizer)
    pairs = [*judged_pairs(config), *self_made_pairs(config)]
    # Short pairs first: they are many for the same work, and a new head learns from them what to look at.
    short = sorted(pairs, key=PreferencePair.n_characters)[: config.short_pairs]
    for phase, chosen, epochs, schedule in (
        ("short", short, 1.0, "constant_with_warmup"),
        ("all", pairs, config.epochs, "linear"),
    ):
        arguments = _arguments(config, phase, epochs, schedule)
        _train_phase(model, processor, chosen, arguments, config.head_learning_rate)
    save_checkpoint(model, processor, config.output)
    return model


def judged_pairs(config: PairRankerTrainingConfig) -> list[PreferencePair]:
    """Return the judged pairs of the data, at most so many of each collection."""
    return sample_per_source(read_preferences(config.data), config.max_pairs_per_source, config.seed)


def self_made_pairs(config: PairRankerTrainingConfig) -> list[PreferencePair]:
    """Return the pairs of a good answer and a damaged one."""
    records = list(read_json_lines(config.data))
    random.Random(config.seed).shuffle(records)
    return list(islice(damaged_pairs(records, config.seed), config.damaged_pairs))


@torch.no_grad()
def initialise_markers(model: PairRanker, tokenizer: Any) -> None:
    """Start the three markers from the meaning of words: new tokens that are all alike are hard to tell apart."""
    embeddings = model.backbone.get_input_embeddings().weight
    names = ("source_token_id", "candidate1_token_id", "candidate2_token_id")
    for name, words in zip(names, MARKER_WORDS, strict=True):
        ids = tokenizer(words, add_special_tokens=False)["input_ids"]
        embeddings[getattr(model.config, name)] = embeddings[ids].mean(dim=0)


def _train_phase(
    model: PairRanker,
    processor: PairRankerProcessor,
    pairs: Sequence[PreferencePair],
    arguments: TrainingArguments,
    head_learning_rate: float,
) -> None:
    trainer = PairRankerTrainer(
        model=model,
        args=arguments,
        train_dataset=PairDataset(pairs, processor),
        data_collator=lambda examples: collate(examples, processor),
    )
    trainer.head_learning_rate = head_learning_rate
    trainer.train(resume_from_checkpoint=last_checkpoint(arguments.output_dir))


def _arguments(config: PairRankerTrainingConfig, phase: str, epochs: float, schedule: str) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(Path(config.output) / "trainer" / phase),
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        num_train_epochs=epochs,
        warmup_steps=25,
        weight_decay=0.01,
        lr_scheduler_type=schedule,
        logging_steps=25,
        save_steps=100,
        save_total_limit=1,
        report_to=[],
        seed=config.seed,
        bf16=config.bf16,
        use_cpu=not torch.accelerator.is_available(),  # else transformers takes bf16 for a wish for a GPU
        remove_unused_columns=False,
    )


def collate(examples: Sequence[dict[str, Any]], processor: PairRankerProcessor) -> dict[str, torch.Tensor]:
    """Make a batch in which the better candidate stands first in every other pair.

    By chance alone a small batch favours one place or the other, and most of its gradient goes into that.
    """
    presented = [
        (example["input_ids"], example["label"])
        if (example["label"] >= 0.5) == (place % 2 == 0)
        else (example["swapped_ids"], 1 - example["label"])
        for place, example in enumerate(examples)
    ]
    batch = processor.pad([ids for ids, _ in presented])
    return {**batch, "labels": torch.tensor([label for _, label in presented])}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a training from the command line."""
    train(parse_settings(PairRankerTrainingConfig, "pair_ranker", train.__doc__, argv))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
