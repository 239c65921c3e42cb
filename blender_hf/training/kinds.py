"""What can be trained, as a table: the settings, the trainer's arguments and the training of each kind."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import Seq2SeqTrainingArguments

from .gen_fuser import train_fuser
from .pair_ranker import train_ranker
from .ranker_trainer import PairRankerTrainingArguments
from .reward_model import reward_config, train_reward_model
from .settings import FuserSettings, RankerSettings, RewardModelSettings


@dataclass(frozen=True)
class Kind:
    """A kind of model.

    Args:
        settings: The dataclass of its settings.
        arguments: Returns the dataclass of its trainer's arguments; an extra may be missing.
        train: Trains one from both and a `Run`.
    """

    settings: type
    arguments: Callable[[], type]
    train: Callable[..., Any]


KINDS = {
    "ranker": Kind(RankerSettings, lambda: PairRankerTrainingArguments, train_ranker),
    "fuser": Kind(FuserSettings, lambda: Seq2SeqTrainingArguments, train_fuser),
    "reward-model": Kind(RewardModelSettings, reward_config, train_reward_model),
}
