"""`pairwise_reward`: the completions of a prompt play each other, or a reference, and the logits are the rewards."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from blender_hf.engine.rewards import SCALES
from blender_hf.errors import InputError, chosen
from blender_hf.loading.checkpoints import DEFAULT_RANKER

from .inputs import LazyBlender, RankerInput, completion_text, gathered, prompt_key


def pairwise_reward(
    ranker: RankerInput = DEFAULT_RANKER,
    *,
    reference: str | Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    reference_column: str | None = None,
    scale: str = "logit",
    name: str = "pairwise_reward",
    **options: Any,
) -> "PairwiseReward":
    """Make a reward function for TRL's `GRPOTrainer`, `RLOOTrainer` or online DPO trainer.

    Without a reference, the completions of a prompt play each other, in both orders, and each gets its mean logit
    against the others. Completions of equal prompts are a group, wherever they stand; where a group is spread over
    several processes, its texts are exchanged, so a reward does not depend on how many processes there are.

    Args:
        ranker: A `Blender`, or the name, folder or Hub id of a ranker or a reward model, which each process loads on
            its own device for the first rewards, with full weights even under ZeRO-3 or FSDP.
        reference: What all completions play instead: a string, a chat message, or a list of them.
        reference_column: Instead, the column of the dataset with what the completions of a prompt play.
        scale: "logit", "probability" or "llm-blender", as in `Blender.reward`. A tie is 0, or 0.5 as a probability.
        name: Under which trainers log the reward.
        **options: Options of `Blender.from_pretrained` for a ranker that is a name: `device`, `dtype`, ...; with
            `length_neutral=True` the preference that a ranker states for answers that say more is left out.

    Returns:
        The reward function, which can be pickled.

    Raises:
        InputError: If both references are given, or there is no such scale, or the reference can't be read.
        InputTypeError: If the reference is neither a string nor chat messages.
    """
    chosen(SCALES, scale, "scale")
    if reference is not None and reference_column is not None:
        raise InputError("give reference=, one answer for all, or reference_column=, one for each prompt; not both")
    text = None if reference is None else completion_text(reference, "the reference")
    return PairwiseReward(LazyBlender(ranker, **options), text, reference_column, scale, name)


class PairwiseReward:
    """A reward function with the signature of TRL; see `pairwise_reward`, which makes it."""

    def __init__(
        self, blender: LazyBlender, reference: str | None, reference_column: str | None, scale: str, name: str
    ) -> None:
        self.__name__ = name
        self._blender = blender
        self._reference = reference
        self._column = reference_column
        self._scale = scale

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
        """Return a reward for each completion.

        In a distributed run every process must call it, as trainers do.

        Args:
            prompts: The prompt of each completion: a string, or messages.
            completions: Strings, or messages, of which the assistant's count.
            **columns: The other columns, a value for each completion, and whatever else a trainer passes.

        Returns:
            One number a completion, in their order; higher is better.

        Raises:
            InputError: If lists differ in length, or there is no column for the reference.
            InputTypeError: If a prompt, a completion or a reference is not text.
        """
        if len(prompts) != len(completions):
            raise InputError(f"{len(prompts)} prompts and {len(completions)} completions: give a prompt for each")
        texts = [completion_text(completion, f"completion {n}") for n, completion in enumerate(completions)]
        if self._reference is None and self._column is None:
            return self._tournaments(prompts, texts)
        references = self._references(columns, len(texts))
        duels = [[text] for text in texts]
        rewards = self._blender.get().reward(list(prompts), duels, reference=references, scale=self._scale)
        return [reward for (reward,) in rewards]

    def _tournaments(self, prompts: Sequence[Any], texts: Sequence[str]) -> list[float]:
        own, groups = groups_of([Contestant(prompt, text) for prompt, text in zip(prompts, texts, strict=True)])
        rewards = self._blender.get().group_reward(
            [group[0].prompt for group in groups.values()],
            [[contestant.text for contestant in group] for group in groups.values()],
            scale=self._scale,
        )
        by_group = dict(zip(groups, rewards, strict=True))
        return [by_group[place.group][place.position] for place in own]

    def _references(self, columns: Mapping[str, Any], n: int) -> list[str]:
        if self._column is None:
            return [self._reference or ""] * n
        if self._column not in columns:
            raise InputError(
                f"there is no column {self._column!r} for the reference; the dataset has {', '.join(columns)}"
            )
        values = columns[self._column]
        if isinstance(values, str) or len(values) != n:
            raise InputError(f"the column {self._column!r} must have a text for each of the {n} completions")
        return [completion_text(value, f"{self._column} {row}") for row, value in enumerate(values)]


class Contestant(NamedTuple):
    """A completion as a string, with its prompt."""

    prompt: Any
    text: str


class Place(NamedTuple):
    """Where a completion stands: the key of its group, and its position in it."""

    group: str
    position: int


def groups_of(contestants: Sequence[Contestant]) -> tuple[list[Place], dict[str, list[Contestant]]]:
    """Group the completions of equal prompts, across all processes.

    Returns the places of this process's completions, and the groups that they are in.
    """
    groups: dict[str, list[Contestant]] = {}
    own: list[Place] = []
    for is_own, share in gathered(contestants):
        for contestant in share:
            key = prompt_key(contestant.prompt)
            group = groups.setdefault(key, [])
            if is_own:
                own.append(Place(key, len(group)))
            group.append(contestant)
    wanted = {place.group for place in own}
    return own, {key: group for key, group in groups.items() if key in wanted}
