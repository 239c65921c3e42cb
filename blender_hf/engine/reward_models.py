"""Reward models: any `AutoModelForSequenceClassification` with one label scores a prompt with one candidate."""

from collections.abc import Sequence
from inspect import signature
from typing import Any

from transformers import BatchEncoding, PretrainedConfig, PreTrainedModel

from blender_hf.errors import CheckpointError
from blender_hf.inputs import Item
from blender_hf.modeling import PairRankerConfig
from blender_hf.modeling.tokenization import pad_right

from .results import Truncation
from .reward_inputs import RewardInputs, reading_length
from .reward_parts import RewardEncoding
from .scorer import BatchScorer


class RewardModelScorer(BatchScorer[RewardEncoding]):
    """A pointwise ranker that runs a reward model; each candidate's score depends on it and its prompt alone.

    Args:
        model: A sequence classification model with one label, on its device, in evaluation mode.
        tokenizer: Its tokenizer; with a chat template, the prompt and the candidate become a conversation.
        max_batch_tokens: Most tokens of a batch, padding included; None chooses by the device.
        compile: Whether the model is compiled (`torch.compile`): worth its minutes for long work on a GPU.

    Raises:
        CheckpointError: If the model has not exactly one label, or the tokenizer can't be used.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Any,
        *,
        max_batch_tokens: int | None = None,
        compile: bool = False,
    ) -> None:
        check_head(model.config, type(model).__name__)
        super().__init__(model, max_batch_tokens=max_batch_tokens, compile=compile)
        self.tokenizer = tokenizer
        self.inputs = RewardInputs(tokenizer, reading_length(tokenizer, model.config))
        # Tokenizers of no family in particular make them, whatever the model reads.
        self._reads_types = "token_type_ids" in signature(model.forward).parameters
        # That of the model, not of the tokenizer: a decoder looks for it to find the last token.
        self._pad_token_id = model.config.get_text_config().pad_token_id
        if self._pad_token_id is None:
            self.max_batch_tokens = 1  # without one, a decoder reads the last place, so each row is a batch of its own

    def scores(self, items: Sequence[Item]) -> list[tuple[float, ...]]:
        """Score the candidates of each item; see `PointwiseRanker`."""
        return [scores for scores, _ in self.scores_and_cuts(items)]

    def scores_and_cuts(self, items: Sequence[Item]) -> list[tuple[tuple[float, ...], Truncation]]:
        """Score the candidates of each item, and say what was cut; what is the same input is scored once.

        Raises:
            InputError: If the chat template refuses a conversation, or leaves no room for text.
            ModelOutputError: If the model gives NaN or an infinite score.
        """
        encoded = self.inputs.encode(items)
        # In an order of their own, so that the same inputs make the same batches however they are given.
        unique = sorted({row.key: row for rows in encoded for row in rows}.values(), key=lambda row: row.key)
        found = dict(zip((row.key for row in unique), self.logits(unique), strict=True))
        return [(tuple(found[row.key] for row in rows), _cut(rows)) for rows in encoded]

    def pad(self, rows: Sequence[RewardEncoding]) -> BatchEncoding:
        """Make a batch of tensors `input_ids`, `attention_mask` and, if the model reads them, `token_type_ids`."""
        batch = pad_right([row.input_ids for row in rows], self._pad_token_id or 0)
        if self._reads_types and all(row.token_type_ids for row in rows):
            batch["token_type_ids"] = pad_right([row.token_type_ids for row in rows], 0)["input_ids"]
        return batch


def is_reward_model(config: Any) -> bool:
    """Tell whether a configuration is that of a model that scores candidates one by one, not of a pair ranker."""
    return isinstance(config, PretrainedConfig) and config.model_type != PairRankerConfig.model_type


def check_head(config: Any, name: str) -> None:
    """Check that a configuration is that of a model with one label.

    Raises:
        CheckpointError: If it has another number of labels.
    """
    if config.num_labels != 1:
        raise CheckpointError(
            f"{name} has {config.num_labels} labels; a reward model has one, which is the score of a candidate"
        )


def _cut(rows: Sequence[RewardEncoding]) -> Truncation:
    return Truncation(max(row.truncated_prompt for row in rows), tuple(row.truncated_candidate for row in rows))
