"""Trains the dual encoder of SimCLS on labelled data; `blender-hf evaluate --baseline simcls:DIR` then measures it.

    python -m benchmarks.simcls --backbone ENCODER --data train.jsonl.gz --output_dir DIR

The better of two candidates shall lie nearer to the prompt, by a margin that grows with the distance of their ranks,
and the reference, if there is one, nearer than any candidate (Liu and Liu 2021, arXiv 2106.01890, equations 3 and 4).
A killed run resumes from its last checkpoint.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import HfArgumentParser, Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from blender_hf.data.labelled import LabelledPrompt, gold_scores
from blender_hf.data.labelled_formats import read_labelled
from blender_hf.errors import InputError
from blender_hf.loading.baselines import DualEncoder
from blender_hf.loading.checkpoints import save_portable
from blender_hf.modeling.ranking_math import ranks_of


@dataclass
class Settings:
    """The settings beside those of `TrainingArguments`; the margin is that of SimCLS."""

    backbone: str = field(metadata={"help": "Hub id or folder of the encoder"})
    data: str = field(metadata={"help": "labelled data, in any format that `blender-hf evaluate` reads"})
    metric: str | None = field(default=None, metadata={"help": "scores that rank the candidates; None: the judgments"})
    max_candidates: int = field(default=16, metadata={"help": "most candidates of a prompt"})
    margin: float = field(default=0.01, metadata={"help": "margin between candidates whose ranks differ by one"})


@dataclass
class Arguments(TrainingArguments):
    """`TrainingArguments` with the optimiser of SimCLS; a step reads 8 prompts."""

    learning_rate: float = 2e-5
    warmup_steps: int = 25
    logging_steps: int = 25
    save_steps: int = 100
    save_total_limit: int = 1
    seed: int = 0
    report_to: str = "none"
    remove_unused_columns: bool = False
    # Otherwise transformers takes bf16 for a request for a GPU.
    use_cpu: bool = field(default_factory=lambda: not torch.accelerator.is_available())


@dataclass(frozen=True)
class RankedTexts:
    """The token ids of a prompt and its candidates, with their ranks: 1 for the best, 0 for the reference."""

    source: list[int]
    candidates: list[list[int]]
    ranks: list[int]


class SimclsTrainer(Trainer):
    """A `transformers.Trainer` with the loss of SimCLS; set `encoder` and `margin` before training."""

    encoder: DualEncoder
    margin: float

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the mean loss over the prompts of a batch."""
        # The encoder's own model may be wrapped for several devices.
        self.encoder.model = model
        examples: list[RankedTexts] = inputs["examples"]
        vectors = self.encoder.embed([row for e in examples for row in (e.source, *e.candidates)])
        losses = []
        for example, own in zip(examples, vectors.split([1 + len(e.candidates) for e in examples]), strict=True):
            ranks = torch.tensor(example.ranks, device=own.device)
            losses.append(ranking_loss(own[1:] @ own[0], ranks, self.margin))
        loss = torch.stack(losses).mean()
        return (loss, {}) if return_outputs else loss


def ranking_loss(scores: torch.Tensor, ranks: torch.Tensor, margin: float) -> torch.Tensor:
    """Return the margin ranking loss of one prompt.

    Args:
        scores: (candidates,), higher is better.
        ranks: (candidates,), 1 is the best; rank 0 is the reference, which needs no margin.
        margin: Margin for a distance of one rank.

    Returns:
        The mean over all pairs with different ranks of max(0, worse - better + margin x distance of the ranks).
    """
    distance = ranks[None, :] - ranks[:, None]  # positive where the row is better than the column
    wanted = torch.where((ranks == 0)[:, None], 0.0, margin * distance)
    losses = (scores[None, :] - scores[:, None] + wanted).clamp(min=0)
    return losses[distance > 0].mean()


def ranked_texts(prompt: LabelledPrompt, encoder: DualEncoder, settings: Settings) -> RankedTexts | None:
    """Return the encoded candidates of a prompt with their ranks; None if their quality is unknown or all the same."""
    gold = (gold_scores(prompt, settings.metric) or ())[: settings.max_candidates]
    if len(set(gold)) < 2:
        return None
    texts, ranks = list(prompt.item.texts[: len(gold)]), list(ranks_of(gold))
    if prompt.reference and prompt.reference not in texts:
        texts, ranks = [prompt.reference, *texts], [0, *ranks]
    source, *candidates = encoder.encode([prompt.item.source, *texts])
    return RankedTexts(source, candidates, ranks)


def train(settings: Settings, arguments: TrainingArguments) -> None:
    """Train a dual encoder and save it with its tokenizer.

    Raises:
        InputError: If the data has no prompt with candidates of different quality.
    """
    set_seed(arguments.seed)
    encoder = DualEncoder.from_pretrained(settings.backbone)
    found = (ranked_texts(prompt, encoder, settings) for prompt in read_labelled(settings.data))
    examples = [example for example in found if example is not None]
    if not examples:
        raise InputError(f"{settings.data} has no prompt with candidates of different quality to learn from")
    output, arguments.output_dir = arguments.output_dir, f"{arguments.output_dir}/trainer"
    trainer = SimclsTrainer(
        encoder.model, arguments, train_dataset=examples, data_collator=lambda batch: {"examples": list(batch)}
    )
    trainer.encoder, trainer.margin = encoder, settings.margin
    trainer.train(resume_from_checkpoint=get_last_checkpoint(arguments.output_dir))
    save_portable(trainer.accelerator.unwrap_model(trainer.model).eval(), encoder.tokenizer, output)
    sys.stderr.write(f"wrote {output}\n")


def main(argv: Sequence[str] | None = None) -> None:
    """Run a training from the command line."""
    train(*HfArgumentParser((Settings, Arguments)).parse_args_into_dataclasses(argv))


if __name__ == "__main__":
    main()
