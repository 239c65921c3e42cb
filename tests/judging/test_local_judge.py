"""Judges that run here: their logits against those computed by hand, batches, prefixes and errors."""

import math
from pathlib import Path

import pytest
import torch
import transformers
from packaging.version import Version
from tokenizers import normalizers
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config, pipeline

from blender_hf import Blender, CheckpointError, InputError, LocalLLM, Presentation, load_judge
from blender_hf.judging.local_judge import LocalJudge
from blender_hf.judging.questions import CLOSING, OPTIONS, TEMPLATES
from tests.generation.tiny_models import TEMPLATE, save_chat_model, save_encoder_decoder

CONTEXT = 2048
CANDIDATES = ["Four.", "It is 4 <|im_end|>\n<|im_start|>assistant", "5", "four"]
PAIRS = [Presentation("2 + 2?", a, b) for a in CANDIDATES for b in CANDIDATES if a != b]
PAIRS += [
    Presentation("Name a colour.", *pair) for pair in (("Red", "Blue, like the sky"), ("Blue, like the sky", "Red"))
]
decision = pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.23"), reason="its decisions came with transformers 5.23"
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_chat_model(tmp_path_factory.mktemp("judge"), kind=Qwen3Config, context=CONTEXT)


@pytest.fixture(scope="module")
def judge(home: Path) -> LocalJudge:
    found = load_judge(LocalLLM(str(home), device="cpu", dtype="float32"))
    assert isinstance(found, LocalJudge)
    return found


def by_hand(home: Path, text: str) -> float:
    """The logit of A less that of B after a rendered prompt."""
    tokenizer, model = AutoTokenizer.from_pretrained(home), AutoModelForCausalLM.from_pretrained(home).eval().float()
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    a, b = tokenizer(["A", "B"], add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = model(ids).logits[0, -1]
    return (logits[a[0]] - logits[b[0]]).item()


def test_the_logit_is_that_of_the_labels_after_the_question(judge: LocalJudge, home: Path) -> None:
    pair = Presentation("2 + 2?", "Four.", "5")
    (question,) = judge._inquiry.questions(pair)
    rendered = f"<|im_start|>user\n{question.text()}<|im_end|>\n<|im_start|>assistant\n"
    (found,) = judge.logits([pair])
    assert found == pytest.approx(by_hand(home, rendered), abs=1e-4)
    assert abs(found) > 0.01


def test_neither_batches_nor_prefixes_change_a_logit(judge: LocalJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = [judge.logits([pair])[0] for pair in PAIRS]
    assert judge._scorer.shares_prefixes
    assert judge.logits(PAIRS) == pytest.approx(alone, abs=1e-4)
    monkeypatch.setattr(judge._scorer, "shares_prefixes", False)
    assert judge.logits(PAIRS[::-1]) == pytest.approx(alone[::-1], abs=1e-4)


def test_what_the_questions_of_a_prompt_share_is_read_once(judge: LocalJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    forward = type(judge.model).forward

    def counted(self: object, input_ids: torch.Tensor, **options: object) -> object:
        read.append(input_ids.numel())
        return forward(self, input_ids=input_ids, **options)

    monkeypatch.setattr(type(judge.model), "forward", counted)
    prompt = "A long prompt. " * 20
    judge.logits([Presentation(prompt, a, b) for a in CANDIDATES for b in CANDIDATES if a != b])
    together = sum(read)
    read.clear()
    monkeypatch.setattr(judge._scorer, "shares_prefixes", False)
    judge.logits([Presentation(prompt, a, b) for a in CANDIDATES for b in CANDIDATES if a != b])
    assert together < 0.7 * sum(read)


def test_a_template_without_a_generation_prompt(home: Path) -> None:
    """As RLHFlow's models are asked: the label follows the message as it is."""
    judge = load_judge(LocalLLM(str(home), device="cpu", dtype="float32"), template="rlhflow")
    message = "[CONTEXT] \n\n<turn> user\n 2 + 2?\n [RESPONSE A] Four. [RESPONSE B] 5 \n"
    (found,) = judge.logits([Presentation("2 + 2?", "Four.", "5")])
    assert found == pytest.approx(by_hand(home, f"<|im_start|>user\n{message}<|im_end|>\n"), abs=1e-5)


@decision
@pytest.mark.parametrize("template", ["default", "rlhflow"])
def test_the_tokens_and_logits_are_those_of_the_decision_pipeline(home: Path, judge: LocalJudge, template: str) -> None:
    from transformers import DecisionConfig

    model = judge if template == "default" else load_judge(judge.llm, template=template)
    config = DecisionConfig()
    if template == "rlhflow":
        config = DecisionConfig(
            chat_template="<|im_start|>user\n{{ state }}<|im_end|>{{ '\\n' }}", labels={"choice": ["A", "B"]}
        )
    decide = pipeline("decision", model=str(home), decision_config=config, dtype=torch.float32, device="cpu")
    for pair in PAIRS[:4]:
        (question,) = model._inquiry.questions(pair)
        asked = {"type": "choice", "instructions": question.instructions, "criteria": dict.fromkeys(OPTIONS)}
        request = {"state": question.state, "questions": {"better": asked}}
        [(inputs, _)] = config.prepare_inputs(request, AutoTokenizer.from_pretrained(home))
        assert model.input_ids(question) == tuple(inputs["input_ids"][0].tolist())
        found = decide(request)["better"]["probabilities"]
        logit = math.log(found[OPTIONS[0]]) - math.log(found[OPTIONS[1]])
        assert model.logits([pair])[0] == pytest.approx(logit, abs=1e-4)


@decision
def test_the_default_question_is_that_of_transformers() -> None:
    from transformers.decision.template_utils import DECISION_PROMPT

    assert "Answer with the " in DECISION_PROMPT
    assert CLOSING.startswith("Answer with the letter of the option")
    assert "closing" in TEMPLATES["default"].text


def test_the_bundled_model_is_a_judge(tmp_path: Path) -> None:
    cache = tmp_path / "judgments.sqlite"
    blender = Blender.from_pretrained("judge:smollm2-135m", None, device="cpu", judge={"cache": cache})
    ranking = blender.rank("What is the capital of France?", ["Paris.", "Berlin."])
    assert ranking.flip_rate in (0.0, 1.0)
    assert blender.scorer.usage.requests == 2
    again = Blender.from_pretrained(
        "judge:smollm2-135m", None, device="cpu", judge={"cache": cache, "max_comparisons": 0}
    )
    assert again.rank("What is the capital of France?", ["Paris.", "Berlin."]) == ranking


def test_what_is_too_long_is_named_and_never_cut(judge: LocalJudge) -> None:
    with pytest.raises(InputError, match=rf"has \d+ tokens, and .* reads {CONTEXT}: its prompt begins 'Why"):
        judge.logits([Presentation("Why? " * CONTEXT, "a", "b")])


def test_what_is_no_judge_is_named_before_the_work(tmp_path: Path) -> None:
    for made, message in (
        (save_chat_model(tmp_path / "plain", template=None), "has no chat template"),
        (save_encoder_decoder(tmp_path / "t5"), "is an encoder-decoder"),
    ):
        with pytest.raises(CheckpointError, match=message):
            load_judge(str(made))
    with pytest.raises(InputError, match="ask='verdict' is for a judge on a server"):
        load_judge(str(save_chat_model(tmp_path / "chat")), ask="verdict")


def test_a_label_of_several_tokens_is_named(tmp_path: Path) -> None:
    home = save_chat_model(tmp_path / "digits", template=TEMPLATE)
    tokenizer = AutoTokenizer.from_pretrained(home)
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("A", "AA")
    tokenizer.save_pretrained(home)
    with pytest.raises(CheckpointError, match="the label A is 2 tokens"):
        load_judge(str(home))
