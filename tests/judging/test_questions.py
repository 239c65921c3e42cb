"""The questions to judges: the shipped templates against the recipes of their models, and templates of users."""

from pathlib import Path
from typing import Any

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from blender_hf import InputError, Presentation
from blender_hf.engine.scorer import presented
from blender_hf.inputs import make_item
from blender_hf.judging.questions import TEMPLATES, Question, load_template, recipe_of
from blender_hf.judging.verdict_formats import DECIDED, VERDICT_FORMATS

pytestmark = pytest.mark.once
TALK = [
    {"role": "user", "content": "Hi {there}"},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "2 + 2?\n"},
]


def test_rlhflow_is_asked_as_its_card_says() -> None:
    """https://huggingface.co/RLHFlow/pair-preference-model-LLaMA3-8B, with the settings of apply_chat_template."""
    plain = (
        "\n{% for message in messages %}{% if loop.index0 % 2 == 0 %}\n\n<turn> user\n {{ message['content'] }}"
        "{% else %}\n\n<turn> assistant\n {{ message['content'] }}{% endif %}{% endfor %}\n\n\n"
    )
    context = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(plain)
    for prompt in (TALK, "How can I trick Eminem?"):
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        expected = f"[CONTEXT] {context.render(messages=messages)} [RESPONSE A] four\n [RESPONSE B] <b> & 5 \n"
        pair = presented(make_item(prompt, ["four\n", "<b> & 5"]), "four\n", "<b> & 5")
        assert Question(pair, None, TEMPLATES["rlhflow"]).text() == expected


def test_gram_is_asked_as_its_evaluation_does() -> None:
    text = Question(Presentation("Frog?", "one", "two"), None, TEMPLATES["gram"]).text()
    assert text.startswith("Please act as an impartial judge and evaluate the quality of the responses")
    assert text.endswith(
        '"B" if assistant B is better.\n\n[User Question]\nFrog?\n\n[The Start of Assistant A\'s Answer]\none\n'
        "[The End of Assistant A's Answer]\n\n[The Start of Assistant B's Answer]\ntwo\n"
        "[The End of Assistant B's Answer]\n\n#Preferred: "
    )


@pytest.mark.parametrize(
    ("model", "template", "ask"),
    [
        ("RLHFlow/pair-preference-model-LLaMA3-8B", "rlhflow", None),
        ("wangclnlp/GRAM-Qwen3-1.7B-RewardModel", "gram", None),
        ("NiuTrans/GRAM-LLaMA3.2-3B-RewardModel", "gram", None),
        ("nvidia/Qwen3-Nemotron-235B-A22B-GenRM", "default", "verdict"),
        ("Qwen/Qwen3-4B", "default", None),
    ],
)
def test_models_have_their_template_by_id(model: str, template: str, ask: str | None) -> None:
    assert (recipe_of(model).template, recipe_of(model).ask) == (template, ask)


def test_parts_have_keys_that_no_text_holds_and_share_their_beginnings() -> None:
    one, other = (Question(Presentation("q", "a", text), None, TEMPLATES["default"]).state for text in ("b", "c"))
    shared = one.index("<answer B")
    assert one[:shared] == other[:shared]
    keys = {line.split()[-1].rstrip(">") for line in one.splitlines() if line.startswith("<")}
    assert len(keys) == 3
    forged = Question(Presentation("q", "a", one), None, TEMPLATES["default"]).state
    assert forged.count(f"</answer B {forged.rsplit(' ', 1)[1]}") == 1


def test_a_template_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text("{{ request }}: {{ answer_a }} or {{ answer_b }}? {{ criterion }} {{ messages | length }}\n")
    question = Question(Presentation("q", "{{ 7 * 7 }}", "b"), "Shorter?", load_template(path))
    assert question.text() == "q: {{ 7 * 7 }} or b? Shorter? 1"
    assert question.state == question.text(), "a server that decides gets all of it"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ answer_a }} {{ answer_b }} {{ reference }}", "asks for reference; there are answer_a"),
        ("{{ request }}", "shows no answers"),
        ("{% if %}", "is no Jinja template"),
    ],
)
def test_a_template_that_can_not_be_one_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.jinja"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"bad\.jinja {message}"):
        load_template(path)


def test_a_template_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't read the template"):
        load_template(tmp_path / "none.jinja")


@pytest.mark.parametrize(
    ("form", "reply", "logit"),
    [
        ("brackets", "Both are fine. [[A]]", DECIDED),
        ("brackets", "**[[B]]**", -DECIDED),
        ("brackets", "[[C]]", 0.0),
        ("brackets", "[[tie]]", 0.0),
        ("brackets", "[[A]] and [[B]]", None),
        ("brackets", "A", None),
        ("degrees", "[[A>>B]]", DECIDED),
        ("degrees", "[[B>A]]", -DECIDED / 2),
        ("degrees", "[[A=B]]", 0.0),
        ("degrees", "[[A>A]]", None),
        ("result", "Feedback: good. [RESULT] A", DECIDED),
        ("result", "**Result:** B", -DECIDED),
        ("result", "[RESULT] Apple", None),
        ("answer", "<answer>[[A]]</answer>", DECIDED),
        ("answer", "[[A]]", None),
        ("better", "<better>B</better>", -DECIDED),
        ("better", "<better>tie</better>", 0.0),
        ("output", "Output (b)", -DECIDED),
        ("genrm", 'So: {"score_1": 4, "score_2": 2, "ranking": 1}', 2.5),
        ("genrm", '```json\n{"score_1": 1, "score_2": 5, "ranking": 6}\n```', -2.5),
        ("genrm", '{"ranking": 7}', None),
        ("genrm", '{"ranking": "first"}', None),
        ("genrm", "none", None),
        ("mixinstruct", "A is better", DECIDED),
        ("mixinstruct", "Verdict: Same bad", 0.0),
        ("mixinstruct", "A is better, I guess", None),
    ],
)
def test_verdicts_are_read_in_their_form_alone(form: str, reply: str, logit: float | None) -> None:
    assert VERDICT_FORMATS[form].read(reply) == logit


def test_genrm_gets_the_answers_in_roles_of_their_own() -> None:
    pair = presented(make_item(TALK, ["a", "b"]), "a", "b")
    chat: list[dict[str, Any]] = VERDICT_FORMATS["genrm"].chat(Question(pair, "Be kind.", TEMPLATES["default"]))
    assert [message["role"] for message in chat] == [
        "user",
        "assistant",
        "user",
        "response_1",
        "response_2",
        "principle",
    ]
    assert [message["content"] for message in chat[3:]] == ["a", "b", "Be kind."]
