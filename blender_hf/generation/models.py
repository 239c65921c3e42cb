"""Any language model behind one interface, wherever it runs."""

from collections.abc import Sequence
from typing import Any, Protocol

from blender_hf.modeling.tokenization import Message

from .outcomes import Answers
from .sampling import Sampling
from .specs import RemoteLLM, as_llm


class LanguageModel(Protocol):
    """What writes answers: a `LocalModel` or a `RemoteModel`.

    Args:
        name: What its candidates are called.
        runs_here: Whether `start` does all of the work, and returns when it is done.
    """

    name: str
    runs_here: bool

    @property
    def given_up(self) -> str | None:
        """Why it is not asked now, or None."""
        ...

    def start(self, requests: Sequence[Sequence[Message]], sampling: Sampling) -> Answers:
        """Begin to answer conversations; the future has `n` replies or failures for each."""
        ...


def load_model(llm: Any) -> LanguageModel:
    """Return a language model that can be asked.

    Args:
        llm: Any that `as_llm` takes.

    Returns:
        The model; one that runs here is loaded, one elsewhere is not asked yet.

    Raises:
        CheckpointError: If a local one can't be loaded.
        InputError: If it can't be read which model is meant, or a token is missing.
        BlenderError: If a package that is needed is not installed.
    """
    found = as_llm(llm)
    # Each brings libraries for which nobody should wait who has no use for them.
    if isinstance(found, RemoteLLM):
        from .remote import RemoteModel

        return RemoteModel(found)
    from .local import LocalModel

    return LocalModel(found)
