"""What the command `generate` says at its end."""

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING, Any

from blender_hf.errors import BlenderError

if TYPE_CHECKING:
    from blender_hf.generation.candidates import Generated
    from blender_hf.generation.records import PromptRecord


class Tally:
    """What became of the prompts, for the summary.

    Args:
        names: The models.
        already: How many records an earlier run has written.
    """

    def __init__(self, names: list[str], already: int) -> None:
        self._started = time.monotonic()
        self.already = already
        self.written = 0
        self.unanswered: list[str | int] = []
        self.models: dict[str, dict[str, Any]] = {
            name: {"candidates": 0, "truncated": 0, "failures": 0, "reasons": {}} for name in names
        }

    def count(self, record: "PromptRecord", generated: "Generated") -> None:
        """Add what became of a prompt."""
        for candidate in generated.candidates[len(record.item.candidates) :]:
            self.models[candidate.model]["candidates"] += 1
            self.models[candidate.model]["truncated"] += candidate.truncated
        for failure in generated.failures:
            model = self.models[failure.model]
            model["failures"] += 1
            model["reasons"][failure.reason] = model["reasons"].get(failure.reason, 0) + 1
        if generated.candidates:
            self.written += 1
        else:
            self.unanswered.append(record.id)

    def report(self, options: argparse.Namespace) -> None:
        """Print the summary.

        Raises:
            BlenderError: If a prompt got no candidate.
        """
        seconds = round(time.monotonic() - self._started, 3)
        parts = [f"{self.written} prompts answered in {seconds:.1f} s"]
        parts += [f"{self.already} were answered before"] if self.already else []
        parts += [_of_model(name, model) for name, model in self.models.items()]
        sys.stderr.write(f"blender-hf: {'; '.join(parts)}\n")
        if options.json:
            counted = {"written": self.written, "already": self.already, "unanswered": len(self.unanswered)}
            summary = {**counted, "seconds": seconds, "models": self.models, "output": options.output}
            sys.stdout.write(json.dumps(summary, ensure_ascii=False) + "\n")
        if self.unanswered:
            reasons = {name: next(iter(model["reasons"]), "no answer") for name, model in self.models.items()}
            raise BlenderError(
                f"no language model answered the prompt {self.unanswered[0]!r} ({_listed(reasons)}); prompts without a "
                "candidate are not in the output, and are asked for again when the command is run again"
            )


def _of_model(name: str, model: dict[str, Any]) -> str:
    text = f"{name}: {model['candidates']} candidates"
    text += f" ({model['truncated']} truncated)" if model["truncated"] else ""
    if model["failures"]:
        reason = max(model["reasons"], key=model["reasons"].get)
        text += f", {model['failures']} failures ({reason})"
    return text


def _listed(reasons: dict[str, str]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
