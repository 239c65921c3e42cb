"""A preference for the candidate that says more: a term of the logit that is stated, not learnt.

Whoever judges answers, people and models alike, likes those that say more. A ranker that represents a candidate by the
mean over its tokens hardly sees how much there is of it, and one that was taught to see through padding and loops has
unlearnt to like it. Distinct tokens are what a candidate gains by saying more, and does not by repeating itself.
"""

import torch

from .symmetry import spans_of


def lead_in_distinct_tokens(input_ids: torch.Tensor, real: torch.Tensor, markers: tuple[int, int, int]) -> torch.Tensor:
    """Return by how much more distinct tokens the first candidate has, as a share of those of both.

    Args:
        input_ids: (batch, length). Pairs.
        real: (batch, length), boolean. Which tokens are no padding.
        markers: Ids of the tokens in front of the prompt and the two candidates.

    Returns:
        (batch,), float32, in (-1, 1): (n1 - n2) / (n1 + n2). Swapping the candidates negates it exactly.
    """
    _, *candidates = spans_of(input_ids, real, markers)
    counts = [_count_distinct(input_ids, span).float() for span in candidates]
    return (counts[0] - counts[1]) / (counts[0] + counts[1])


def _count_distinct(input_ids: torch.Tensor, span: torch.Tensor) -> torch.Tensor:
    """Count the distinct ids in each row of a span, (batch,).

    Sorted, each new one is a step up; there is always something outside the span, which sorts below all ids.
    """
    ordered = torch.where(span, input_ids, -1).sort(dim=1).values
    return (ordered[:, 1:] != ordered[:, :-1]).sum(dim=1)
