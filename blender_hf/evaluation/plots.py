"""Plots of an evaluation, drawn without a screen."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blender_hf.errors import BlenderError

from .bootstrap import Figure
from .calibration import Calibration
from .evaluate import CHANCE, Evaluation


def save_plots(evaluation: Evaluation, folder: str | Path) -> list[Path]:
    """Write the plots of an evaluation as PNG files.

    Args:
        evaluation: The evaluation.
        folder: An existing folder: `accuracy.png`, every ranker and source, if any pair was decided, and
            `calibration.png` if there is a ranker with probabilities as well.

    Returns:
        The files.

    Raises:
        BlenderError: If Matplotlib is not installed.
    """
    folder = Path(folder)
    written = []
    if evaluation.n_pairs > evaluation.n_ties:
        written.append(_save(_accuracy(evaluation), folder / "accuracy.png"))
    curves = {name: found.calibration for name, found in evaluation.rankers.items() if found.calibration}
    if curves:
        written.append(_save(_calibration(curves), folder / "calibration.png"))
    return written


def _accuracy(evaluation: Evaluation) -> Any:
    """Draw the accuracy of every ranker for every source, with its interval."""
    found_by = {name: ranker.figures for name, ranker in evaluation.rankers.items()}
    # Chance has a line of its own.
    rankers = [name for name, figures in found_by.items() if "accuracy" in figures and name != CHANCE]
    sources = list(dict.fromkeys(source for name in rankers for source in evaluation.rankers[name].by_source))
    drawing, axes = _figure(8, 1.2 + 0.16 * max(len(sources), 1) * (len(rankers) + 1))
    for place, name in enumerate(rankers):
        found = [
            (row, figures["accuracy"])
            for row, source in enumerate(sources)
            if "accuracy" in (figures := evaluation.rankers[name].by_source.get(source, {}))
        ]
        heights = [row * (len(rankers) + 1) + place for row, _ in found]
        values = [value.value for _, value in found]
        errors = list(zip(*(_whiskers(value) for _, value in found), strict=True))
        axes.barh(heights, values, xerr=errors, height=0.9, label=name, error_kw={"elinewidth": 0.8})
    axes.set_yticks([row * (len(rankers) + 1) + (len(rankers) - 1) / 2 for row in range(len(sources))], sources)
    axes.axvline(0.5, color="black", linewidth=0.8, linestyle=":")
    axes.set(xlim=(0, 1), xlabel="accuracy on decided pairs, 95 % interval")
    axes.invert_yaxis()
    drawing.legend(loc="outside upper center", ncols=3, fontsize="small")
    return drawing


def _calibration(curves: dict[str, Calibration]) -> Any:
    """Draw what is said against what comes true; large marks are many pairs."""
    figure, axes = _figure(5, 5)
    axes.plot([0.5, 1], [0.5, 1], color="black", linewidth=0.8, linestyle=":")
    for name, curve in curves.items():
        axes.plot(curve.said, curve.came_true, label=f"{name} (error {curve.error:.3f})")
        axes.scatter(curve.said, curve.came_true, s=_sizes(curve.counts))
    axes.set(xlabel="probability of the preferred candidate", ylabel="share of the annotators' verdicts for it")
    axes.set(xlim=(0.5, 1), ylim=(0, 1.02))
    axes.legend(loc="lower right", fontsize="small")
    return figure


def _whiskers(figure: Figure) -> tuple[float, float]:
    """Return how far the interval of a figure reaches below and above it."""
    if figure.low is None or figure.high is None:
        return 0.0, 0.0
    return max(figure.value - figure.low, 0.0), max(figure.high - figure.value, 0.0)


def _sizes(counts: Sequence[int]) -> list[float]:
    return [10 + 100 * count / max(sum(counts), 1) for count in counts]


def _figure(width: float, height: float) -> tuple[Any, Any]:
    try:
        # Not pyplot, which would keep figures, and choose a screen.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise BlenderError("plots need Matplotlib: pip install 'blender-hf[evaluate]'") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def _save(figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=120)
    return path
