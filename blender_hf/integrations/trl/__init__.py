"""A ranker in the trainers of TRL: as a reward, as a judge, and as a measure of progress.

`pairwise_reward` is a reward function of `GRPOTrainer`, `RLOOTrainer` and the online DPO trainer; `PairRMJudge` is the
judge that TRL had; `WinRateCallback` reports how often a model in training beats what it was before.
"""

from .judge import PairRMJudge
from .reward import PairwiseReward, pairwise_reward
from .win_rate import WinRateCallback

__all__ = ["PairRMJudge", "PairwiseReward", "WinRateCallback", "pairwise_reward"]
