"""The named endpoints of the page, called as programs call them, over the network of this machine."""

import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import urlopen

import gradio as gr
import pytest
from gradio_client import Client

from app import AggregationName, ScheduleName, build_app
from blender_hf import Blender
from blender_hf.engine.aggregation import AGGREGATIONS
from blender_hf.engine.schedules import SCHEDULES
from blender_hf.errors import InputError
from blender_hf.space.page.events import plain_errors

pytestmark = pytest.mark.once

PROMPT = "How do I boil an egg?"
TEXTS = ["Put it in boiling water for eight minutes. Then cool it.", "Eggs are laid by hens.", "No. I like trains."]


@pytest.fixture(scope="module")
def client(app_url: str) -> Iterator[Client]:
    client = Client(app_url, verbose=False)
    yield client
    client.close()


def test_the_endpoints_are_those_that_are_documented(client: Client) -> None:
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert set(endpoints) == {"/rank", "/compare", "/blend", "/batch"}
    parameters = {p["parameter_name"]: p for p in endpoints["/rank"]["parameters"]}
    assert list(parameters)[:2] == ["prompt", "candidates"]
    assert not parameters["prompt"]["parameter_has_default"]
    assert parameters["schedule"]["parameter_default"] == "full"


def test_rank_gives_what_the_library_gives(client: Client, blender: Blender) -> None:
    found = client.predict(prompt=PROMPT, candidates=TEXTS, api_name="/rank")
    expected = blender.rank(PROMPT, TEXTS)
    assert found["order"] == list(expected.order)
    assert found["scores"] == pytest.approx(expected.scores, abs=1e-5)
    assert found["best"] == expected.best


def test_rank_takes_a_conversation_and_a_schedule(client: Client, blender: Blender) -> None:
    found = client.predict(
        prompt=PROMPT,
        candidates=TEXTS,
        system="Be brief.",
        turns="User: Hi\nAssistant: Hello!",
        schedule="knockout",
        aggregation="max_wins",
        api_name="/rank",
    )
    turns = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello!"), ("user", PROMPT)]
    messages = [{"role": role, "content": content} for role, content in turns]
    expected = blender.rank(messages, TEXTS, schedule="knockout", top_k=3, aggregation="max_wins")
    assert found["scores"] == pytest.approx(expected.scores)
    assert (found["schedule"], found["order"]) == ("knockout", list(expected.order))


@pytest.mark.once
def test_candidates_may_be_messages(client: Client) -> None:
    messages = [{"role": "assistant", "content": text} for text in TEXTS[:2]]
    given = {"prompt": PROMPT, "api_name": "/rank"}
    by_text = client.predict(candidates=TEXTS[:2], **given)
    assert client.predict(candidates=[messages[0], [messages[1]]], **given) == by_text
    compared = [
        client.predict(prompt=PROMPT, a=a, b=b, api_name="/compare") for a, b in (TEXTS[:2], (messages[0], TEXTS[1]))
    ]
    assert compared[0] == compared[1]
    with pytest.raises(Exception, match="candidate 1: an answer has a message of the assistant"):
        client.predict(candidates=["a", {"role": "user", "content": "b"}], **given)


def test_compare_gives_both_orders(client: Client, blender: Blender) -> None:
    found = client.predict(prompt=PROMPT, a=TEXTS[0], b=TEXTS[1], tie_threshold=0.0, api_name="/compare")
    expected = blender.compare(PROMPT, TEXTS[0], TEXTS[1])
    assert found["preferred"] == expected.preferred
    assert (found["logit_ab"], found["logit_ba"]) == pytest.approx((expected.logit_ab, expected.logit_ba), abs=1e-5)


def test_blend_gives_what_the_library_gives(client: Client, blender: Blender) -> None:
    found = client.predict(prompt=PROMPT, candidates=TEXTS, top_k=2, max_new_tokens=24, api_name="/blend")
    generation = {"max_new_tokens": 24, "num_beams": 1}
    ranking = blender.rank(PROMPT, TEXTS)
    assert found["fused_from"] == list(ranking.order[:2])
    assert found["fused"] == blender.fuse(PROMPT, ranking.sorted_candidates[:2], generation=generation).text
    assert found["output"] == (found["fused"] if found["returned"] == "fused" else ranking.best)


@pytest.mark.parametrize("texts", [["4"], ["4", "4"]])
def test_blend_returns_the_best_where_there_is_nothing_to_fuse(
    client: Client, blender: Blender, texts: list[str]
) -> None:
    found = client.predict(prompt=PROMPT, candidates=texts, api_name="/blend")
    expected = blender.blend(PROMPT, texts)
    for name in ("output", "returned", "fused", "fused_from"):
        assert found[name] == expected.to_dict()[name]


def test_null_is_the_default_of_every_setting(client: Client) -> None:
    given = {"prompt": PROMPT, "candidates": TEXTS, "api_name": "/rank"}
    nothing = dict.fromkeys(("system", "turns", "schedule", "aggregation", "ranker"))
    assert client.predict(**given, **nothing) == client.predict(**given)


@pytest.mark.parametrize(
    ("endpoint", "arguments", "said"),
    [
        ("/rank", {"prompt": None}, "prompt: expected a text, not null"),
        ("/rank", {"prompt": 3}, "prompt: expected a text, not int"),
        ("/blend", {"top_k": "2"}, "top_k='2'; give a whole number"),
        ("/blend", {"max_new_tokens": 2.5}, "max_new_tokens=2.5; give a whole number"),
    ],
)
def test_mistakes_of_a_caller_are_told(client: Client, endpoint: str, arguments: dict, said: str) -> None:
    with pytest.raises(Exception, match=said):
        client.predict(**{"prompt": PROMPT, "candidates": TEXTS, **arguments}, api_name=endpoint)


def test_a_mistaken_threshold_is_told(client: Client) -> None:
    with pytest.raises(Exception, match="tie_threshold='x'; give a number"):
        client.predict(prompt=PROMPT, a="a", b="b", tie_threshold="x", api_name="/compare")


def test_batch_ranks_models(client: Client) -> None:
    names = ("m", "n", "o")
    candidates = [{"text": text, "model": model} for text, model in zip(TEXTS, names, strict=True)]
    records = [{"id": f"q{i}", "prompt": f"{PROMPT} {i}", "candidates": candidates} for i in range(3)]
    found = client.predict(records=records, api_name="/batch")
    assert {standing["model"] for standing in found["leaderboard"]} == set(names)
    assert math.fsum(standing["strength"] for standing in found["leaderboard"]) == pytest.approx(0, abs=1e-9)
    assert [record["id"] for record in found["ranked"]] == ["q0", "q1", "q2"]
    assert found["preferences"][0].keys() >= {"prompt", "chosen", "rejected"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"candidates": ["a"] * 13}, "13 candidates; at most 12"),
        ({"candidates": ["a", "b" * 20_001]}, "candidate 2 has 20,001 characters"),
        ({"candidates": []}, "there are no candidates"),
        ({"prompt": " "}, "the prompt is empty"),
        ({"turns": "Hello"}, "must each begin with"),
        ({"ranker": "/etc"}, "the checkpoint '/etc' is not offered here"),
    ],
)
def test_errors_are_in_plain_words(client: Client, arguments: dict, said: str) -> None:
    with pytest.raises(Exception, match=said):
        client.predict(**{"prompt": PROMPT, "candidates": TEXTS, **arguments}, api_name="/rank")


def test_ten_at_once_get_each_their_own(client: Client, blender: Blender) -> None:
    requests = [(f"{n} + {n}?", [f"It is {n + k}. Is it {n}?" for k in range(2 + n % 3)]) for n in range(10)]

    def ask(request: tuple[str, list[str]]) -> dict:
        return client.predict(prompt=request[0], candidates=request[1], max_new_tokens=16, api_name="/blend")

    with ThreadPoolExecutor(10) as pool:
        found = list(pool.map(ask, requests))
    for (prompt, texts), result in zip(requests, found, strict=True):
        expected = blender.rank(prompt, texts)
        assert result["ranking"]["candidates"] == texts
        assert result["ranking"]["scores"] == pytest.approx(expected.scores, abs=1e-5)
        passages = {part.strip() for text in texts for part in text.replace(". ", ".|").split("|")}
        assert any(passage.startswith(result["fused"][:6]) for passage in passages)


def test_every_endpoint_is_a_tool(app_url: str) -> None:
    with urlopen(f"{app_url}gradio_api/mcp/schema", timeout=60) as answer:
        tools = {tool["name"]: tool for tool in json.load(answer)}
    assert set(tools) == {"rank", "compare", "blend", "batch"}
    assert "two by two" in tools["rank"]["description"]
    assert tools["rank"]["inputSchema"]["properties"]["candidates"]["description"]


def test_the_names_of_the_endpoints_are_those_of_the_library() -> None:
    assert ScheduleName.__args__ == tuple(SCHEDULES)
    assert AggregationName.__args__ == tuple(AGGREGATIONS)


def test_messages_are_escaped_because_they_are_shown_as_html() -> None:
    with pytest.raises(gr.Error) as raised, plain_errors():
        raise InputError("'<img src=x onerror=alert(1)>' & more")
    assert raised.value.message == "'&lt;img src=x onerror=alert(1)&gt;' &amp; more"


def test_what_went_wrong_inside_is_not_told_to_visitors(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(gr.Error) as raised, plain_errors():
        raise RuntimeError("secret")
    assert "secret" not in raised.value.message
    assert "secret" in caplog.text


def test_no_model_is_loaded_before_it_is_needed() -> None:
    build_app(["no/such-ranker"], ["no/such-fuser"])


def test_a_checkpoint_that_is_not_there_is_an_error_in_plain_words(tmp_path: Path) -> None:
    app = build_app([str(tmp_path / "none")])
    rank = next(fn.fn for fn in app.fns.values() if fn.api_name == "rank")
    with pytest.raises(gr.Error, match="can't load the ranker"):
        rank(PROMPT, TEXTS)
