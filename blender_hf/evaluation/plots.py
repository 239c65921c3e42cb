"""Plots of an evaluation, drawn without a screen."""

from pathlib import Path
from typing import TYPE_CHECKING

from blender_hf.errors import require

from .bootstrap import Figure
from .calibration import Calibration
from .evaluate import CHANCE, Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing


def save_plots(evaluation: Evaluation, folder: str | Path) -> list[Path]:
    """Write the plots of an evaluation as PNG files."""
    drawings = {}
    if evaluation.n_pairs > evaluation.n_ties:
        drawings["accuracy.png"] = _accuracy(evaluation)
    curves = {name: found.calibration for name, found in evaluation.rankers.items() if found.calibration}
    if curves:
        drawings["calibration.png"] = _calibration(curves)
    for name, drawing in drawings.items():
        drawing.savefig(Path(folder) / name, dpi=120)
    return [Path(folder) / name for name in drawings]


def _accuracy(evaluation: Evaluation) -> "Drawing":
    """Draw the accuracy of every ranker for every source, with its interval."""
    found_by = {name: ranker.figures for name, ranker in evaluation.rankers.items()}
    # Chance has a line of its own.
    rankers = [name for name, figures in found_by.items() if "accuracy" in figures and name != CHANCE]
    sources = list(dict.fromkeys(source for name in rankers for source in evaluation.rankers[name].by_source))
    drawing, axes = _drawing(8, 1.2 + 0.16 * max(len(sources), 1) * (len(rankers) + 1))
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


def _calibration(curves: dict[str, Calibration]) -> "Drawing":
    """Draw the reliability curves; large marks are many pairs."""
    drawing, axes = _drawing(5, 5)
    axes.plot([0.5, 1], [0.5, 1], color="black", linewidth=0.8, linestyle=":")
    for name, curve in curves.items():
        axes.plot(curve.said, curve.came_true, label=f"{name} (error {curve.error:.3f})")
        axes.scatter(curve.said, curve.came_true, s=[10 + 100 * count / sum(curve.counts) for count in curve.counts])
    axes.set(xlabel="probability of the preferred candidate", ylabel="share of the annotators' verdicts for it")
    axes.set(xlim=(0.5, 1), ylim=(0, 1.02))
    axes.legend(loc="lower right", fontsize="small")
    return drawing


def _whiskers(figure: Figure) -> tuple[float, float]:
    """Return how far the interval of a figure reaches below and above it."""
    if figure.low is None or figure.high is None:
        return 0.0, 0.0
    return max(figure.value - figure.low, 0.0), max(figure.high - figure.value, 0.0)


def _drawing(width: float, height: float) -> "tuple[Drawing, Axes]":
    require("matplotlib", "evaluate", "a plot")
    # Not pyplot, which keeps figures in memory and chooses a screen.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(drawing)
    return drawing, drawing.add_subplot()
