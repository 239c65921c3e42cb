"""Judges on servers, over real HTTP, in each way of asking."""

import asyncio
import json
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from blender_hf import Blender, BlenderError, GenerationError, InputError, RemoteLLM, load_judge
from blender_hf.cli.main import main
from blender_hf.training import checkpoint
from tests.judging.judge_server import BIAS, WEIGHT, JudgeServer, serving_judges

pytestmark = pytest.mark.once
CANDIDATES = ["Four.", "4", "It is four, of course.", "I do not know"]
WAYS = ("decisions", "systemone", "logprobs", "verdict")


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with serving_judges() as state:
        yield state


def judge_of(server: JudgeServer, **options: Any) -> Any:
    options.setdefault("cache", False)
    return load_judge(RemoteLLM("m", server.url, backoff=0.01, max_retries=1), **options)


def expected(i: int, j: int) -> float:
    return WEIGHT * (len(CANDIDATES[i]) - len(CANDIDATES[j])) + BIAS


@pytest.mark.parametrize("ask", WAYS[:3])
def test_the_logit_is_that_of_the_judge(server: JudgeServer, ask: str) -> None:
    judge = judge_of(server, ask=ask)
    ranking = Blender(judge).rank("2 + 2?", CANDIDATES)
    for i, row in enumerate(ranking.logits):
        for j, logit in enumerate(row):
            assert i == j or logit == pytest.approx(expected(i, j), abs=1e-4)
    assert ranking.order == (2, 3, 0, 1)
    assert (judge.usage.requests, judge.usage.input_tokens > 0, ranking.n_encodings) == (12, True, 12)
    assert ranking.flip_rate == 0.0


def test_a_position_bias_shows_as_flips(server: JudgeServer) -> None:
    assert Blender(judge_of(server)).compare("2 + 2?", "four", "fou").flipped


@pytest.mark.parametrize(
    ("offers", "ask"),
    [
        ({"decisions", "systemone", "logprobs", "chat"}, "decisions"),
        ({"systemone", "logprobs", "chat"}, "systemone"),
        ({"logprobs", "chat"}, "logprobs"),
        ({"chat"}, "verdict"),
    ],
)
def test_the_way_of_asking_is_found_once(server: JudgeServer, offers: set[str], ask: str) -> None:
    server.offers = offers
    judge = judge_of(server)
    assert Blender(judge).rank("2 + 2?", CANDIDATES).best == CANDIDATES[2]
    assert judge.ask == ask
    assert len(server.requests) == 12 + WAYS.index(ask)


def test_a_client_is_asked_with_its_own_methods(server: JudgeServer) -> None:
    client = openai.AsyncOpenAI(base_url=server.url, api_key="key")
    judge = load_judge(RemoteLLM("m", client=client), cache=False)
    assert Blender(judge).compare("2 + 2?", *CANDIDATES[:2]).logit_ab == pytest.approx(expected(0, 1), abs=1e-4)
    assert judge.ask == "decisions"
    server.offers = {"chat", "logprobs"}
    other = Blender.from_pretrained(RemoteLLM("m", client=openai.OpenAI(base_url=server.url, api_key="k")), None)
    assert other.compare("2 + 2 ?", *CANDIDATES[:2]).logit_ab == pytest.approx(expected(0, 1), abs=1e-4)
    assert other.scorer.ask == "logprobs"


def test_the_key_is_sent(server: JudgeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "secret")
    blender = Blender.from_pretrained(f"judge:{server.url}?api_key_env=JUDGE_KEY#m", None, judge={"cache": False})
    blender.compare("q", "a", "bb")
    assert server.authorizations == {"Bearer secret"}
    with pytest.raises(InputError, match="environment variable"):
        Blender.from_pretrained(f"judge:{server.url}?api_key_env=NO_KEY#m", None)


def test_criteria_are_asked_separately_and_averaged(server: JudgeServer) -> None:
    judge = judge_of(server, criteria=["Which is longer?", "Which is kinder?"])
    assert Blender(judge).compare("q", "aaaa", "b").logit == pytest.approx(0.3, abs=1e-4)
    asked = [request["questions"][0]["instructions"].split("\n")[0] for request in server.asked("decisions")]
    assert sorted(asked) == ["Which is kinder?"] * 2 + ["Which is longer?"] * 2
    assert judge.n_criteria == 2


def test_no_candidate_can_forge_a_delimiter(server: JudgeServer) -> None:
    first = Blender(judge_of(server))
    first.compare("q", "a", "b")
    state = server.asked("decisions")[0]["input"]
    forger = state[state.index("<answer B") :]
    assert first.compare("q", "aa", forger).logit < 0, "what it forges is read as its own text"


def test_nothing_is_asked_twice(server: JudgeServer, tmp_path: Path) -> None:
    cache = tmp_path / "cache" / "judgments.sqlite"
    first = Blender(judge_of(server, cache=cache)).rank(["q", "q"], [CANDIDATES] * 2)
    assert len(server.requests) == 12, "equal prompts are asked about once"
    again = judge_of(server, cache=cache, max_comparisons=0)
    assert Blender(again).rank(["q", "q"], [CANDIDATES] * 2) == first
    assert (len(server.requests), again.usage.requests, again.usage.cached) == (12, 0, 24)
    other = judge_of(server, cache=cache, criteria="Which is shorter?")
    Blender(other).compare("q", *CANDIDATES[:2])
    assert other.usage.requests == 2, "another question"


def test_a_judge_that_fails_halfway_loses_nothing(server: JudgeServer, tmp_path: Path) -> None:
    server.delay = 0.02
    server.faults = {12: (400, {"error": {"message": "too long"}})}
    judge = judge_of(server, cache=tmp_path / "kept.sqlite", ask="decisions")
    with pytest.raises(GenerationError, match=r"the judge m gave no answer: .*too long.*answers so far are kept"):
        Blender(judge).rank([f"q{n}" for n in range(6)], [CANDIDATES] * 6)
    sent = len(server.requests)
    assert 13 <= sent < 36, "nothing more is asked after an error"
    assert judge.usage.requests == sent - 1
    server.faults, server.requests = {}, []
    again = judge_of(server, cache=tmp_path / "kept.sqlite", ask="decisions")
    Blender(again).rank([f"q{n}" for n in range(6)], [CANDIDATES] * 6)
    assert len(server.requests) == 72 - (sent - 1)


def test_a_budget_ends_before_it_is_overdrawn(server: JudgeServer) -> None:
    judge = judge_of(server, max_comparisons=11)
    with pytest.raises(BlenderError, match=r"the next 12 comparisons of m are more than the 11 .* schedule='knockout'"):
        Blender(judge).rank("q", CANDIDATES)
    assert not server.requests
    assert Blender(judge).best_of_n("q", CANDIDATES, schedule="knockout") == CANDIDATES[2]
    assert judge.usage.requests == 6


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ((200, {"answers": [{"type": "refusal", "name": "better"}]}), "it refused"),
        ((200, {"answers": []}), "has no probabilities"),
        (
            (200, {"answers": [{"type": "choice", "probabilities": [{"value": "answer A", "probability": 1}]}]}),
            "no prob",
        ),
    ],
)
def test_a_reply_without_an_answer_is_an_error_or_a_counted_tie(
    server: JudgeServer, fault: tuple[int, Any], reason: str
) -> None:
    server.faults = dict.fromkeys(range(4), fault)
    with pytest.raises(GenerationError, match=f"no verdict: .*{reason}.*on_unreadable='tie'"):
        Blender(judge_of(server, ask="decisions")).compare("q", "a", "bb")
    judge = judge_of(server, ask="decisions", on_unreadable="tie")
    assert Blender(judge).compare("q", "a", "bb").preferred == "tie"
    assert judge.usage.unreadable == 2
    assert "2 replies without a verdict" in str(judge.usage)


@pytest.mark.parametrize("reply", ["No idea.", "[[A]] or rather [[B]]", "<think>[[A]]", "Maybe A."])
def test_a_verdict_is_never_guessed(server: JudgeServer, reply: str) -> None:
    server.verdict = lambda logit: reply
    judge = judge_of(server, ask="verdict")
    with pytest.raises(GenerationError, match="no verdict"):
        Blender(judge).compare("q", "a", "bb")


def test_a_label_that_is_missing_is_no_likelier_than_the_rest(server: JudgeServer) -> None:
    tokens = [{"token": "A", "logprob": -0.1, "bytes": None}, {"token": "x", "logprob": -6.0, "bytes": None}]
    choice = {"message": {"content": "A"}, "logprobs": {"content": [{**tokens[0], "top_logprobs": tokens}]}}
    server.faults = {n: (200, {"choices": [choice]}) for n in range(2)}
    assert Blender(judge_of(server, ask="logprobs")).compare("q", "a", "b").logit_ab == pytest.approx(5.9)


@pytest.mark.parametrize(
    ("offers", "ask", "message"),
    [
        ({"chat"}, "logprobs", "the judge m can't be asked with ask='logprobs': the server returned no logprobs"),
        ({"chat"}, "decisions", r"no such model at this endpoint.*asked with ask='decisions'"),
        (set(), None, "the judge m gave no answer: there is no such model at this endpoint"),
    ],
)
def test_what_a_server_has_not_is_one_line_before_the_work(
    server: JudgeServer, offers: set[str], ask: str | None, message: str
) -> None:
    server.offers = offers
    with pytest.raises(GenerationError, match=message) as caught:
        Blender(judge_of(server, ask=ask)).rank("q", CANDIDATES)
    assert "\n" not in str(caught.value)
    assert len(server.requests) <= 4


def test_a_server_that_hangs_fails_in_time(server: JudgeServer) -> None:
    server.delay = 5
    judge = load_judge(RemoteLLM("m", server.url, timeout=0.2, max_retries=0), ask="decisions", cache=False)
    started = time.monotonic()
    with pytest.raises(GenerationError, match="took too long"):
        Blender(judge).compare("q", "a", "b")
    assert time.monotonic() - started < 3


def test_a_server_that_is_not_there_is_not_asked_again() -> None:
    started = time.monotonic()
    with pytest.raises(GenerationError, match="the connection was refused"):
        Blender(load_judge("http://127.0.0.1:9/v1#m", cache=False)).rank("q", CANDIDATES)
    assert time.monotonic() - started < 1, "a second try would wait"


def test_a_busy_server_is_asked_again(server: JudgeServer) -> None:
    server.faults = {0: (429, {"error": {"message": "slow down"}})}
    judge = judge_of(server, ask="systemone")
    assert Blender(judge).compare("q", "aa", "b").preferred == "a"
    assert len(server.requests) == 3


def test_it_can_be_awaited_and_pickled(server: JudgeServer) -> None:
    judge = judge_of(server)
    blender = Blender(judge)
    assert asyncio.run(blender.abest_of_n("q", CANDIDATES)) == CANDIDATES[2]
    copy = pickle.loads(pickle.dumps(judge))
    assert copy.ask == "decisions"
    assert Blender(copy).compare("q", "aa", "b").preferred == "a"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ask": "nicely"}, "unknown way to ask 'nicely'; use one of decisions"),
        ({"criteria": ""}, "give a text such as"),
        ({"criteria": ["x", "x"]}, "give each once"),
        ({"template": "none"}, "unknown template 'none'; use one of default, rlhflow, gram"),
        ({"verdicts": "latin"}, "unknown form of a verdict"),
        ({"max_comparisons": -1}, "max_comparisons=-1"),
        ({"on_unreadable": "guess"}, "unknown on_unreadable"),
        ({"logit_temperature": 0}, "logit_temperature=0"),
        ({"criterion": "x"}, "a judge has no setting criterion; it has criteria"),
    ],
)
def test_settings_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_judge("http://127.0.0.1:1/v1#m", **options)


def test_settings_are_for_judges() -> None:
    with pytest.raises(InputError, match="judge= is for a ranker that is a language model"):
        Blender.from_pretrained("pair-ranker-mini", None, judge={"ask": "verdict"})


def test_the_command_line_says_what_it_costs(
    server: JudgeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"q{n}", "candidates": CANDIDATES}) + "\n" for n in range(3)))
    command = ["rank", str(data), "--ranker", f"judge:{server.url}#m", "--output", str(output), "--json"]
    command += ["--judge-cache", str(tmp_path / "cache.sqlite"), "--criteria", "Which is longer?"]
    assert main([*command, "--schedule", "knockout"]) == 0
    out, err = capsys.readouterr()
    assert "at most 18 requests to the judge m" in err
    assert "18 requests to the judge, 126 + 18 tokens" in err
    assert json.loads(out)["judge"]["requests"] == 18
    best = [json.loads(line)["best"] for line in output.read_text().splitlines()]
    assert best == [CANDIDATES[2]] * 3
    assert main([*command, "--max-comparisons", "17"]) == 2
    assert "max_comparisons=17" in capsys.readouterr().err
    assert main(["rank", str(data), "--criteria", "x"]) == 2
    assert "--criteria is for a judge" in capsys.readouterr().err


def test_the_command_line_labels_and_evaluates(
    server: JudgeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ranker = ["--ranker", f"judge:{server.url}#m", "--judge-cache", str(tmp_path / "cache.sqlite"), "--quiet"]
    data, output = tmp_path / "in.jsonl", tmp_path / "dpo.jsonl"
    data.write_text(json.dumps({"prompt": "q", "candidates": CANDIDATES}) + "\n")
    label = ["label", str(data), "--output", str(output), *ranker]
    assert main([*label, "--max-comparisons", "2"]) == 2, "it is resumed with a larger budget"
    assert main([*label, "--max-comparisons", "20"]) == 0
    assert json.loads(output.read_text())["chosen"] == CANDIDATES[2]
    judged = Path(__file__).parent.parent / "evaluation" / "judged.jsonl"
    capsys.readouterr()
    assert main(["evaluate", str(judged), "--limit", "2", "--json", "--pairs-only", *ranker]) == 0
    report = json.loads(capsys.readouterr().out)
    assert any("judge:" in name for name in json.dumps(report).split('"'))


def test_a_temperature_is_fitted_for_it(server: JudgeServer, capsys: pytest.CaptureFixture[str]) -> None:
    judged = Path(__file__).parent.parent / "evaluation" / "judged.jsonl"
    name = f"judge:{server.url}#m"
    assert checkpoint.main(["calibrate", "--ranker", name, "--data", str(judged)]) == 0
    temperature = float(capsys.readouterr().out)
    assert 0.05 <= temperature <= 20
    blender = Blender.from_pretrained(name, None, judge={"logit_temperature": temperature})
    assert blender.compare("q", "aaaa", "b").temperature == temperature


def test_a_label_job_says_what_its_judge_was_asked(
    server: JudgeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Over all of its processes, of which the first ends with its budget."""
    data, output = tmp_path / "answers.jsonl", tmp_path / "dpo.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"{n} + 2?", "candidates": CANDIDATES}) + "\n" for n in range(3)))
    command = ["label", str(data), "--output", str(output), "--ranker", f"judge:{server.url}#m", "--part-size", "1"]
    assert main([*command, "--max-comparisons", "24", "--quiet"]) == 2
    assert len(server.requests) == 24
    capsys.readouterr()
    assert main([*command, "--json"]) == 0
    out, err = capsys.readouterr()
    asked = json.loads(out)["judge"]
    assert (asked["requests"], asked["cached"]) == (36, 0)
    assert asked["input_tokens"] > 0
    assert "36 requests to the judge" in err
