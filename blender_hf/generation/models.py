"""Any language model behind one interface, wherever it runs."""

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Protocol

from .chat import Messages
from .outcomes import Outcome
from .remote import RemoteModel
from .sampling import Sampling
from .specs import RemoteLLM, as_llm


class LanguageModel(Protocol):
    """What writes answers: a `LocalModel` or a `RemoteModel`.

    Args:
        name: What its candidates are called.
    """

    name: str

    @property
    def given_up(self) -> str | None:
        """Why it is not asked now, or None."""
        ...

    def start(self, requests: Sequence[Messages], sampling: Sampling) -> "Future[list[tuple[Outcome, ...]]]":
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
    if isinstance(found, RemoteLLM):
        return RemoteModel(found)
    # It loads torch, for which nobody waits who only asks servers.
    from .local import LocalModel

    return LocalModel(found)
