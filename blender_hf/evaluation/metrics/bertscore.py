"""BERTScore (Zhang et al. 2020, arXiv 1904.09675), by the package bert-score."""

from collections.abc import Sequence
from typing import Any

from blender_hf.errors import BlenderError, InputError
from blender_hf.evaluation.loading import longest_input
from blender_hf.loading.checkpoints import explained, pick_device

MAX_TOKENS = 512
# That of the paper's evaluation code.
DEFAULT_MODEL = "bert-base-multilingual-cased"


class BertScore:
    """F1 of the token embeddings of a candidate and its reference, as bert-score gives it, without rescaling.

    Args:
        model: Hub id or folder of the encoder.
        num_layers: Layer whose states are compared; None takes the one that bert-score knows for this model.
        device: Where it runs; None takes a GPU where there is one.
        batch_size: Pairs a batch.

    Raises:
        BlenderError: If bert-score is not installed.
        InputError: If the layer is not stated, and bert-score has none for this model.
        CheckpointError: If the encoder can't be loaded.
    """

    def __init__(
        self, model: str = DEFAULT_MODEL, *, num_layers: int | None = None, device: Any = None, batch_size: int = 16
    ) -> None:
        try:
            from bert_score import BERTScorer
            from bert_score.utils import model2layers
        except ImportError:
            raise BlenderError("BERTScore needs the package bert-score: pip install bert-score") from None
        if num_layers is None and model not in model2layers:
            raise InputError(f"bert-score knows no best layer of {model}; write bertscore=MODEL@LAYER")
        self.key = f"bertscore {model} {num_layers or model2layers[model]}"
        self._batch_size = batch_size
        where = str(pick_device(device))
        self._scorer = explained(
            lambda: BERTScorer(model_type=model, num_layers=num_layers, device=where), model, "encoder of BERTScore"
        )
        # bert-score 0.3.13 cuts texts where the tokenizer says, and tokenizers that say nothing overflow.
        tokenizer = self._scorer._tokenizer
        tokenizer.model_max_length = longest_input(self._scorer._model, tokenizer, MAX_TOKENS)

    def __call__(self, candidates: Sequence[str], references: Sequence[str]) -> list[float]:
        """Return the score of each candidate against its reference; 1 is the same."""
        if not candidates:
            return []
        _, _, f1 = self._scorer.score(list(candidates), list(references), batch_size=self._batch_size)
        return [float(value) for value in f1]
