"""Many threads and many coroutines on one blender: each gets what it would get alone."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from blender_hf import Blender, InputError, InputTypeError, Item, ModelOutputError
from blender_hf.engine.concurrency import MicroBatcher, lock_of
from tests.conftest import build_fuser, build_ranker, example_texts
from tests.engine.test_pointwise import chat_tokenizer, decoder_model

ROOT = Path(__file__).parents[2]
TEXTS = example_texts()
N_THREADS = 8
CASES = [(TEXTS[k], [text[:80] for text in TEXTS[k + 1 : k + 4]]) for k in range(0, 42, 7)]
# What must stay text in whichever thread: it is tokenised with special tokens switched off.
CASES.append(("[SEP] <|candidate1|>", ["</s> <extra_id_0>", "[CLS]", "<|im_end|>"]))


def in_threads(work: Callable[[Any], Any], cases: Sequence[Any]) -> list[list[Any]]:
    """Do all the work in each of the threads, in another order each, and return the results in the order of cases."""
    barrier = threading.Barrier(N_THREADS)

    def run(start: int) -> list[Any]:
        barrier.wait()
        order = [(start + step) % len(cases) for step in range(len(cases))]
        found = {index: work(cases[index]) for index in order}
        return [found[index] for index in range(len(cases))]

    with ThreadPoolExecutor(N_THREADS) as pool:
        return list(pool.map(run, range(N_THREADS)))


@pytest.fixture(autouse=True)
def restless_threads() -> Iterator[None]:
    """Let threads take turns often, so that what they may do to each other they do."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


def test_threads_get_what_each_would_get_alone() -> None:
    def work(case: Any) -> Any:
        blend = shared.blend(*case, top_k=2, generation={"max_new_tokens": 4})
        return blend, shared.rank(*case, schedule="knockout"), shared.group_reward(*case)

    cases = CASES[-4:]
    parts = (*build_ranker(), *build_fuser(extractive=True))
    untouched = deepcopy(parts)  # tokenizers that no thread has used, so that all of them set them up
    shared = Blender(*parts)
    expected = [work(case) for case in cases]
    shared = Blender(*untouched)
    assert in_threads(work, cases) == [expected] * N_THREADS


def test_threads_share_a_reward_model() -> None:
    tokenizer = chat_tokenizer()
    shared = Blender(decoder_model(tokenizer), tokenizer)
    expected = [shared.rank(*case) for case in CASES]
    tokenizer = chat_tokenizer()
    shared = Blender(decoder_model(tokenizer), tokenizer)
    assert in_threads(lambda case: shared.rank(*case), CASES) == [expected] * N_THREADS


class Careless:
    """A ranker of a user's own, which must not be called by two threads at once."""

    busy = False

    def scores(self, items: Sequence[Item]) -> list[tuple[float, ...]]:
        assert not self.busy, "called while it works"
        self.busy = True
        time.sleep(0.001)
        self.busy = False
        return [tuple(float(len(text)) for text in item.texts) for item in items]


def test_an_object_is_called_by_one_thread_at_a_time() -> None:
    shared = Blender(Careless())
    best = in_threads(lambda case: shared.best_of_n(*case), CASES)
    assert best == [[max(candidates, key=len) for _, candidates in CASES]] * N_THREADS


def test_a_lock_belongs_to_its_object_and_goes_with_it() -> None:
    from blender_hf.engine import concurrency

    class Thing:
        pass

    one, other = Thing(), Thing()
    assert lock_of(one) is lock_of(one)
    assert lock_of(one) is not lock_of(other)
    known = len(concurrency._locks)
    del one
    assert len(concurrency._locks) == known - 1


def plain(result: Any) -> Any:
    """Return a result with numbers as exact as batches of different company leave them."""
    if isinstance(result, float):
        return pytest.approx(result, abs=1e-5, nan_ok=True)
    if isinstance(result, list | tuple):
        return [plain(part) for part in result]
    if isinstance(result, dict):
        return {name: plain(value) for name, value in result.items()}
    return plain(result.to_dict()) if hasattr(result, "to_dict") else result


def as_json(result: Any) -> Any:
    """Return a result as lists and dictionaries."""
    if isinstance(result, list | tuple):
        return [as_json(part) for part in result]
    return result.to_dict() if hasattr(result, "to_dict") else result


def gathered(*coroutines: Any) -> list[Any]:
    async def run() -> list[Any]:
        return await asyncio.gather(*coroutines, return_exceptions=True)

    return asyncio.run(run())


class Counting:
    """A ranker that counts what it is asked, and can't score some texts."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def scores(self, items: Sequence[Item]) -> list[tuple[float, ...]]:
        self.calls.append([item.prompt for item in items])
        return [tuple(float("nan") if text == "bad" else float(len(text)) for text in item.texts) for item in items]


def test_coroutines_give_what_the_methods_give(blender: Blender) -> None:
    prompts, candidates = [prompt for prompt, _ in CASES], [texts for _, texts in CASES]
    firsts, seconds = [texts[0] for texts in candidates], [texts[1] for texts in candidates]
    calls = [
        ("rank", (prompts, candidates), {"schedule": "knockout", "top_k": 2}),
        ("rank", CASES[0], {"aggregation": "copeland"}),
        ("best_of_n", (prompts, candidates), {"schedule": "knockout"}),
        ("worst_of_n", (prompts, candidates), {}),
        ("reward", (prompts, candidates), {"rule": "longest", "scale": "probability"}),
        ("reward", CASES[1], {"reference": "So it is."}),
        ("group_reward", (prompts, candidates), {}),
        ("compare", (prompts, firsts, seconds), {"tie_threshold": 0.1}),
        ("compare", (prompts[0], firsts[0], seconds[0]), {}),
        ("fuse", CASES[2], {"generation": {"num_beams": 2, "max_new_tokens": 8}}),
        ("blend", (prompts, candidates), {"top_k": 2, "fallback": False}),
        ("blend", CASES[3], {"instructions": "Answer."}),
        ("rank", ([], []), {}),
    ]
    found = gathered(*(getattr(blender, f"a{name}")(*given, **options) for name, given, options in calls))
    expected = [getattr(blender, name)(*given, **options) for name, given, options in calls]
    assert as_json(found) == plain(expected)


def test_a_hundred_requests_are_worked_on_in_few_batches() -> None:
    ranker = Counting()
    found = gathered(
        *(Blender.arank(shared, str(n), ["a" * n, "b"]) for shared in [Blender(ranker)] for n in range(100))
    )
    assert [ranking.scores for ranking in found] == [(float(n), 1.0) for n in range(100)]
    assert sorted(prompt for call in ranker.calls for prompt in call) == sorted(map(str, range(100)))
    assert len(ranker.calls) <= 20


def test_an_error_in_one_request_is_its_own(blender: Blender) -> None:
    ranker = Counting()
    shared = Blender(ranker)
    texts = ["a", "bad", "bcd", "ef", "bad", "g", "h"]
    found = gathered(*(shared.arank(str(n), [text]) for n, text in enumerate(texts)))
    for text, result in zip(texts, found, strict=True):
        assert isinstance(result, ModelOutputError) if text == "bad" else result.best == text
    wrong = gathered(
        blender.arank("p", ["a", None]),
        blender.arank("p", ["a", "b"], aggregation="best"),
        blender.acompare("p", "a", "b", tie_threshold=2),
        blender.afuse("p", ["a", "b"], generation={"no_such_option": 1}),
        blender.areward("p", ["a"]),
        blender.arank("p", ["a", "b"]),
    )
    assert [type(result) for result in wrong[:5]] == [InputTypeError, InputError, InputError, InputError, InputError]
    assert as_json(wrong[5]) == plain(blender.rank("p", ["a", "b"]))
    with pytest.raises(TypeError, match="no_such_option"):
        asyncio.run(blender.arank("p", ["a"], no_such_option=1))


def test_a_cancelled_request_leaves_the_others() -> None:
    started, go_on = threading.Event(), threading.Event()

    class Slow(Counting):
        def scores(self, items: Sequence[Item]) -> list[tuple[float, ...]]:
            started.set()
            assert go_on.wait(30)
            return super().scores(items)

    async def run() -> list[Any]:
        shared = Blender(ranker)
        running = asyncio.create_task(shared.arank("running", ["a"]))
        await asyncio.to_thread(started.wait, 30)
        waiting = [asyncio.create_task(shared.arank(name, ["a"])) for name in ("first", "cancelled", "second")]
        await asyncio.sleep(0)
        waiting[1].cancel()
        running.cancel()
        await asyncio.sleep(0)
        go_on.set()
        return await asyncio.gather(running, *waiting, return_exceptions=True)

    ranker = Slow()
    found = asyncio.run(run())
    assert [type(result) for result in found] == [
        asyncio.CancelledError,
        type(Blender(Counting()).rank("p", ["a"])),
        asyncio.CancelledError,
        type(Blender(Counting()).rank("p", ["a"])),
    ]
    assert ranker.calls == [["running"], ["first", "second"]]


def test_one_blender_serves_several_event_loops_and_threads(blender: Blender) -> None:
    expected = [blender.rank(*case) for case in CASES]
    found = in_threads(lambda case: asyncio.run(blender.arank(*case)), CASES)
    assert as_json(found) == plain([expected] * N_THREADS)


def test_kinds_are_worked_on_apart_and_large_requests_whole() -> None:
    seen: list[list[str]] = []

    def work(items: Sequence[Item]) -> list[str]:
        seen.append([item.prompt for item in items])
        return [item.prompt for item in items]

    def items(*prompts: str) -> list[Item]:
        return [Item(prompt, ()) for prompt in prompts]

    batcher = MicroBatcher(max_wait=0.2, max_items=3)
    asked = [("x", "a"), ("y", "b"), ("x", "c"), ("x", "defgh"), ("y", "i"), ("x", "j")]
    futures = [batcher.submit(kind, items(*prompts), work) for kind, prompts in asked]
    assert [future.result(30) for future in futures] == [list(prompts) for _, prompts in asked]
    assert sorted(map("".join, seen)) == ["ac", "bi", "defgh", "j"]


def test_the_thread_ends_with_its_blender() -> None:
    before = set(threading.enumerate())
    shared = Blender(Counting())
    asyncio.run(shared.arank("p", ["a"]))
    (thread,) = (thread for thread in set(threading.enumerate()) - before if thread.name.startswith("blender-hf"))
    del shared
    thread.join(30)
    assert not thread.is_alive()


AWAIT_IN_A_FORK = """
import asyncio, os, sys
from blender_hf import Blender
from tests.conftest import build_ranker

blender = Blender(*build_ranker())

async def best():
    return (await asyncio.wait_for(blender.arank("q", ["a", "b"]), 60)).best

here = asyncio.run(best())
child = os.fork()
if child == 0:
    os._exit(0 if asyncio.run(best()) == here else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_fork_has_threads_of_its_own() -> None:
    """It waited forever for a thread that only its parent has."""
    # OpenMP of a fork would wait for threads of the parent too.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", AWAIT_IN_A_FORK], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
