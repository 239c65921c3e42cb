"""Shared by the studies of the paper's open questions: options, cached logits, random samples, plots."""

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Drawing
from tqdm import tqdm
from transformers import PreTrainedModel

from benchmarks.judged import judged_parser, sampled
from blender_hf import Blender
from blender_hf.data.labelled import JudgedPair, LabelledPrompt
from blender_hf.evaluation.bootstrap import Figure
from blender_hf.evaluation.pairwise import credits, length_rule
from blender_hf.inputs import Item

CHUNK = 16  # pairs between two steps of the progress bar, and what an interrupted run loses at most
JUDGES = ("ranker", "longer is better")


class Logits:
    """Compares the two candidates of items, and caches the logits in a file.

    Two studies of the same pairs then ask the ranker once, and an interrupted run resumes. The keys contain the
    ranker's weights and configuration, so rankers never share a logit. Without a path they are cached in memory only.
    """

    def __init__(self, blender: Blender, path: Path | None = None) -> None:
        self._ranker = blender.ranker
        self._fingerprint = _fingerprint(blender.scorer.model)
        self._path = path
        self._known: dict[str, float] = {}
        if path is not None and path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                self._known |= json.loads(line)

    def of(self, duels: Sequence[Item], title: str = "") -> list[float]:
        """Return the logit of each item's first candidate against its second, the mean of both orders."""
        keys = [self._key(duel) for duel in duels]
        missing = {key: duel for key, duel in zip(keys, duels, strict=True) if key not in self._known}
        asked = list(missing)
        for start in tqdm(range(0, len(asked), CHUNK), desc=title, unit="chunk"):
            part = asked[start : start + CHUNK]
            found = self._ranker.compare([missing[key] for key in part])
            self._keep({key: comparison.logit for key, comparison in zip(part, found, strict=True)})
        return [self._known[key] for key in keys]

    def _key(self, duel: Item) -> str:
        texts = json.dumps([self._fingerprint, duel.source, *duel.texts])
        return blake2b(texts.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    def _keep(self, found: dict[str, float]) -> None:
        self._known |= found
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as out:
                out.write(json.dumps(found) + "\n")


def _fingerprint(model: PreTrainedModel) -> str:
    """Return a digest of everything that changes logits: weights, precision, configuration."""
    digest = blake2b(digest_size=16)
    for weights in model.state_dict().values():
        digest.update(weights.detach().cpu().float().numpy().tobytes())
    digest.update(model.config.to_json_string(use_diff=False).encode())
    return f"{digest.hexdigest()} {model.dtype}"


def study_parser(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options of every study of judged pairs."""
    parser = judged_parser(doc, files="+")
    parser.add_argument("--dtype", help="precision of the ranker, such as bfloat16; float32 by default")
    parser.add_argument("--max-pair-length", type=int, help="tokens at which pairs are truncated, if the ranker's more")
    parser.add_argument("--logits", type=Path, help="file that caches logits between runs")
    return parser


def load_ranker(options: argparse.Namespace, fuser: str | None = None) -> Blender:
    """Load the ranker that the options name, and a fuser."""
    cut = {"max_pair_length": options.max_pair_length} if options.max_pair_length else None
    return Blender.from_pretrained(options.ranker, fuser, dtype=options.dtype, truncation=cut)


def display_name(checkpoint: str) -> str:
    """Return the name of a checkpoint for a page: of a folder its last part."""
    return Path(checkpoint).name if Path(checkpoint).is_dir() else checkpoint


def sample_pairs(prompts: Iterable[LabelledPrompt], most: int, seed: int) -> list[LabelledPrompt]:
    """Return prompts with a random sample of their decided pairs, at most `most` of each source."""
    decided = [(prompt, pair) for prompt in prompts for pair in prompt.pairs if pair.label != 0.5]
    decided.sort(key=lambda row: row[0].source)
    kept: dict[int, tuple[LabelledPrompt, list[JudgedPair]]] = {}
    for prompt, pair in sampled(decided, lambda row: row[0].source, most, seed):
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


def pair_credits(prompt: LabelledPrompt, logits: Sequence[float]) -> list[tuple[float, float]]:
    """Return for each judged pair of a prompt the credits of the ranker and of the length rule, 0 to 1."""
    labels = [pair.label for pair in prompt.pairs]
    texts = prompt.item.texts
    return both_credits(labels, logits, [(texts[pair.a], texts[pair.b]) for pair in prompt.pairs])


def both_credits(
    labels: Sequence[float], logits: Sequence[float], texts: Sequence[tuple[str, str]]
) -> list[tuple[float, float]]:
    """Return for each pair of texts the credits of the ranker and of the length rule, 0 to 1."""
    lengths = length_rule([a for a, _ in texts], [b for _, b in texts])
    found = zip(credits(logits, labels), credits(lengths, labels), strict=True)
    return [(ours or 0.0, longer or 0.0) for ours, longer in found]


def draw(n_axes: int, width: float = 9, height: float = 4) -> tuple[Drawing, list[Axes]]:
    """Return a drawing, made without a screen, and its axes side by side."""
    drawing = Drawing(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(drawing)
    return drawing, list(drawing.subplots(1, n_axes, squeeze=False)[0])


def error_bars(found: Sequence[Figure]) -> tuple[list[float], list[float]]:
    """Return how far the intervals reach below and above the values."""
    below = [max(f.value - (f.value if f.low is None else f.low), 0.0) for f in found]
    above = [max((f.value if f.high is None else f.high) - f.value, 0.0) for f in found]
    return below, above


def draw_lines(axes: Axes, lines: dict[str, list[Figure]], names: Sequence[str], xlabel: str, ylabel: str) -> None:
    """Draw accuracies with their intervals, one line for each name, beside one another; chance is dotted."""
    step = 0.16 if len(lines) == 2 else 0.06
    for place, (label, found) in enumerate(lines.items()):
        places = [k + step * (place - (len(lines) - 1) / 2) for k in range(len(found))]
        axes.errorbar(places, [f.value for f in found], yerr=error_bars(found), marker="o", capsize=2, label=label)
    axes.set_xticks(range(len(names)), list(names))
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.axhline(0.5, color="black", linewidth=0.8, linestyle=":")
    axes.set_ylim(0.2, 1)
    axes.legend(fontsize="small")
