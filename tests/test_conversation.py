"""One conversation for everyone: what a generator, a ranker, a judge, a fuser and an exported row are given."""

import json
from typing import Any

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
from blender_hf.modeling.pipeline_llm_blending import LlmBlendingPipeline
from tests.engine.test_pointwise import chat_tokenizer
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


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request: pytest.FixtureRequest) -> tuple[Item, list[dict[str, str]], str, tuple[str, str]]:
    prompt, instruction, messages, text, fields = request.param
    return make_item(prompt, ANSWERS, instruction), messages, text, fields


def test_what_a_server_is_sent(case: Any, server: LanguageServer) -> None:
    item, messages, _, _ = case
    generate(item.prompt, [RemoteLLM("echo", server.url)], instructions=item.instruction)
    assert server.asked("echo")[0]["messages"] == messages


def test_what_the_template_of_a_reward_model_gets(case: Any) -> None:
    item, messages, _, _ = case
    tokenizer = chat_tokenizer()
    rows = [[*messages, {"role": "assistant", "content": answer}] for answer in ANSWERS]
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
