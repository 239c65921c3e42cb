"""Candidates from several language models: for each prompt, the answers and the failures."""

from collections import Counter, defaultdict
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, overload

from huggingface_hub.utils import tqdm

from blender_hf.engine.streaming import windowed
from blender_hf.errors import GenerationError
from blender_hf.inputs import Candidate, Item, Prompt, unwrapped
from blender_hf.logs import OWN

from .models import LanguageModel, PendingRequests, load_model
from .outcomes import Failure, Outcome, Reply
from .prompts import prompt_item, prompt_items
from .sampling import Sampling, as_sampling
from .specs import LLMInput, as_llms

# How many prompts are worked on together: enough to keep servers busy, few enough for a steady stream of results.
DEFAULT_WINDOW = 16


@dataclass(frozen=True)
class GeneratedCandidate(Candidate):
    """A candidate that was generated here, with the fields of `Candidate`."""

    truncated: bool = False  # whether it reached `max_new_tokens` before its end

    @property
    def fields(self) -> dict[str, Any]:
        """It as the fields of a record."""
        return {**super().fields, "truncated": self.truncated}


@dataclass(frozen=True)
class Generated:
    """A prompt with the candidates of several language models.

    Args:
        prompt: The prompt as given, a string or chat messages.
        candidates: Those that were given with the prompt, then those of each language model in turn.
        failures: The models that gave no answer, and why.
        instruction: What to do with the prompt, if stated separately.
        where: How messages name the prompt.
    """

    prompt: Prompt
    candidates: tuple[Candidate, ...]
    failures: tuple[Failure, ...]
    instruction: str | None = None
    where: str = field(default="the prompt", repr=False)

    @property
    def item(self) -> Item:
        """The item that `Blender.iter_rank` and `iter_blend` take."""
        if not self.candidates:
            reasons = "; ".join(f"{failure.model}: {failure.reason}" for failure in self.failures)
            raise GenerationError(f"{self.where}: no language model answered ({reasons})")
        return prompt_item(self.prompt, self.instruction, self.candidates, where=self.where)

    def to_dict(self) -> dict[str, Any]:
        """Return a record that `blender-hf blend` reads, with `failures`."""
        prompt = {"prompt": self.prompt} if isinstance(self.prompt, str) else {"messages": [*map(dict, self.prompt)]}
        instruction = {} if self.instruction is None else {"instruction": self.instruction}
        return {
            **prompt,
            **instruction,
            "candidates": [candidate.fields for candidate in self.candidates],
            "failures": [vars(failure) for failure in self.failures],
        }


class CandidateWriter:
    """Several language models that answer the same prompts.

    Args:
        llms: The models; see `as_llm`. Local ones are loaded at once, and stay loaded.
        sampling: How they generate.

    Raises:
        CheckpointError: If a local model can't be loaded.
        InputError: If the name of a model can't be read, two have the same name, or a token is missing.
    """

    def __init__(self, llms: Sequence[LLMInput], sampling: Sampling | Mapping[str, Any] | None = None) -> None:
        self.sampling = as_sampling(sampling)
        self.models = [load_model(llm) for llm in as_llms(llms)]

    @property
    def given_up(self) -> dict[str, str]:
        """The models that are not asked for now, and why."""
        return {model.name: model.given_up for model in self.models if model.given_up is not None}

    def iter(self, prompts: Iterable[Item], window: int = DEFAULT_WINDOW) -> Generator[Generated, None, None]:
        """Answer prompts from any iterable, lazily and in order, with constant memory.

        A window of prompts is worked on together; servers are asked for the next one while local models work on this.
        A model writes only as many candidates as a prompt lacks of it. Left early, the iterator cancels the pending
        requests.
        """
        remote = [model for model in self.models if not model.runs_here]
        local = [model for model in self.models if model.runs_here]
        pending = PendingRequests()

        def ask(batch: Sequence[Item]) -> list["_WindowAnswers"]:
            return [_WindowAnswers(pending, model, batch, self.sampling) for model in remote]

        def collect(batch: Sequence[Item], asked: list["_WindowAnswers"]) -> list[Generated]:
            here = [_WindowAnswers(pending, model, batch, self.sampling) for model in local]
            outcomes = {answers.model: answers.result() for answers in (*asked, *here)}
            written = [outcomes[model.name] for model in self.models]
            return [_generated(item, [of_model[i] for of_model in written]) for i, item in enumerate(batch)]

        return pending.during(windowed(prompts, ask, collect, window))


class _WindowAnswers:
    """The pending answers of one model to a window of prompts."""

    def __init__(self, pending: PendingRequests, model: LanguageModel, batch: Sequence[Item], sampling: Sampling):
        self.model = model.name
        self._size = len(batch)
        missing = [sampling.n - Counter(c.model for c in item.candidates)[model.name] for item in batch]
        by_number: dict[int, list[int]] = defaultdict(list)
        for index, number in enumerate(missing):
            if number > 0:
                by_number[number].append(index)
        self._asked = [
            (indices, pending.start(model, [batch[i].messages for i in indices], replace(sampling, n=number)))
            for number, indices in by_number.items()
        ]

    def result(self) -> list[list[tuple[str, Outcome]]]:
        """Wait; return for each prompt the outcomes, each with the name of the model."""
        found: list[list[tuple[str, Outcome]]] = [[] for _ in range(self._size)]
        for indices, future in self._asked:
            for index, outcomes in zip(indices, future.result(), strict=True):
                found[index] = [(self.model, outcome) for outcome in outcomes]
        return found


@overload
def generate(  # type: ignore[overload-overlap]  # a string is an iterable of strings, too
    prompts: str | Sequence[Mapping[str, Any]],
    llms: Sequence[LLMInput],
    *,
    instructions: str | None = None,
    n: int = 1,
    max_new_tokens: int = 512,
    temperature: float | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    progress: bool = False,
) -> Generated: ...


@overload
def generate(
    prompts: Iterable[Prompt],
    llms: Sequence[LLMInput],
    *,
    instructions: Sequence[str | None] | None = None,
    n: int = 1,
    max_new_tokens: int = 512,
    temperature: float | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    progress: bool = False,
) -> list[Generated]: ...


def generate(
    prompts: Prompt | Iterable[Prompt],
    llms: Sequence[LLMInput],
    *,
    instructions: str | Sequence[str | None] | None = None,
    n: int = 1,
    max_new_tokens: int = 512,
    temperature: float | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    progress: bool = False,
) -> Generated | list[Generated]:
    """Let several language models answer each prompt.

    Args:
        prompts: A prompt (a string or chat messages), or a list of prompts.
        llms: The language models: a Hub id or a folder is a local one, "http://host:8000/v1#model" a server's,
            "providers:org/model" one of Inference Providers; or `LocalLLM`, `RemoteLLM` and clients.
        instructions: What to do with the prompt, if stated separately; for a list, one for each prompt.
        n: Answers of each model to a prompt.
        max_new_tokens: Most tokens of an answer.
        temperature: 0 is greedy; None is the default of the model or its server.
        top_p: Sample from the likeliest tokens whose probabilities add up to this.
        seed: Random seed, as far as the model or its server supports one.
        progress: Whether to show a progress bar on stderr.

    Returns:
        A `Generated`, or a list of them. Its `candidates` are what `Blender` takes; a model that fails costs no other,
        and is named in `failures` with the reason.

    Raises:
        InputTypeError: If something has the wrong type.
        InputError: If an option or the name of a model can't be used.
        CheckpointError: If a local model can't be loaded.
    """
    sampling = Sampling(n, max_new_tokens, temperature, top_p, seed)
    items, single = prompt_items(prompts, instructions)
    writer = CandidateWriter(llms, sampling)
    return unwrapped(writer.iter(tqdm(items, unit="prompt", disable=not progress, name=OWN)), single)


def _generated(item: Item, written: Sequence[Sequence[tuple[str, Outcome]]]) -> Generated:
    outcomes = [outcome for of_model in written for outcome in of_model]
    new = tuple(
        GeneratedCandidate(reply.text, model, reply.messages, reply.truncated)
        for model, reply in outcomes
        if isinstance(reply, Reply)
    )
    # Several answers of one model that fail for the same reason say so once.
    failures = tuple(dict.fromkeys(failure for _, failure in outcomes if isinstance(failure, Failure)))
    return Generated(item.prompt, (*item.candidates, *new), failures, item.instruction, item.where)
