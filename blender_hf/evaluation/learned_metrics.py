"""Learned metrics against a reference: BERTScore, BARTScore and BLEURT."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSeq2SeqLM, BatchEncoding, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from blender_hf.engine.reward_model import RewardModelScorer
from blender_hf.engine.scorer import BatchScorer
from blender_hf.errors import InputError, require
from blender_hf.inputs import Candidate, Item
from blender_hf.loading.checkpoints import HubOptions, explained, pick_device
from blender_hf.loading.rankers import load_reward_model
from blender_hf.loading.text_models import TextEncoder, load_with_tokenizer, longest_input
from blender_hf.modeling.tokenization import pad_right

# The default models: those of the paper's evaluation code, BLEURT as a port to PyTorch.
BERTSCORE = "bert-base-multilingual-cased"
BARTSCORE = "facebook/bart-large-cnn"
BLEURT = "Elron/bleurt-base-128"
MAX_BERTSCORE_TOKENS, MAX_BARTSCORE_TOKENS = 512, 1024
BERTSCORE_PAIRS = 16
# Tokens of a batch of BARTScore, whose logits have a column for each token of the vocabulary.
BATCH_TOKENS = 4096
IGNORED = -100


class BertScore:
    """F1 of matched token embeddings by bert-score, without rescaling (Zhang et al. 2020, arXiv 1904.09675).

    The states compared are those of layer `num_layers`; None takes the best one that bert-score knows for the model.
    """

    def __init__(
        self, model: str = BERTSCORE, *, num_layers: int | None = None, device: str | torch.device | None = None
    ) -> None:
        require("bert_score", "evaluate", "BERTScore")
        from bert_score import BERTScorer
        from bert_score.utils import model2layers

        if num_layers is None and model not in model2layers:
            raise InputError(f"bert-score knows no best layer of {model}; write bertscore=MODEL@LAYER")
        self.key = f"bertscore {model} {num_layers or model2layers[model]}"
        where = str(pick_device(device))
        self._scorer = explained(
            lambda: BERTScorer(model_type=model, num_layers=num_layers, device=where), model, "encoder of BERTScore"
        )
        # bert-score 0.3.13 truncates where the tokenizer says, and tokenizers that don't say overflow.
        tokenizer = self._scorer._tokenizer
        tokenizer.model_max_length = longest_input(self._scorer._model, tokenizer, MAX_BERTSCORE_TOKENS)

    def __call__(self, candidates: Sequence[str], references: Sequence[str]) -> list[float]:
        """Return the score of each candidate against its reference; 1 is identical."""
        if not candidates:
            return []
        _, _, f1 = self._scorer.score(list(candidates), list(references), batch_size=BERTSCORE_PAIRS)
        return [float(value) for value in f1]


class Bleurt:
    """A sequence classification model with one label that reads reference and candidate (Sellam et al. 2020)."""

    def __init__(
        self,
        model: str | Path = BLEURT,
        *,
        hub: HubOptions | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        attn_implementation: str | None = None,
    ) -> None:
        self.key = f"bleurt {model}"
        running: dict[str, Any] = {"device": device, "dtype": dtype, "attn_implementation": attn_implementation}
        self._scorer = RewardModelScorer(*load_reward_model(model, hub or HubOptions(), **running))

    def __call__(self, candidates: Sequence[str], references: Sequence[str]) -> list[float]:
        """Return the score of each candidate against its reference; about 1 is equivalent, about 0 unrelated."""
        pairs = zip(candidates, references, strict=True)
        return [scores[0] for scores in self._scorer.scores([Item(ref, (Candidate(text),)) for text, ref in pairs])]


@dataclass(frozen=True)
class SourceAndTarget:
    """An input and an output of a sequence-to-sequence model, as token ids."""

    source: list[int]
    target: list[int]

    def __len__(self) -> int:
        return len(self.source) + len(self.target)


class _MeanLikelihood(torch.nn.Module):
    """Returns the mean log-likelihood of the tokens of each target."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.device = model.device

    def forward(self, labels: torch.Tensor, **inputs: torch.Tensor) -> SequenceClassifierOutput:
        logits = self.model(**inputs, labels=labels).logits.float()  # (batch, length, vocabulary)
        losses = cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
        return SequenceClassifierOutput(logits=-losses.sum(dim=1) / (labels != IGNORED).sum(dim=1))


class BartScore(BatchScorer[SourceAndTarget]):
    """Mean log-likelihood of the reference's tokens given the candidate (Yuan et al. 2021, arXiv 2106.11520).

    Equation 2, from hypothesis to reference, which is the direction of MixInstruct's scores. The options are those of
    `loading.load_with_tokenizer`.
    """

    def __init__(self, model: str | Path = BARTSCORE, **options: Any) -> None:
        loaded, tokenizer = load_with_tokenizer(AutoModelForSeq2SeqLM, model, "model of BARTScore", **options)
        super().__init__(_MeanLikelihood(loaded), max_batch_tokens=BATCH_TOKENS)
        self.key = f"bartscore {model}"
        self._pad_token_id = tokenizer.pad_token_id
        self._encode = TextEncoder(loaded, tokenizer, MAX_BARTSCORE_TOKENS)

    def __call__(self, candidates: Sequence[str], references: Sequence[str]) -> list[float]:
        """Return the score of each candidate against its reference: 0 is certain, lower is less likely."""
        pairs = zip(self._encode(candidates), self._encode(references), strict=True)
        return self.logits([SourceAndTarget(*pair) for pair in pairs])

    def pad(self, rows: Sequence[SourceAndTarget]) -> BatchEncoding:
        """Make a batch of tensors."""
        batch = pad_right([row.source for row in rows], self._pad_token_id or 0)
        return BatchEncoding({**batch, "labels": pad_right([row.target for row in rows], IGNORED)["input_ids"]})
