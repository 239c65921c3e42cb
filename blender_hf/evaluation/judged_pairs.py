"""What each ranker says of each judged pair, as rows of a file."""

from collections.abc import Iterator, Mapping
from typing import Any

from blender_hf.data.labelled import LabelledPrompt

from .measuring import evidence_of
from .pairwise import credits
from .predictors import Prediction


def pair_rows(prompt: LabelledPrompt, predictions: Mapping[str, Prediction | None]) -> Iterator[dict[str, Any]]:
    """Yield a row for each judged pair of a prompt.

    A row names the prompt, its candidates `a` and `b` by index, and the label: the probability, 0 to 1, that a is
    better. `rankers` has for each ranker, by name, the `logit`, positive if a is better, and the `credit`, 1 if it
    agrees with the label, 0 if not, 0.5 for no preference, None for a pair that is a tie.
    """
    for pair in prompt.pairs:
        found = {}
        for name, prediction in predictions.items():
            if prediction is not None:
                logit = evidence_of(pair, prediction).logit
                found[name] = {"logit": logit + 0.0, "credit": credits([logit], [pair.label])[0]}  # no -0.0
        yield {
            "id": prompt.id,
            "source": prompt.source,
            "lang": prompt.lang,
            "a": pair.a,
            "b": pair.b,
            "models": [prompt.models[pair.a], prompt.models[pair.b]],
            "label": pair.label,
            "rankers": found,
        }
