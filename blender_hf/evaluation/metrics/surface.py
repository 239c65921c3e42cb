"""Metrics of overlapping words and letters, by rouge-score and sacrebleu."""

from collections.abc import Callable, Sequence

from blender_hf.errors import BlenderError

INSTALL = "pip install 'blender-hf[evaluate]'"


class SurfaceMetric:
    """Scores candidates by their overlap with the reference, from 0 to 100.

    Args:
        name: One of `SURFACE_METRICS`.
    """

    def __init__(self, name: str) -> None:
        self.key = name
        self._score = SURFACE_METRICS[name](name)

    def __call__(self, candidates: Sequence[str], references: Sequence[str]) -> list[float]:
        """Return the score of each candidate against its reference."""
        return [self._score(*pair) for pair in zip(candidates, references, strict=True)]


def _rouge(name: str) -> Callable[[str, str], float]:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise BlenderError(f"{name} needs rouge-score: {INSTALL}") from None
    scorer = RougeScorer([name], use_stemmer=True)
    return lambda candidate, reference: 100 * float(scorer.score(reference, candidate)[name].fmeasure)


def _sacrebleu(name: str) -> Callable[[str, str], float]:
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError:
        raise BlenderError(f"{name} needs sacrebleu: {INSTALL}") from None
    metric = CHRF() if name == "chrf" else BLEU(effective_order=True)  # which is meant for single sentences
    return lambda candidate, reference: float(metric.sentence_score(candidate, [reference]).score)


SURFACE_METRICS: dict[str, Callable[[str], Callable[[str, str], float]]] = {
    **dict.fromkeys(("rouge1", "rouge2", "rougeL"), _rouge),
    **dict.fromkeys(("chrf", "bleu"), _sacrebleu),
}
