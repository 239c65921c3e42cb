"""The best single model: a rule that knows no text, only which models win more often elsewhere."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from blender_hf.data.labelled import UNKNOWN, LabelledPrompt, win_shares

from .judges import ScoresJudge

# What is to be expected of a model that nothing is known of.
UNKNOWN_STRENGTH = 0.5


@dataclass
class _Record:
    """Shares of pairs won, and on how many prompts."""

    won: float = 0.0
    prompts: int = 0

    def without(self, won: float, prompts: int) -> float:
        rest = self.prompts - prompts
        return (self.won - won) / rest if rest else UNKNOWN_STRENGTH


@dataclass
class ModelStrengths:
    """How often each model wins, learnt from labelled prompts.

    Args:
        prompts: The prompts to learn from.
    """

    prompts: Sequence[LabelledPrompt]
    _records: dict[str, _Record] = field(default_factory=lambda: defaultdict(_Record), init=False)

    def __post_init__(self) -> None:
        for prompt in self.prompts:
            for model, won, n in _results(prompt):
                self._records[model].won += won
                self._records[model].prompts += n

    def scores(self, prompt: LabelledPrompt) -> tuple[float, ...] | None:
        """Return the strength of each candidate's model on the other prompts; None if no model has a name."""
        if not any(_names(prompt)):
            return None
        own: dict[str, tuple[float, int]] = {}
        for model, won, n in _results(prompt):
            before = own.get(model, (0.0, 0))
            own[model] = (before[0] + won, before[1] + n)
        return tuple(self._strength(model, own) for model in _names(prompt))

    def _strength(self, model: str | None, own: dict[str, tuple[float, int]]) -> float:
        if model is None or model not in self._records:
            return UNKNOWN_STRENGTH
        return round(self._records[model].without(*own.get(model, (0.0, 0))), 12)


def best_model_judge(prompts: Sequence[LabelledPrompt]) -> ScoresJudge:
    """Return the rule that the answer of the model that wins more often is better.

    How often a model wins is taken from the other prompts, so that no prompt tells its own answer.

    Args:
        prompts: The labelled prompts that will be asked about; their texts are not needed.
    """
    strengths = ModelStrengths(prompts)
    return ScoresJudge(lambda asked: [strengths.scores(prompt) for prompt in asked])


def _results(prompt: LabelledPrompt) -> list[tuple[str, float, int]]:
    """Return the model, the share of pairs won, and 1, for each judged candidate whose model has a name."""
    shares = zip(_names(prompt), win_shares(prompt), strict=True)
    return [(model, share, 1) for model, share in shares if model is not None and share is not None]


def _names(prompt: LabelledPrompt) -> list[str | None]:
    return [None if model == UNKNOWN else model for model in prompt.models]
