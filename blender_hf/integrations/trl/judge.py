"""`PairRMJudge`: the judge that TRL had until it dropped llm-blender, with the same signature."""

from collections.abc import Sequence
from typing import Any

from blender_hf.errors import InputError
from blender_hf.loading.checkpoints import DEFAULT_RANKER
from blender_hf.modeling.ranking_math import probability_of

from .inputs import LazyBlender, RankerInput, completion_text


class PairRMJudge:
    """Decides which of two completions is better; the order in which they are given changes nothing.

    Args:
        ranker: A `Blender`, or the name, folder or Hub id of a ranker, such as `llm-blender/PairRM-hf`; loaded when
            first used.
        **options: Options of `Blender.from_pretrained` for a ranker that is a name.
    """

    def __init__(self, ranker: RankerInput = DEFAULT_RANKER, **options: Any) -> None:
        self._blender = LazyBlender(ranker, **options)

    def judge(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Sequence[Any]],
        shuffle_order: bool = True,
        return_scores: bool = False,
        temperature: float = 1.0,
    ) -> list[int] | list[float]:
        """Judge a pair of completions for each prompt.

        Args:
            prompts: Strings, or lists of messages.
            completions: Two completions per prompt, strings or lists of messages.
            shuffle_order: No effect, since both presentation orders are scored; accepted for compatibility.
            return_scores: Return probabilities instead of indices.
            temperature: Divides logits before the sigmoid; above 0. TRL's judge applied it to the difference of two
                scores, which is twice our logit: its numbers are those of `temperature=0.5`.

        Returns:
            For each prompt the index, 0 or 1, of the better completion, 0 for a tie; or, with `return_scores`, the
            probability, 0 to 1, that the first is better.

        Raises:
            InputError: If there are not two completions for each prompt, or the temperature is not above 0.
        """
        if not temperature > 0:
            raise InputError(f"temperature={temperature}; use a number above 0")
        first, second = _columns(prompts, completions)
        comparisons = self._blender.get().compare(list(prompts), first, second)
        if return_scores:
            return [probability_of(comparison.logit, temperature) for comparison in comparisons]
        return [1 if comparison.logit < 0 else 0 for comparison in comparisons]


def _columns(prompts: Sequence[Any], completions: Sequence[Sequence[Any]]) -> tuple[list[str], list[str]]:
    if isinstance(prompts, str) or len(prompts) != len(completions):
        raise InputError(f"give a pair of completions for each of the {len(prompts)} prompts, not {len(completions)}")
    for row, pair in enumerate(completions):
        if isinstance(pair, str) or len(pair) != 2:
            raise InputError(f"prompt {row}: the judge compares exactly 2 completions; there are {len(pair)}")
    texts = [[completion_text(text, f"prompt {row}") for text in pair] for row, pair in enumerate(completions)]
    return [pair[0] for pair in texts], [pair[1] for pair in texts]
