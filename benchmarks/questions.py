"""What the scripts for the open questions of the paper share: the draw of pairs, logits that are kept, pages, plots."""

import argparse
import json
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from cards import write_figures
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Drawing
from tqdm import tqdm
from transformers import PreTrainedModel

from blender_hf import Blender
from blender_hf.data.labelled import JudgedPair, LabelledPrompt
from blender_hf.data.labelled_formats import read_labelled
from blender_hf.data.preferences import soft_label
from blender_hf.data.sources import read_values
from blender_hf.engine.rankers import as_ranker
from blender_hf.evaluation.bootstrap import Figure
from blender_hf.inputs import Item

# The id of a prompt and the places of two candidates.
JudgedKey = tuple[str | int, int, int]

CHUNK = 16  # pairs between two steps of the progress bar, and what a run that is stopped loses at most


class Logits:
    """Compares the two candidates of items, and keeps what was found in a file.

    Two scripts that ask about the same pairs then ask the ranker once, and a run that is stopped goes on. The name
    under which a logit is kept has the ranker's weights in it, so another ranker never gets it.

    Args:
        blender: Has the ranker.
        path: The file, of JSON lines; None keeps nothing.
    """

    def __init__(self, blender: Blender, path: Path | None = None) -> None:
        self._ranker = as_ranker(blender.scorer)
        self._mark = _fingerprint(blender.scorer.model)
        self._path = path
        self._known: dict[str, float] = {}
        if path is not None and path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                self._known |= json.loads(line)

    def of(self, duels: Sequence[Item], title: str = "") -> list[float]:
        """Return the logit of each item's first candidate against its second, the mean of both orders."""
        names = [self._name(duel) for duel in duels]
        fresh = {name: duel for name, duel in zip(names, duels, strict=True) if name not in self._known}
        asked = list(fresh)
        for start in tqdm(range(0, len(asked), CHUNK), desc=title, unit="chunk"):
            part = asked[start : start + CHUNK]
            found = self._ranker.compare([fresh[name] for name in part])
            self._keep({name: comparison.logit for name, comparison in zip(part, found, strict=True)})
        return [self._known[name] for name in names]

    def _name(self, duel: Item) -> str:
        texts = json.dumps([self._mark, duel.source, *duel.texts])
        return blake2b(texts.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    def _keep(self, found: dict[str, float]) -> None:
        self._known |= found
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as out:
                out.write(json.dumps(found) + "\n")


def _fingerprint(model: PreTrainedModel) -> str:
    """Return a text that tells apart whatever gives other logits: the weights, their precision, the configuration."""
    digest = blake2b(digest_size=16)
    for weights in model.state_dict().values():
        digest.update(weights.detach().cpu().float().numpy().tobytes())
    digest.update(model.config.to_json_string(use_diff=False).encode())
    return f"{digest.hexdigest()} {model.dtype}"


def question_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options of every question that needs judged pairs."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("data", type=Path, nargs="+", help="JSONL files of judged pairs")
    parser.add_argument("--ranker", default="pair-ranker-mini", help="Hub id or folder")
    parser.add_argument("--dtype", help="precision of the ranker, such as bfloat16; float32 if nothing is said")
    parser.add_argument("--max-pair-length", type=int, help="tokens at which a pair is cut, if the ranker reads more")
    parser.add_argument("--seed", type=int, default=0, help="of all draws")
    parser.add_argument("--logits", type=Path, help="file in which logits are kept between runs")
    parser.add_argument("--page", type=Path, help="page to write the figures into; the plot goes beside it")
    return parser


def load_ranker(options: argparse.Namespace, fuser: str | None = None) -> Blender:
    """Load the ranker that the options name, and a fuser."""
    cut = {"max_pair_length": options.max_pair_length} if options.max_pair_length else None
    return Blender.from_pretrained(options.ranker, fuser, dtype=options.dtype, truncation=cut)


def shown(checkpoint: str) -> str:
    """Return how a page names a checkpoint: a folder by its last name, for paths of a machine tell a reader nothing."""
    return Path(checkpoint).name if Path(checkpoint).is_dir() else checkpoint


def read_all(paths: Iterable[Path]) -> list[LabelledPrompt]:
    """Read the labelled prompts of several files."""
    return [prompt for path in paths for prompt in read_labelled(path)]


def soft_labels(paths: Iterable[Path]) -> dict[JudgedKey, float]:
    """Return for each judged pair of the files the judge's probability, or the share of votes, that a is better."""
    return {
        (record["id"], pair["a"], pair["b"]): soft_label(pair)
        for path in paths
        for record in read_values(path)
        for pair in record["pairs"]
    }


def sample_pairs(prompts: Iterable[LabelledPrompt], most: int, seed: int) -> list[LabelledPrompt]:
    """Return prompts with their decided pairs alone, drawn at random: at most so many pairs of each source.

    Args:
        prompts: The prompts; those that keep no pair are left out.
        most: Most pairs of a source.
        seed: Of the draw.
    """
    by_source: dict[str, list[tuple[LabelledPrompt, JudgedPair]]] = defaultdict(list)
    for prompt in prompts:
        by_source[prompt.source] += [(prompt, pair) for pair in prompt.pairs if pair.label != 0.5]
    rng = random.Random(seed)
    kept: dict[int, tuple[LabelledPrompt, list[JudgedPair]]] = {}
    for _, found in sorted(by_source.items()):
        for prompt, pair in rng.sample(found, min(most, len(found))):
            kept.setdefault(id(prompt), (prompt, []))[1].append(pair)
    return [replace(prompt, pairs=tuple(pairs)) for prompt, pairs in kept.values()]


def duels_of(prompt: LabelledPrompt) -> list[Item]:
    """Return for each judged pair of a prompt an item of its two candidates, a and b."""
    texts = prompt.item.candidates
    return [replace(prompt.item, candidates=(texts[pair.a], texts[pair.b])) for pair in prompt.pairs]


def pair_logits(prompts: Sequence[LabelledPrompt], logits: Logits, title: str = "pairs") -> list[list[float]]:
    """Return for each prompt the logits of its judged pairs, positive where a is better."""
    duels = [duels_of(prompt) for prompt in prompts]
    found = iter(logits.of([duel for group in duels for duel in group], title))
    return [[next(found) for _ in group] for group in duels]


def with_interval(figure: Figure) -> str:
    """Write a figure with its interval.

    >>> with_interval(Figure(0.5, 0.25, 0.75, 4))
    '0.500 (0.25 to 0.75)'
    """
    ends = "" if figure.low is None or figure.high is None else f" ({figure.low:.2f} to {figure.high:.2f})"
    return f"{figure.value:.3f}{ends}"


def draw(n_axes: int, width: float = 9, height: float = 4) -> tuple[Drawing, list[Any]]:
    """Return a drawing, made without a screen, and its axes side by side."""
    drawing = Drawing(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(drawing)
    axes = drawing.subplots(1, n_axes, squeeze=False)
    return drawing, list(axes[0])


def whiskers(found: Sequence[Figure]) -> tuple[list[float], list[float]]:
    """Return how far the intervals of figures reach below and above them."""
    below = [max(f.value - (f.value if f.low is None else f.low), 0.0) for f in found]
    above = [max((f.value if f.high is None else f.high) - f.value, 0.0) for f in found]
    return below, above


def publish(script: str, text: str, drawing: Drawing, page: Path | None) -> None:
    """Print what was found; with a page, write it there, and the plot beside it.

    Args:
        script: The script, as the marks of the page name it.
        text: Markdown.
        drawing: The plot.
        page: The page, which has the marks.
    """
    print(text)
    if page is not None:
        plot = page.with_suffix(".png")
        drawing.savefig(plot, dpi=80)
        write_figures(page, script, f"![What the table says, as a plot]({plot.name})\n\n{text}")
