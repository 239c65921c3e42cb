"""Training of the dual encoder on labelled data, with the ranking loss of SimCLS.

    python -m blender_hf.evaluation.baselines.simcls --backbone ENCODER --data train.jsonl.gz --output DIR

The better of two candidates shall lie nearer to the prompt, by a margin that grows with the distance of their ranks,
and the reference, if there is one, nearer than any candidate (Liu and Liu 2021, equations 3 and 4).
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import HfArgumentParser, Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from blender_hf.data.labelled import LabelledPrompt, gold_scores
from blender_hf.data.labelled_formats import read_labelled
from blender_hf.engine.aggregation import ranks_of
from blender_hf.errors import InputError
from blender_hf.loading.saving import save_portable

from .dual_encoder import DualEncoder


@dataclass
class SimclsConfig:
    """Settings of a run; margin and optimiser are those of SimCLS."""

    backbone: str = field(metadata={"help": "Hub id or folder of the encoder"})
    data: str = field(metadata={"help": "labelled data, in any format that `blender-hf evaluate` reads"})
    output: str = field(metadata={"help": "folder of the trained encoder"})
    metric: str | None = field(
        default=None, metadata={"help": "scores that rank the candidates; None: their judgments"}
    )
    max_candidates: int = field(default=16, metadata={"help": "most candidates of a prompt"})
    margin: float = field(default=0.01, metadata={"help": "margin between candidates whose ranks differ by one"})
    batch_size: int = field(default=8, metadata={"help": "prompts a step"})
    learning_rate: float = field(default=2e-5, metadata={"help": "peak learning rate"})
    epochs: float = field(default=3.0, metadata={"help": "passes over the data"})
    max_steps: int = field(default=-1, metadata={"help": "steps, over epochs; -1: as epochs say"})
    bf16: bool = field(default=False, metadata={"help": "compute in bfloat16 where the device does so fast"})
    seed: int = field(default=0, metadata={"help": "seed of the order of the data"})


@dataclass(frozen=True)
class RankedTexts:
    """A prompt with its candidates as token ids.

    Args:
        source: The prompt.
        candidates: The candidates.
        ranks: Their ranks, 1 is the best; equals share a rank. The reference, if any, stands first with rank 0.
    """

    source: list[int]
    candidates: list[list[int]]
    ranks: list[int]


class RankedTextsDataset(Dataset):
    """Prompts whose candidates differ in quality."""

    def __init__(self, prompts: Sequence[LabelledPrompt], encoder: DualEncoder, config: SimclsConfig) -> None:
        found = (_ranked(prompt, encoder, config) for prompt in prompts)
        self.examples = [example for example in found if example is not None]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> RankedTexts:
        return self.examples[index]


class SimclsTrainer(Trainer):
    """A `transformers.Trainer` with the loss of SimCLS; set `encoder` and `margin` before training."""

    encoder: DualEncoder
    margin: float = 0.01

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the mean loss over the prompts of a batch."""
        examples: list[RankedTexts] = inputs["examples"]
        # The encoder's own model may be wrapped for several devices.
        self.encoder.model = model
        vectors = self.encoder.embed([row for e in examples for row in (e.source, *e.candidates)])
        losses, start = [], 0
        for example in examples:
            end = start + 1 + len(example.candidates)
            scores = vectors[start + 1 : end] @ vectors[start]
            losses.append(ranking_loss(scores, torch.tensor(example.ranks, device=scores.device), self.margin))
            start = end
        loss = torch.stack(losses).mean()
        return (loss, {}) if return_outputs else loss


def ranking_loss(scores: torch.Tensor, ranks: torch.Tensor, margin: float) -> torch.Tensor:
    """Return the margin ranking loss of one prompt.

    Args:
        scores: (candidates,), higher is better.
        ranks: (candidates,), 1 is the best; rank 0 is the reference, which needs no margin.
        margin: What a distance of one rank is worth.

    Returns:
        The mean over all pairs with different ranks of max(0, worse - better + margin x distance of the ranks).
    """
    distance = ranks[None, :] - ranks[:, None]  # positive where the row is better than the column
    wanted = torch.where((ranks == 0)[:, None], 0.0, margin * distance)
    losses = (scores[None, :] - scores[:, None] + wanted).clamp(min=0)
    return losses[distance > 0].mean()


def train_simcls(config: SimclsConfig) -> DualEncoder:
    """Train a dual encoder and save it with its tokenizer; a run that was killed goes on where it was.

    Args:
        config: The settings.

    Returns:
        The trained encoder.

    Raises:
        InputError: If the data has no prompt with candidates of different quality.
    """
    set_seed(config.seed)
    encoder = DualEncoder.from_pretrained(config.backbone)
    dataset = RankedTextsDataset(list(read_labelled(config.data)), encoder, config)
    if not len(dataset):
        raise InputError(f"{config.data} has no prompt with candidates of different quality to learn from")
    arguments = _arguments(config)
    trainer = SimclsTrainer(
        model=encoder.model,
        args=arguments,
        train_dataset=dataset,
        data_collator=lambda examples: {"examples": list(examples)},
    )
    trainer.encoder, trainer.margin = encoder, config.margin
    folder = Path(arguments.output_dir)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(folder)) if folder.is_dir() else None)
    encoder.model = trainer.accelerator.unwrap_model(trainer.model).eval()
    save_portable(encoder.model, encoder.tokenizer, config.output)
    return encoder


def _ranked(prompt: LabelledPrompt, encoder: DualEncoder, config: SimclsConfig) -> RankedTexts | None:
    worth = gold_scores(prompt, config.metric)
    if worth is None or len(set(worth[: config.max_candidates])) < 2:
        return None
    texts, ranks = list(prompt.item.texts[: config.max_candidates]), list(ranks_of(worth[: config.max_candidates]))
    if prompt.reference and prompt.reference not in texts:
        texts, ranks = [prompt.reference, *texts], [0, *ranks]
    source, *candidates = encoder.encode([prompt.item.source, *texts])
    return RankedTexts(source, candidates, ranks)


def _arguments(config: SimclsConfig) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(Path(config.output) / "trainer"),
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        num_train_epochs=config.epochs,
        max_steps=config.max_steps,
        warmup_steps=25,
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run a training from the command line."""
    parser = HfArgumentParser(SimclsConfig, prog="python -m blender_hf.evaluation.baselines.simcls")
    (config,) = parser.parse_args_into_dataclasses(args=list(argv) if argv is not None else None)
    train_simcls(config)
    sys.stderr.write(f"blender-hf: wrote {config.output}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
