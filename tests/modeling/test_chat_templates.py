"""Templates that people use: none may lose what is said, a tool call or its result."""

from pathlib import Path
from typing import Any

import pytest

from blender_hf.inputs import make_item
from blender_hf.modeling.chat_templates import ChatTemplate
from tests.generation.tiny_models import chat_tokenizer

trl = pytest.importorskip("trl")
TEMPLATES = sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))


def called(name: str, arguments: str, number: int) -> dict[str, Any]:
    return {"id": f"c{number}", "type": "function", "function": {"name": name, "arguments": arguments}}


def result(number: int, text: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": f"c{number}", "content": text}


TALK = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": "In Lima?"},
    {"role": "assistant", "content": None, "tool_calls": [called("weather", '{"city": "Lisbon", "days": 3}', 1)]},
    result(1, "17 C"),
    {"role": "assistant", "content": "It is 17.", "reasoning_content": "Hm."},
    {"role": "user", "content": [{"type": "text", "text": "And hens?"}, {"type": "image"}]},
    {"role": "assistant", "content": "Wait.", "tool_calls": [called("hen", "{}", 2), called("hut", '{"a": ["b"]}', 3)]},
    result(2, "12 hens"),
    result(3, "no hut"),
]
SAID = ("Be brief.", "In Lima?", "weather", "Lisbon", "days", "17 C", "It is 17.", "And hens?", "[image]", "Wait.")
SAID = (*SAID, '"hen"', "hut", "12 hens", "no hut")


@pytest.mark.skipif(not TEMPLATES, reason="this version of TRL has none")
def test_no_template_loses_what_is_said() -> None:
    tokenizer, lost = chat_tokenizer(), {}
    tokenizer.bos_token = "<|endoftext|>"
    for path in TEMPLATES:
        tokenizer.chat_template = path.read_text(encoding="utf-8")
        template = ChatTemplate(tokenizer)
        for n in (2, 4, 6, len(TALK)):
            written = template.render(template.fitted(make_item(TALK[:n], ["a"]).messages), add_generation_prompt=True)
            said = [text for text in SAID if text.strip('"') in str(TALK[:n])]
            lost[path.name, n] = [text for text in said if text.strip('"') not in written]
    assert {key: texts for key, texts in lost.items() if texts} == {}
