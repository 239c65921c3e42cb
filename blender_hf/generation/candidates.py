"""Candidates from several language models: for each prompt the answers of all that gave one, and why others did not."""

from collections import Counter, defaultdict
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tqdm.auto import tqdm

from blender_hf.engine.windows import windowed
from blender_hf.errors import GenerationError
from blender_hf.inputs import Candidate, Item, Prompt

from .in_flight import InFlight
from .models import LanguageModel, load_model
from .outcomes import Failure, Outcome, Reply
from .prompts import prompt_item, prompt_items
from .sampling import Sampling, as_sampling
from .specs import as_llms

# How many prompts are worked on together: enough to keep servers busy, few enough that results come as they are made.
DEFAULT_WINDOW = 16


@dataclass(frozen=True)
class GeneratedCandidate(Candidate):
    """A candidate that was written here, with `text` and `model`.

    Args:
        truncated: Whether it reached `max_new_tokens` before its end.
    """

    truncated: bool = False


@dataclass(frozen=True)
class Generated:
    """A prompt with the candidates of several language models.

    Args:
        prompt: The prompt as it was given, a text or chat messages.
        candidates: In the order of the language models, after those that were given with the prompt.
        failures: The models that gave no answer, and why.
        instruction: What is to be done with the prompt, if it is stated apart from it.
        where: How messages name the prompt.
    """

    prompt: Prompt
    candidates: tuple[Candidate, ...]
    failures: tuple[Failure, ...]
    instruction: str | None = None
    where: str = field(default="the prompt", repr=False)

    @property
    def item(self) -> Item:
        """What `Blender.iter_rank` and `iter_blend` take.

        Raises:
            GenerationError: If no model gave an answer; the message says why.
        """
        if not self.candidates:
            reasons = "; ".join(f"{failure.model}: {failure.reason}" for failure in self.failures)
            raise GenerationError(f"{self.where}: no language model answered ({reasons})")
        return prompt_item(self.prompt, self.instruction, self.candidates, where=self.where)

    def to_dict(self) -> dict[str, Any]:
        """Return it as a record that `blender-hf blend` reads, with `failures` beside it."""
        prompt = {"prompt": self.prompt} if isinstance(self.prompt, str) else {"messages": [*map(dict, self.prompt)]}
        instruction = {} if self.instruction is None else {"instruction": self.instruction}
        return {
            **prompt,
            **instruction,
            "candidates": [*map(candidate_fields, self.candidates)],
            "failures": [vars(failure) for failure in self.failures],
        }


def candidate_fields(candidate: Candidate) -> dict[str, Any]:
    """Return a candidate as the fields of a record."""
    truncated = {"truncated": candidate.truncated} if isinstance(candidate, GeneratedCandidate) else {}
    return {"model": candidate.model, "text": candidate.text, **truncated}


class CandidateWriter:
    """Several language models that answer the same prompts.

    Args:
        llms: Which they are; see `as_llm`. Those that run here are loaded at once, and stay loaded.
        sampling: How they write.

    Raises:
        CheckpointError: If a local model can't be loaded.
        InputError: If it can't be read which models are meant, two have the same name, or a token is missing.
    """

    def __init__(self, llms: Sequence[Any], sampling: Sampling | Mapping[str, Any] | None = None) -> None:
        self.sampling = as_sampling(sampling)
        self.models = [load_model(llm) for llm in as_llms(llms)]

    @property
    def given_up(self) -> dict[str, str]:
        """The models that are not asked now, and why."""
        return {model.name: model.given_up for model in self.models if model.given_up is not None}

    def iter(self, prompts: Iterable[Item], window: int = DEFAULT_WINDOW) -> Generator[Generated, None, None]:
        """Answer prompts from any iterable, lazily and in order, with constant memory.

        The next window is asked of the servers while this one is worked on here.

        Args:
            prompts: The prompts, with the candidates that they have so far.
            window: How many of them are worked on together.

        Returns:
            An iterator of one result a prompt. Left early, it cancels what the servers were asked.
        """
        remote = [model for model in self.models if not model.runs_here]
        local = [model for model in self.models if model.runs_here]
        flight = InFlight()

        def ask(batch: Sequence[Item]) -> list["_Share"]:
            return [_Share(flight, model, batch, self.sampling) for model in remote]

        def collect(batch: Sequence[Item], asked: list["_Share"]) -> list[Generated]:
            here = [_Share(flight, model, batch, self.sampling) for model in local]
            outcomes = {share.model: share.outcomes() for share in (*asked, *here)}
            written = [outcomes[model.name] for model in self.models]
            return [_generated(item, [of_model[i] for of_model in written]) for i, item in enumerate(batch)]

        return flight.during(windowed(prompts, ask, collect, window))


class _Share:
    """What one model was asked of a window: for each prompt only what it has not answered yet."""

    def __init__(self, flight: InFlight, model: LanguageModel, batch: Sequence[Item], sampling: Sampling) -> None:
        self.model = model.name
        self._size = len(batch)
        missing = [sampling.n - Counter(c.model for c in item.candidates)[model.name] for item in batch]
        by_number: dict[int, list[int]] = defaultdict(list)
        for index, number in enumerate(missing):
            if number > 0:
                by_number[number].append(index)
        self._asked = [
            (indices, flight.start(model, [batch[i].messages for i in indices], replace(sampling, n=number)))
            for number, indices in by_number.items()
        ]

    def outcomes(self) -> list[list[tuple[str, Outcome]]]:
        """Wait for the answers; return for each prompt those of this model with its name."""
        found: list[list[tuple[str, Outcome]]] = [[] for _ in range(self._size)]
        for indices, future in self._asked:
            for index, outcomes in zip(indices, future.result(), strict=True):
                found[index] = [(self.model, outcome) for outcome in outcomes]
        return found


def generate(
    prompts: Any,
    llms: Sequence[Any],
    *,
    instructions: Any = None,
    n: int = 1,
    max_new_tokens: int = 512,
    temperature: float | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    progress: bool = False,
) -> Any:
    """Let several language models answer each prompt.

    Args:
        prompts: A prompt (a text or chat messages), or a list of prompts.
        llms: The language models: a Hub id or a folder runs here, "http://host:8000/v1#model" is asked at that address,
            "providers:org/model" through Inference Providers; or `LocalLLM`, `RemoteLLM` and clients.
        instructions: What is to be done with the prompt, if that is stated apart: a text, or one for each prompt.
        n: Answers of each model to a prompt.
        max_new_tokens: Most tokens of an answer.
        temperature: 0 always takes the likeliest token; None is what the model or its server does.
        top_p: Sample from the likeliest tokens that have this probability together.
        seed: Makes sampling repeatable, as far as the model or its server can.
        progress: Whether to show a progress bar on stderr.

    Returns:
        A `Generated`, or a list of them. Its `candidates` are what `Blender` takes; a model that fails costs no other,
        and is named in `failures` with the reason.

    Raises:
        InputTypeError: If something has the wrong type; the message names the prompt.
        InputError: If an option or the name of a model can't be used.
        CheckpointError: If a local model can't be loaded.
    """
    sampling = Sampling(n, max_new_tokens, temperature, top_p, seed)
    items, single = prompt_items(prompts, instructions)
    writer = CandidateWriter(llms, sampling)
    found = list(writer.iter(tqdm(items, unit="prompt", disable=not progress)))
    return found[0] if single else found


def _generated(item: Item, written: Sequence[Sequence[tuple[str, Outcome]]]) -> Generated:
    outcomes = [outcome for of_model in written for outcome in of_model]
    new = tuple(
        GeneratedCandidate(reply.text, model, reply.truncated) for model, reply in outcomes if isinstance(reply, Reply)
    )
    # Several answers of one model that fail for the same reason say so once.
    failures = tuple(dict.fromkeys(failure for _, failure in outcomes if isinstance(failure, Failure)))
    return Generated(item.prompt, (*item.candidates, *new), failures, item.instruction, item.where)
