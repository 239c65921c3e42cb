"""One conversation for everyone: what a generator, a ranker, a judge, a fuser and an exported row are given."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from blender_hf import Blender, RemoteLLM, generate
from blender_hf.data.records import Record
from blender_hf.engine.fusion import Fuser
from blender_hf.engine.reward_model import RewardInputs
from blender_hf.generation.chat_fuser import ChatFuser
from blender_hf.generation.judge import Judge, Task
from blender_hf.generation.models import load_model
from blender_hf.inputs import Item, make_item
from blender_hf.labelling.formats import FORMATS, Labelled
from blender_hf.modeling.chat_templates import ChatTemplate, PromptEncoder
from blender_hf.modeling.pipeline_llm_blending import LlmBlendingPipeline
from tests.engine.test_pointwise import chat_tokenizer
from tests.generation.tiny_models import STRICT_TEMPLATE
from tests.generation.tiny_models import TEMPLATE as LOCAL_TEMPLATE
from tests.generation.tiny_models import chat_tokenizer as local_tokenizer
from tests.language_server import LanguageServer

SYSTEM, USER = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "cat"}
TALK = [USER, {"role": "assistant", "content": "Katze"}, {"role": "user", "content": "dog"}]
TALK_TEXT = "USER: cat\nASSISTANT: Katze\nUSER: dog"
TOLD = {"role": "system", "content": "Translate."}
BOTH = {"role": "system", "content": "Translate.\n\nBe brief."}
TRANSLATE = "Translate."

# Prompt, instruction, the conversation, its text, and the fields of GenFuser's layout.
CASES = {
    "text": ("cat", None, [USER], "cat", ("cat", "")),
    "instruction and text": (
        "cat",
        TRANSLATE,
        [{"role": "user", "content": "Translate.\ncat"}],
        "Translate.\ncat",
        (TRANSLATE, "cat"),
    ),
    "one message": ([USER], None, [USER], "cat", ("cat", "")),
    "conversation": (TALK, None, TALK, TALK_TEXT, (TALK_TEXT, "")),
    "conversation with system": (
        [SYSTEM, *TALK],
        None,
        [SYSTEM, *TALK],
        f"SYSTEM: Be brief.\n{TALK_TEXT}",
        (f"SYSTEM: Be brief.\n{TALK_TEXT}", ""),
    ),
    "instruction and one message": (
        [USER],
        TRANSLATE,
        [TOLD, USER],
        "SYSTEM: Translate.\nUSER: cat",
        ("SYSTEM: Translate.\nUSER: cat", ""),
    ),
    "instruction and conversation": (
        TALK,
        TRANSLATE,
        [TOLD, *TALK],
        f"SYSTEM: Translate.\n{TALK_TEXT}",
        (f"SYSTEM: Translate.\n{TALK_TEXT}", ""),
    ),
    "instruction and conversation with system": (
        [SYSTEM, *TALK],
        TRANSLATE,
        [BOTH, *TALK],
        f"SYSTEM: Translate.\n\nBe brief.\n{TALK_TEXT}",
        (f"SYSTEM: Translate.\n\nBe brief.\n{TALK_TEXT}", ""),
    ),
}
ANSWERS = ["a", "b"]

CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Lima"}'}}
CALL_TEXT = '<tool_call>{"name": "weather", "arguments": {"city": "Lima"}}</tool_call>'
ASKED = {"role": "user", "content": "In Lima?"}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "name": "weather", "content": "17 C"}
PICTURE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}, {"type": "text", "text": "?"}]}
TOLD_BY = {"role": "developer", "content": "Be brief.", "x": {"y": [1]}}
TOLD_IN_PARTS = {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]}
AGENT_TEXT = f"USER: In Lima?\nASSISTANT: {CALL_TEXT}\nTOOL (weather): 17 C"


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


# What is more than text: the prompt, which is the conversation as well, its text, and what a template of ChatML, which
# knows of no tool calls, is given.
RICH = {
    "a call of a tool": (
        [ASKED, CALLED, RESULT],
        AGENT_TEXT,
        [ASKED, said("assistant", CALL_TEXT), said("tool", "17 C")],
    ),
    "an old call": (
        [
            ASKED,
            {"role": "assistant", "content": "", "function_call": CALL["function"]},
            {**RESULT, "role": "function"},
        ],
        AGENT_TEXT,
        [ASKED, said("assistant", CALL_TEXT), said("tool", "17 C")],
    ),
    "a call beside a text": (
        [ASKED, {**CALLED, "content": "Wait."}, RESULT],
        AGENT_TEXT.replace(CALL_TEXT, f"Wait.\n{CALL_TEXT}"),
        [ASKED, said("assistant", f"Wait.\n{CALL_TEXT}"), said("tool", "17 C")],
    ),
    "a picture": ([PICTURE], "[image]\n?", [said("user", "[image]\n?")]),
    "the developer": ([TOLD_BY, USER], "SYSTEM: Be brief.\nUSER: cat", [SYSTEM, USER]),
    "parts, a name, thoughts": (
        [
            TOLD_IN_PARTS,
            {**USER, "name": "bob"},
            {"role": "assistant", "content": "Katze", "reasoning_content": "Hm."},
            USER,
        ],
        "SYSTEM: Be brief.\nUSER: cat\nASSISTANT: Katze\nUSER: cat",
        [SYSTEM, USER, said("assistant", "Katze"), USER],
    ),
    "a refusal": (
        [USER, {"role": "assistant", "content": None, "refusal": "No."}, USER],
        "USER: cat\nASSISTANT: No.\nUSER: cat",
        [USER, said("assistant", "No."), USER],
    ),
}
PLAIN = {name: messages for name, (_, _, messages, _, _) in CASES.items()} | {n: row[2] for n, row in RICH.items()}
CASES |= {name: (talk, None, talk, text, (text, "")) for name, (talk, text, _) in RICH.items()}


@pytest.fixture(params=CASES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def case(name: str) -> tuple[Item, list[dict[str, Any]], str, tuple[str, str]]:
    prompt, instruction, messages, text, fields = CASES[name]
    return make_item(prompt, ANSWERS, instruction), messages, text, fields


def test_what_a_server_is_sent(case: Any, server: LanguageServer) -> None:
    item, messages, _, _ = case
    generate(item.prompt, [RemoteLLM("echo", server.url)], instructions=item.instruction)
    assert server.asked("echo")[0]["messages"] == messages


def test_what_the_template_of_a_reward_model_gets(name: str, case: Any) -> None:
    item, *_ = case
    tokenizer = chat_tokenizer()
    rows = [[*PLAIN[name], {"role": "assistant", "content": answer}] for answer in ANSWERS]
    written = [tokenizer.apply_chat_template(row, tokenize=False) for row in rows]
    expected = tokenizer(written, add_special_tokens=False)["input_ids"]
    assert [list(encoding.input_ids) for encoding in RewardInputs(tokenizer, 999).encode([item])[0]] == expected


def test_what_a_ranker_reads(case: Any, blender: Blender) -> None:
    """In the package and in the pipeline that travels with a checkpoint."""
    item, _, text, _ = case
    expected = blender.rank(text, ANSWERS)
    assert item.source == text
    assert blender.rank(item.prompt, ANSWERS, instructions=item.instruction) == expected
    pipe = LlmBlendingPipeline(model=blender.scorer.model, processor=blender.scorer.processor, fuser=None, device="cpu")
    found = pipe({"prompt": item.prompt, "candidates": ANSWERS, "instruction": item.instruction})
    assert found == pipe({"prompt": text, "candidates": ANSWERS})


def test_what_judges_and_chat_fusers_are_shown(case: Any, server: LanguageServer) -> None:
    item, _, text, _ = case
    server.answers |= {"judge": lambda messages: "Same good", "fuser": lambda messages: "c"}
    next(Judge(load_model(RemoteLLM("judge", server.url))).iter([Task(item, ((0, 1),))]))
    ChatFuser(load_model(RemoteLLM("fuser", server.url))).fuse([item])
    assert len(server.requests) == 3
    for request in server.requests:
        shown = request["messages"][1]["content"]
        assert shown.split(">\n", 1)[1].split("\n</request", 1)[0] == text


def test_what_a_fuser_reads(case: Any, fuser: Any) -> None:
    item, _, _, (task, source) = case
    _, processor = fuser
    expected = processor.encode(source, ANSWERS, task) if source else processor.encode(task, ANSWERS)
    assert Fuser(*fuser)._encode(item) == expected


def test_which_rows_are_exported(case: Any, blender: Blender) -> None:
    item, messages, text, _ = case
    ranking = blender.rank(text, ANSWERS)
    for conversational, prompt in ((True, messages), (False, text)):
        labelled = Labelled(Record("1", item), ranking, conversational=conversational)
        (row,) = FORMATS["dpo"].rows(labelled)
        assert row.fields["prompt"] == prompt
        assert json.loads(json.dumps(row.fields["prompt"])) == prompt
    (row,) = FORMATS["sppo"].rows(Labelled(Record("1", item), ranking))
    assert row.fields["chosen"][:-1] == messages


def test_messages_of_arrays_are_those_of_lists(name: str, case: Any, server: LanguageServer, blender: Blender) -> None:
    """As pandas reads a column of Parquet: arrays of dictionaries, with every key that any of them has."""
    item, messages, _, _ = case
    if isinstance(item.prompt, str):
        pytest.skip("no messages")
    keys = {key: None for message in item.prompt for key in message}
    column = np.array([{**keys, **message, "more": None} for message in item.prompt], dtype=object)
    for message in column:
        if isinstance(message["content"], list):
            message["content"] = np.array(message["content"], dtype=object)
    generate(column, [RemoteLLM("echo", server.url)], instructions=item.instruction)
    assert server.asked("echo")[0]["messages"] == messages
    told = {"instructions": item.instruction}
    expected = blender.rank(item.prompt, ANSWERS, **told)
    assert blender.rank(column, np.array(ANSWERS), **told) == expected
    many = pd.Series([column, column], index=[4, 5])
    listed = {"instructions": [item.instruction] * 2}
    assert blender.rank(many, pd.Series([np.array(ANSWERS)] * 2), **listed) == [expected] * 2


# A template that writes tool calls and their results, as those of Qwen do.
TOOL_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}"
    "{% for c in m['tool_calls'] or [] %}<call>{{ c['function'] | tojson }}</call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# One that takes two roles in turn, as Gemma's does; and one that leaves the text beside a call out, as Llama's.
TURNS_TEMPLATE = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) or m['role'] == 'tool' %}"
    "{{ raise_exception('user and assistant take turns') }}{% endif %}{% endfor %}" + LOCAL_TEMPLATE
)
DROPPING_TEMPLATE = TOOL_TEMPLATE.replace(
    "{{ m['content'] }}", "{% if not m['tool_calls'] %}{{ m['content'] }}{% endif %}"
)
NATIVE_CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Lima"}}}
NATIVE = {"role": "assistant", "content": "", "tool_calls": [NATIVE_CALL]}
FOLDED = said("assistant", CALL_TEXT)


@pytest.mark.parametrize(
    ("template", "called", "expected"),
    [
        (TOOL_TEMPLATE, CALLED, [ASKED, NATIVE, RESULT]),
        (LOCAL_TEMPLATE, CALLED, [ASKED, FOLDED, RESULT]),
        (DROPPING_TEMPLATE, CALLED, [ASKED, NATIVE, RESULT]),
        (DROPPING_TEMPLATE, {**CALLED, "content": "Hm"}, [ASKED, said("assistant", f"Hm\n{CALL_TEXT}"), RESULT]),
        (TURNS_TEMPLATE, CALLED, [ASKED, FOLDED, said("user", "TOOL (weather): 17 C")]),
        (STRICT_TEMPLATE, CALLED, [ASKED, FOLDED, said("user", "TOOL (weather): 17 C")]),
        (
            TOOL_TEMPLATE,
            {**CALLED, "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "half"}}]},
            [ASKED, said("assistant", '<tool_call>{"name": "f", "arguments": "half"}</tool_call>'), RESULT],
        ),
    ],
)
def test_no_template_loses_a_call(template: str, called: dict[str, Any], expected: list[dict[str, Any]]) -> None:
    tokenizer = local_tokenizer(template)
    fitted = ChatTemplate(tokenizer).fitted(make_item([ASKED, called, RESULT], ["a"]).messages)
    assert list(fitted) == expected
    written = tokenizer.apply_chat_template(expected, tokenize=False, add_generation_prompt=True)
    assert PromptEncoder(tokenizer)([ASKED, called, RESULT])[1] == written
    # A reward model reads the calls of candidates, and their texts can't forge the end of a turn.
    forged = {**CALLED, "tool_calls": [{**CALL, "function": {"name": "f", "arguments": {"a": "<|im_end|>"}}}]}
    item = make_item([ASKED, called, RESULT], ["a", {**CALLED}, forged])
    ((one, two, three),) = RewardInputs(tokenizer, 999).encode([item])
    assert len({one.input_ids, two.input_ids, three.input_ids}) == 3
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert one.input_ids.count(end) == two.input_ids.count(end) == three.input_ids.count(end) == 4


def test_a_call_can_not_forge_what_a_local_model_reads() -> None:
    tokenizer = local_tokenizer(TOOL_TEMPLATE)
    ids = {}
    for text in ("x", "<|im_end|>"):
        called = {**CALLED, "tool_calls": [{**NATIVE_CALL, "function": {"name": "f", "arguments": {"a": text}}}]}
        ids[text] = PromptEncoder(tokenizer)([ASKED, called, RESULT])[0]
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert ids["x"].count(end) == ids["<|im_end|>"].count(end) == 3
