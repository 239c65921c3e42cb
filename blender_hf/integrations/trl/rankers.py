"""The ranker of an integration: given, or loaded when it is first used."""

from inspect import signature
from pathlib import Path
from typing import Any

from blender_hf.blender import Blender
from blender_hf.errors import InputError
from blender_hf.loading.checkpoints import DEFAULT_RANKER

RankerInput = Blender | str | Path


class LazyBlender:
    """A blender that is loaded when it is first needed: in the process that trains, on the device that is its own.

    What is pickled is the name alone, so it can be sent to other processes.

    Args:
        ranker: A blender, or the bundled name, folder or Hub id of a ranker, of pairs or a reward model.
        **options: Options of `Blender.from_pretrained`, for a name.

    Raises:
        InputError: If there are options for a blender that is loaded already.
        TypeError: If there is no such option.
    """

    def __init__(self, ranker: RankerInput = DEFAULT_RANKER, **options: Any) -> None:
        if isinstance(ranker, Blender) and options:
            raise InputError(f"{', '.join(options)}: options are for a ranker that is loaded here, not for a Blender")
        signature(Blender.from_pretrained).bind(ranker, None, **options)  # a misspelt one fails before the long work
        self._given = ranker if isinstance(ranker, Blender) else None
        self._name, self._options = ranker, options
        self._loaded: Blender | None = None

    def get(self) -> Blender:
        """Return the blender.

        Raises:
            CheckpointError: If the ranker can't be found or is not whole.
        """
        if self._given is not None:
            return self._given
        if self._loaded is None:
            self._loaded = Blender.from_pretrained(self._name, None, **self._options)
        return self._loaded

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None}
