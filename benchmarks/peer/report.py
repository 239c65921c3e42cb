"""The report of the comparison: tables, and how far the aims are reached."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median, pstdev
from typing import Any

from benchmarks.peer.settings import AIMS, POINTWISE, PRODUCT_SHARE, REFERENCE, SETTINGS, Aim, Setting
from benchmarks.tables import Cell as TableCell
from benchmarks.tables import Table

COLUMNS = {
    "setting": "",
    "candidates": "d",
    "s": "seconds",
    "pairs/s": ".2f",
    "real tokens/s": ".0f",
    "padding": ".0%",
    "of products": ".0%",
    "peak MiB": ".0f",
    "logit difference": ".1e",
    "same top-1": "",
    "runs": "d",
}
LEGEND = """\
- s: median seconds for all prompts; runs: how many.
- pairs/s: sequences that the model reads per second: a pair in one presentation order; for the pointwise scorer, a
  candidate.
- padding: share of the computed positions without a token.
- of products: operations per second that the result needs, as a share of the rate of bare matrix products of the same
  shapes and precision.
- peak MiB: peak memory of the process until then (resident; on a GPU, allocated there).
- logit difference: the largest, of the mean of both orders, from our full ranking in float32. Those of the peer at a
  larger batch change with the neighbours of a prompt.
- same top-1: prompts with the same best candidate as our full ranking in float32."""


@dataclass
class Cell:
    """One setting with one number of candidates."""

    n: int
    setting: Setting
    flops: float = 0.0  # operations that the result needs
    times: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    shapes: list[list[int]] = field(default_factory=list)
    places: int = 0
    top: list[int] | None = None
    logits: list[list[list[float]]] | None = None
    peak_mib: float = 0.0

    def add(self, result: dict[str, Any]) -> None:
        """Add a measurement; all are equal except for time and memory."""
        self.times.append(result["seconds"])
        for name in ("lengths", "shapes", "places", "top", "logits", "peak_mib"):
            # Later repetitions include the peaks of other numbers of candidates.
            if name != "peak_mib" or len(self.times) == 1:
                setattr(self, name, result[name])

    @property
    def seconds(self) -> float:
        """The median."""
        return median(self.times)

    @property
    def padding(self) -> float:
        """The share of computed positions without a token."""
        return 1 - sum(self.lengths) / self.places


@dataclass
class Part:
    """One shape on one device."""

    shape: str
    device: str
    jobs: dict[int, dict[str, Any]]  # the inputs for each number of candidates
    cells: dict[tuple[int, str], Cell] = field(default_factory=dict)
    products: dict[str, dict[str, Any]] = field(default_factory=dict)
    profiles: dict[str, dict[str, float]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, float] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Shape and device."""
        return f"{self.shape}, {self.device}"

    def expected_seconds(self, name: str, n: int) -> float | None:
        """Estimate the duration of a setting from its own runs, or from those of a similar one; None if unknown."""
        setting = next(setting for setting in SETTINGS if setting.name == name)
        known = [cell for cell in self.cells.values() if cell.setting == setting]
        known = known or [cell for cell in self.cells.values() if cell.setting.is_like(setting)]
        if not known:
            return None
        nearest = min(known, key=lambda cell: abs(cell.n - n))
        return nearest.seconds * setting.sequences(n) / nearest.setting.sequences(nearest.n)

    def logit_difference(self, cell: Cell) -> float | None:
        """Return the largest difference from our full ranking in float32; None if either was not measured."""
        reference = self.cells.get((cell.n, REFERENCE))
        if cell.logits is None or reference is None or reference.logits is None:
            return None
        pairs = zip(_off_diagonal(cell.logits), _off_diagonal(reference.logits), strict=True)
        return max(abs(a - b) for a, b in pairs)

    def same_top(self, cell: Cell) -> tuple[int, int] | None:
        """Return the number of prompts with the same best as our full ranking in float32, and of all."""
        reference = self.cells.get((cell.n, REFERENCE))
        if cell.top is None or reference is None or reference.top is None:
            return None
        return sum(a == b for a, b in zip(cell.top, reference.top, strict=True)), len(cell.top)

    def product_share(self, cell: Cell) -> float | None:
        """Return the rate of the real tokens' operations as a share of the rate of bare products."""
        products = self.products.get(cell.setting.dtype)
        return cell.flops / cell.seconds / products["rate"] if products and cell.flops else None


def _off_diagonal(logits: Sequence[Sequence[Sequence[float]]]) -> Iterator[float]:
    for matrix in logits:
        for i, row in enumerate(matrix):
            yield from (value for j, value in enumerate(row) if i != j)


def report(
    parts: Sequence[Part], agreement: dict[str, Any], machine: dict[str, Any]
) -> tuple[list[str | Table], dict[str, Any]]:
    """Return the sections of the report, and its details."""
    verdicts = [verdict for aim in AIMS for verdict in judge(aim, parts, agreement)]
    verdicts += [verdict for part in parts for verdict in judge_products(part)]
    sections: list[str | Table] = [_machine(machine), LEGEND]
    sections += [section for part in parts for section in part_sections(part)]
    if agreement:
        sections += [f"### Same top-1 on {agreement['ranker']}", _agreement(agreement)]
    judged = {verdict["aim"] for verdict in verdicts}
    lines = [f"- {_verdict_line(verdict)}" for verdict in verdicts]
    lines += [f"- {aim.name}: **not measured**" for aim in AIMS if aim.name not in judged]
    sections += ["### Aims", "\n".join(lines)]
    return sections, {"parts": [_details(p) for p in parts], "agreement": agreement, "aims": verdicts}


def judge(aim: Aim, parts: Sequence[Part], agreement: dict[str, Any]) -> list[dict[str, Any]]:
    """Compare the medians with an aim: a verdict for each part and each of our settings."""
    verdicts = []
    for part in parts:
        for ours in aim.ours:
            ratios = {n: ratio for n in part.jobs if (ratio := _ratio(aim, part, ours, n)) is not None}
            if ratios:
                worst = min(ratios, key=lambda n: ratios[n])
                same = _agreement_of(ours, part, agreement) if aim.agreement else None
                verdicts.append(
                    {
                        "aim": aim.name,
                        "where": f"{part.title}: {ours}",
                        "at_least": aim.at_least,
                        "worst": ratios[worst],
                        "worst_at": f"{worst} candidates",
                        "ratios": ratios,
                        "agreement_at_least": aim.agreement,
                        "agreement": same,
                        "reached": ratios[worst] >= aim.at_least
                        and (same is None or same[0] >= (aim.agreement or 0) * same[1]),
                    }
                )
    return verdicts


def _ratio(aim: Aim, part: Part, ours: str, n: int) -> float | None:
    """Return our speed-up over the fastest of the peer's settings; None if either was not measured."""
    own = part.cells.get((n, ours))
    peers = [part.cells[n, name].seconds for name in aim.peer if (n, name) in part.cells]
    if own is None or not peers or (aim.sizes is not None and n not in aim.sizes):
        return None
    return min(peers) / own.seconds


def _agreement_of(ours: str, part: Part, agreement: dict[str, Any]) -> tuple[int, int] | None:
    """Return the number of prompts with the same top-1, and of all: on the trained ranker if there is one."""
    if ours in agreement.get("same", {}):
        return agreement["same"][ours], agreement["prompts"]
    counts = [same for (_, name), cell in part.cells.items() if name == ours and (same := part.same_top(cell))]
    return (sum(same for same, _ in counts), sum(of for _, of in counts)) if counts else None


def judge_products(part: Part) -> list[dict[str, Any]]:
    """Compare our full rankings with the rate of bare products."""
    verdicts = []
    for name in dict.fromkeys(name for _, name in part.cells):
        shares = {
            n: share
            for (n, other), cell in part.cells.items()
            if other == name and cell.setting.side == "ours" and cell.setting.method == "full"
            if (share := part.product_share(cell)) is not None
        }
        if shares:
            worst = min(shares, key=lambda n: shares[n])
            verdicts.append(
                {
                    "aim": "share of the rate of bare matrix products",
                    "where": f"{part.title}: {name}",
                    "at_least": PRODUCT_SHARE,
                    "worst": shares[worst],
                    "worst_at": f"{worst} candidates",
                    "ratios": shares,
                    "why": _why(part, part.cells[worst, name]),
                    "reached": shares[worst] >= PRODUCT_SHARE,
                }
            )
    return verdicts


def _why(part: Part, cell: Cell) -> str:
    """Describe where the time goes besides bare products."""
    profile = part.profiles.get(cell.setting.dtype, {})
    rest = ", ".join(f"{name} {share:.0%}" for name, share in list(profile.items())[:4])
    return f"{cell.padding:.0%} of the positions are padding, and the time goes into {rest or 'what was not profiled'}"


def _verdict_line(verdict: dict[str, Any]) -> str:
    missing = 1 - verdict["worst"] / verdict["at_least"]
    reached = f"**missed by {missing:.0%}**" if missing > 0 else "reached"
    spread = ", ".join(f"{n}: {ratio:.2f}" for n, ratio in verdict["ratios"].items())
    text = (
        f"{verdict['aim']}; {verdict['where']}: {reached}, {verdict['worst']:.2f} of {verdict['at_least']:g} at "
        f"{verdict['worst_at']} (by number of candidates: {spread})"
    )
    if "why" in verdict and not verdict["reached"]:
        text += f"; {verdict['why']}"
    if verdict.get("agreement"):
        same, of = verdict["agreement"]
        enough = same >= verdict["agreement_at_least"] * of
        text += f"; same top-1 on {same} of {of} prompts, {'reached' if enough else '**missed**'}"
        text += f" (aim {verdict['agreement_at_least']:.0%})"
    return text


def _machine(machine: dict[str, Any]) -> str:
    gpu = f", {machine['gpu']}" if machine["gpu"] else ""
    options = machine["options"]
    return (
        f"{machine['processor']}{gpu}; load average at the end "
        f"{machine['load average at the end']:.1f}. Ours: {machine['ours']}; peer: {machine['peer']}. "
        f"{options['prompts']} prompts in a call, answers of about {options['words'][0]} to {options['words'][1]} "
        f"words, random weights (seed {options['seed']})."
    )


def part_sections(part: Part) -> list[str | Table]:
    """Return the sections of one shape on one device."""
    cells = sorted(part.cells.values(), key=lambda cell: cell.n)
    sections = [f"### {part.title}", Table(COLUMNS, [_row(part, cell) for cell in cells])]
    sections.append("\n".join([*_spread_lines(part), *_price_lines(part), *_products_lines(part)]))
    notes = [f"- not available: {name}: {why}" for name, why in part.failures.items()]
    notes += [f"- skipped, it would have taken about {s:.0f} s: {name}" for name, s in part.left_out.items()]
    return [*sections, "\n".join(notes)] if notes else sections


def _row(part: Part, cell: Cell) -> list[TableCell]:
    difference, same = part.logit_difference(cell), part.same_top(cell)
    return [
        cell.setting.name,
        cell.n,
        cell.seconds,
        len(cell.lengths) / cell.seconds,
        sum(cell.lengths) / cell.seconds,
        cell.padding,
        part.product_share(cell),
        cell.peak_mib,
        None if difference is None or math.isnan(difference) else difference,
        None if same is None else f"{same[0]} of {same[1]}",
        len(cell.times),
    ]


def _spread_lines(part: Part) -> list[str]:
    """Return the scale of the logits, for their differences."""
    found = [c for (_, name), c in part.cells.items() if name == REFERENCE and c.logits]
    values = [logit for cell in found for logit in _off_diagonal(cell.logits or [])]
    return [f"- standard deviation of the logits: {pstdev(values):.2f}"] if values else []


def _price_lines(part: Part) -> list[str]:
    """Return the time of comparing candidates, relative to scoring each alone."""
    lines = []
    for (n, name), cell in part.cells.items():
        if name in POINTWISE:
            others = [c for c in part.cells.values() if c.n == n and c.setting.side == "ours" and c is not cell]
            ratios = ", ".join(f"{c.setting.name} {c.seconds / cell.seconds:.1f}" for c in others)
            lines.append(f"- the price of pairs, {n} candidates, relative to {name}: {ratios}")
    return lines


def _products_lines(part: Part) -> list[str]:
    lines = []
    for dtype, products in part.products.items():
        shapes = ", ".join(f"{rows} x {length}" for rows, length in products["shapes"])
        lines.append(
            f"- bare products, {dtype}, batches of {shapes}: {products['rate'] / 1e9:.0f} GFLOP/s, in the linear "
            f"layers alone {products['linear_rate'] / 1e9:.0f}"
        )
    for dtype, profile in part.profiles.items():
        shares = ", ".join(f"{name} {share:.0%}" for name, share in profile.items() if share >= 0.005)
        lines.append(f"- where the time of our full ranking goes, {dtype}: {shares}")
    return lines


def _agreement(agreement: dict[str, Any]) -> str:
    of = agreement["prompts"]
    lines = [f"- {name}: {same} of {of} prompts" for name, same in agreement.get("same", {}).items()]
    lines += [f"- not available: {name}: {why}" for name, why in agreement.get("failures", {}).items()]
    return "\n".join([f"{agreement['candidates']} candidates, against {REFERENCE}.", "", *lines])


def _details(part: Part) -> dict[str, Any]:
    """Return what the tables of a part do not show."""
    seconds = {f"{name}, {n} candidates": cell.times for (n, name), cell in part.cells.items()}
    return {"part": part.title, "seconds": seconds, "products": part.products, "profiles": part.profiles}
