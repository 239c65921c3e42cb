"""The settings of a judge."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from blender_hf.engine.scorer import Presentation
from blender_hf.errors import InputError, InputTypeError, chosen

from .questions import Question, Template, as_criteria, load_template, recipe_of
from .verdict_formats import VERDICT_FORMATS, VerdictFormat

# In the order in which they are tried.
WAYS = ("decisions", "systemone", "logprobs", "verdict")
ON_UNREADABLE = ("error", "tie")


@dataclass(frozen=True)
class JudgeSettings:
    """How a judge is asked, what it may cost, and where its answers are kept.

    Args:
        criteria: What makes an answer better, as a question such as "Which answer is more concise?"; of several, each
            is asked for by itself, and the logit is their mean. None asks what serves the author of the request.
        template: A name of `questions.TEMPLATES`, a .jinja file or a `Template`; None is that of the model.
        ask: At a server, one of `WAYS`; None tries them in that order, once.
        verdicts: With `ask="verdict"`, the form of the verdict, one of `verdict_formats.VERDICT_FORMATS`; None is that
            of the model, else "brackets".
        on_unreadable: Whether a refusal, or a reply without a verdict, is an "error" or a "tie"; it is counted.
        max_comparisons: How many questions may be asked that the cache can't answer: one for each order of a pair and
            each criterion. None is any number.
        cache: A file that keeps every answer, so that none is asked for twice; True is one in the cache folder of the
            Hub, False keeps none. None is True for a server and False for a model that runs here.
        max_new_tokens: Most tokens of a verdict, thoughts included.
        logit_temperature: Divides a logit before its sigmoid is taken as a probability; `calibrate` fits it.

    Raises:
        InputError: If an option does not exist or is out of range.
    """

    criteria: str | Sequence[str] | None = None
    template: str | Path | Template | None = None
    ask: str | None = None
    verdicts: str | None = None
    on_unreadable: str = "error"
    max_comparisons: int | None = None
    cache: str | Path | bool | None = None
    max_new_tokens: int = 2048
    logit_temperature: float = 1.0

    def __post_init__(self) -> None:
        as_criteria(self.criteria)
        if self.template is not None:
            load_template(self.template)
        for value, table, what in (
            (self.ask, WAYS, "way to ask"),
            (self.verdicts, VERDICT_FORMATS, "form of a verdict"),
            (self.on_unreadable, ON_UNREADABLE, "on_unreadable"),
        ):
            if value is not None:
                chosen(dict.fromkeys(table), value, what)
        if self.max_comparisons is not None and not _is_whole(self.max_comparisons, 0):
            raise InputError(f"max_comparisons={self.max_comparisons!r}; use a whole number, or None for any number")
        if not _is_whole(self.max_new_tokens, 1):
            raise InputError(f"max_new_tokens={self.max_new_tokens!r}; use a whole number of 1 or more")
        temperature = self.logit_temperature
        if isinstance(temperature, bool) or not isinstance(temperature, int | float) or not 0 < temperature < 1e6:
            raise InputError(f"logit_temperature={temperature!r}; use a number above 0")

    def cache_file(self, *, remote: bool) -> Path | None:
        """Return the file of answers, or None."""
        if self.cache is False or (self.cache is None and not remote):
            return None
        if self.cache is None or self.cache is True:
            from huggingface_hub.constants import HF_HOME

            return Path(HF_HOME) / "blender-hf" / "judgments.sqlite"
        return Path(self.cache)


class Inquiry:
    """How a particular model is asked: its template and criteria.

    Args:
        model: Its name.
        settings: The settings of the judge.
    """

    def __init__(self, model: str, settings: JudgeSettings) -> None:
        recipe = recipe_of(model)
        self.template = load_template(settings.template or recipe.template)
        self.criteria = as_criteria(settings.criteria)
        self.verdicts = settings.verdicts or recipe.verdicts
        self.ask = settings.ask or recipe.ask
        if settings.criteria is not None and self.template.name in ("rlhflow", "gram"):
            raise InputError(
                f"{model}: criteria= has no place in the template {self.template.name}, which the model was trained "
                "with; leave it out"
            )

    @property
    def form(self) -> VerdictFormat:
        """The form of its verdicts."""
        return VERDICT_FORMATS[self.verdicts]

    def questions(self, presentation: Presentation) -> list[Question]:
        """Return the questions about a presentation, one for each criterion."""
        return [Question(presentation, criterion, self.template) for criterion in self.criteria]


def as_settings(value: "JudgeSettings | Mapping[str, Any] | None") -> JudgeSettings:
    """Return settings, given as such or as a mapping."""
    if isinstance(value, JudgeSettings):
        return value
    if value is not None and not isinstance(value, Mapping):
        raise InputTypeError(f"the settings of a judge are a mapping, not {type(value).__name__}")
    names = [field.name for field in fields(JudgeSettings)]
    if unknown := sorted(str(name) for name in value or {} if name not in names):
        raise InputError(f"a judge has no setting {', '.join(unknown)}; it has {', '.join(names)}")
    return JudgeSettings(**(value or {}))


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
