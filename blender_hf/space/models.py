"""The checkpoints of the page: only those that it offers, each loaded once, when it is first needed."""

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from blender_hf.blender import Blender, load_fuser_of
from blender_hf.engine.fusion import ItemFuser
from blender_hf.engine.rankers import Ranker
from blender_hf.errors import InputError
from blender_hf.generation.local import LocalModel
from blender_hf.generation.specs import LocalLLM
from blender_hf.loading.checkpoints import BUNDLED_LLM, DEFAULT_FUSER, DEFAULT_OPTIONS, DEFAULT_RANKER

Loaded = TypeVar("Loaded")


class Models:
    """Rankers and fusers by name.

    Args:
        rankers: Names of the rankers that may be loaded, the default first.
        fusers: Names of the fusers that may be loaded, the default first; "chat:MODEL" is a chat model.

    `lock` is held by whoever runs a model: visitors take turns, prompt by prompt.
    """

    def __init__(self, rankers: Sequence[str] = (DEFAULT_RANKER,), fusers: Sequence[str] = (DEFAULT_FUSER,)) -> None:
        self.rankers = tuple(rankers)
        self.fusers = tuple(fusers)
        self.lock = threading.Lock()
        self._loading = threading.Lock()
        self._rankers: dict[str, Ranker] = {}
        self._fusers: dict[str, ItemFuser] = {}
        self._llms: dict[str, LocalModel] = {}

    def ranker(self, name: str | None = None) -> Ranker:
        """Return a ranker, a pair ranker or a reward model, by default the first.

        Raises:
            InputError: If it is not offered here.
            CheckpointError: If it can't be loaded.
        """
        return self._get(name, self.rankers, self._rankers, _ranker)

    def fuser(self, name: str | None = None) -> ItemFuser:
        """Return a fuser, by default the first; everything is as in `ranker`."""
        return self._get(name, self.fusers, self._fusers, _fuser)

    def small_llm(self) -> LocalModel:
        """Return the bundled language model."""
        return self._get(BUNDLED_LLM, (BUNDLED_LLM,), self._llms, lambda name: LocalModel(LocalLLM(name)))

    def _get(
        self, name: str | None, offered: Sequence[str], loaded: dict[str, Loaded], load: Callable[[str], Loaded]
    ) -> Loaded:
        name = name or offered[0]
        # A name from outside could be any folder or repository, so only those that were chosen for the page are opened.
        if name not in offered:
            raise InputError(f"the checkpoint {name!r} is not offered here; use one of {', '.join(offered)}")
        with self._loading:
            if name not in loaded:
                loaded[name] = load(name)
            return loaded[name]


def _ranker(name: str) -> Ranker:
    return Blender.from_pretrained(name, None).ranker


def _fuser(name: str) -> ItemFuser:
    return load_fuser_of(name, None, DEFAULT_OPTIONS)
