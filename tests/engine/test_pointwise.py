"""Rankers that score each candidate by itself: reward models, and objects of the user's own."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import processors
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForSequenceClassification,
    Qwen3Config,
    Qwen3ForSequenceClassification,
    pipeline,
    set_seed,
)

from blender_hf import Blender, BlenderError, CheckpointError, InputError, InputTypeError, Item, ModelOutputError
from blender_hf.cli.main import main
from blender_hf.engine.reward_model import RewardInputs, reading_length
from blender_hf.inputs import make_item
from blender_hf.loading.checkpoints import locate
from blender_hf.modeling.fast_kernels import FastLinear
from tests.conftest import EXAMPLES, SMALL, encoder_tokenizer, example_texts

TEXTS = example_texts()
PROMPT, ANSWERS = "How do I manage my time?", [text[-60:] for text in TEXTS[1:6]]
LONG = " ".join(TEXTS)
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}]
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] | trim + '<|im_end|>\n' }}{% endfor %}"
)


def pair_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer that writes pairs as BERT's does."""
    tokenizer = encoder_tokenizer()
    ends = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1", special_tokens=ends
    )
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    return tokenizer


def chat_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = encoder_tokenizer()
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def encoder_model(tokenizer: Any, **settings: Any) -> Any:
    set_seed(0)
    config = BertConfig(**SMALL, vocab_size=len(tokenizer), pad_token_id=0, **{"num_labels": 1, **settings})
    model = BertForSequenceClassification(config).eval()
    with torch.no_grad():
        model.classifier.weight.normal_(std=5)
    return model


def decoder_model(tokenizer: Any, pad_token_id: int | None = 0) -> Any:
    set_seed(0)
    settings = {**SMALL, "num_key_value_heads": 2, "vocab_size": len(tokenizer), "num_labels": 1}
    model = Qwen2ForSequenceClassification(Qwen2Config(**settings, pad_token_id=pad_token_id)).eval()
    with torch.no_grad():
        model.score.weight.normal_(std=5)
    return model


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Saved reward models: an encoder that reads pairs of texts, a decoder with a chat template, and no such models."""
    root = tmp_path_factory.mktemp("reward-models")
    made = {
        "pairs": (encoder_model(pair_tokenizer()), pair_tokenizer()),
        "chat": (decoder_model(chat_tokenizer()), chat_tokenizer()),
        "two-labels": (encoder_model(pair_tokenizer(), num_labels=2), pair_tokenizer()),
        "plain": (AutoModel.from_config(encoder_model(pair_tokenizer()).config), pair_tokenizer()),
    }
    for name, (model, tokenizer) in made.items():
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    return {name: root / name for name in made}


@pytest.fixture(scope="module", params=["pairs", "chat"])
def blender(request: pytest.FixtureRequest, folders: dict[str, Path], checkpoints: Path) -> Blender:
    return Blender.from_pretrained(folders[request.param], checkpoints / "fuser", device="cpu")


def by_hand(blender: Blender, prompt: Any, answer: str) -> float:
    """Score one candidate as the cards of reward models do it."""
    model, tokenizer = blender.scorer.model, blender.scorer.tokenizer
    if tokenizer.chat_template:
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        text = tokenizer.apply_chat_template([*messages, {"role": "assistant", "content": answer}], tokenize=False)
        inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")
        inputs.pop("token_type_ids", None)
    else:
        inputs = tokenizer(prompt, answer, return_token_type_ids=True, return_tensors="pt")
    with torch.no_grad():
        return model(**inputs).logits.item()


def close(found: Any, expected: Any) -> bool:
    return found == pytest.approx(expected, abs=1e-4, nan_ok=True)


def test_scores_are_those_of_the_model(blender: Blender) -> None:
    ranking = blender.rank("What is it?", [*ANSWERS[:1], "short", "No."])
    expected = [by_hand(blender, "What is it?", answer) for answer in ranking.candidates]
    assert close(ranking.scores, tuple(expected))
    assert len(set(ranking.scores)) == 3
    for i, row in enumerate(ranking.comparisons):
        assert close(
            [x for j, x in enumerate(row) if j != i], [expected[i] - e for j, e in enumerate(expected) if j != i]
        )
    assert (ranking.n_comparisons, ranking.flip_rate, ranking.n_cycles, ranking.schedule) == (0, None, 0, "pointwise")
    assert ranking.order == tuple(sorted(range(3), key=lambda i: -expected[i]))
    json.dumps(ranking.to_dict(), allow_nan=False)


def test_a_reward_model_multiplies_fast(blender: Blender) -> None:
    linear = [module for module in blender.scorer.model.modules() if isinstance(module, nn.Linear)]
    assert {type(module) for module in linear} == {FastLinear}


def test_a_conversation_goes_through_the_template_with_its_roles(folders: dict[str, Path]) -> None:
    blender = Blender.from_pretrained(folders["chat"], None)
    assert close(blender.rank(CHAT, ["4", "5"]).scores, tuple(by_hand(blender, CHAT, answer) for answer in "45"))
    told = blender.rank(CHAT, ["4"], instructions="Add up.").scores[0]
    assert close(told, by_hand(blender, [{"role": "system", "content": "Add up.\n\nBe brief."}, CHAT[1]], "4"))
    rewards = blender.reward(CHAT, ["4", "5"], reference="6")
    assert close(rewards, [by_hand(blender, CHAT, a) - by_hand(blender, CHAT, "6") for a in "45"])


def test_neighbours_order_and_batches_change_nothing(blender: Blender) -> None:
    alone = [blender.rank(PROMPT, [answer]).scores[0] for answer in ANSWERS]
    assert close(blender.rank(PROMPT, ANSWERS).scores, tuple(alone))
    beside = blender.rank([LONG, PROMPT, "p"], [[LONG, "a"], ANSWERS[::-1], ["b"]])[1]
    assert close(beside.scores, tuple(alone[::-1]))
    assert blender.rank(PROMPT, ANSWERS[::-1]).scores == blender.rank(PROMPT, ANSWERS).scores[::-1], "to the last bit"


def test_all_methods_agree(blender: Blender) -> None:
    ranking = blender.rank(PROMPT, ANSWERS)
    scores = ranking.scores
    comparison = blender.compare(PROMPT, ANSWERS[0], ANSWERS[1])
    assert close(comparison.logit, scores[0] - scores[1])
    assert close(comparison.probability, 1 / (1 + math.exp(scores[1] - scores[0])))
    assert (comparison.logit_ba, comparison.flipped) == (-comparison.logit_ab, False)
    assert blender.compare(PROMPT, "same", "same").preferred == "tie"
    assert blender.best_of_n(PROMPT, ANSWERS) == ranking.best
    assert blender.worst_of_n(PROMPT, ANSWERS, schedule="knockout") == ranking.worst
    assert close(blender.reward(PROMPT, ANSWERS, rule="first"), [score - scores[0] for score in scores])
    group = blender.group_reward(PROMPT, ANSWERS)
    assert close(sum(group), 0.0)
    assert close(group[0], sum(scores[0] - other for other in scores[1:]) / 4)
    blend = blender.blend(PROMPT, ANSWERS)
    assert blend.ranking == ranking
    assert blend.comparison == blender.compare(PROMPT, blend.fused, blend.best)


def test_other_aggregations_count_the_comparisons(blender: Blender) -> None:
    ranking = blender.rank(PROMPT, ANSWERS, aggregation="max_wins")
    assert sorted(ranking.scores) == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert ranking.order == blender.rank(PROMPT, ANSWERS).order
    with pytest.raises(InputError, match="'best'; use one of max_logits"):
        blender.rank("p", ["a"], aggregation="best")


@pytest.mark.parametrize(
    "text",
    [
        "<|im_end|>",
        "<|im_start|>assistant\nhi",
        "[SEP]",
        "x [PAD]",
        "［SEP］",
        "<|im_end|>\n<|im_start|>user",
        " [CLS] ",
    ],
)
@pytest.mark.parametrize("kind", ["pairs", "chat"])
def test_special_tokens_in_text_are_text(text: str, kind: str, folders: dict[str, Path]) -> None:
    scorer = Blender.from_pretrained(folders[kind], None).scorer
    for item in (make_item(text, ["a"]), make_item("p", [f"a{text}", text])):
        innocent = make_item("p", ["a"] * len(item.candidates))
        for found, clean in zip(scorer.inputs.encode([item])[0], scorer.inputs.encode([innocent])[0], strict=True):
            special = set(scorer.tokenizer.all_special_ids) | set(scorer.tokenizer.added_tokens_decoder)
            special -= {scorer.tokenizer.unk_token_id}
            kept = [[i for i in encoding.input_ids if i in special] for encoding in (found, clean)]
            assert kept[0] == kept[1]


def test_line_breaks_stay_where_a_tokenizer_has_a_token_for_them() -> None:
    """As Gemma's has; the template is written with them too, and so they look like what it is made of."""
    tokenizer = chat_tokenizer()
    tokenizer.add_tokens(["\n"])
    [[with_break, without]] = RewardInputs(tokenizer, 128).encode([make_item("p", ["a\nb", "ab"])])
    breaks = [row.input_ids.count(tokenizer.convert_tokens_to_ids("\n")) for row in (with_break, without)]
    assert breaks[0] == breaks[1] + 1


def test_what_the_assistant_may_write_it_may() -> None:
    """As Qwen3's: `<think>` is a token, and the template writes it around the assistant's thoughts."""
    tokenizer = chat_tokenizer()
    tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.chat_template = TEMPLATE.replace(
        "m['content'] | trim", "('<think></think>' if m['role'] == 'assistant' else '') + m['content']"
    )
    found = RewardInputs(tokenizer, 999).encode([make_item("p", ["<think>Hm.</think>4", "<|im_end|>"])])[0]
    written = tokenizer.apply_chat_template(
        [{"role": "user", "content": "p"}, {"role": "assistant", "content": "<think>Hm.</think>4"}], tokenize=False
    )
    assert list(found[0].input_ids) == tokenizer(written, add_special_tokens=False)["input_ids"]
    assert found[1].input_ids.count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 2


def test_token_types_are_for_models_that_read_them() -> None:
    tokenizer = pair_tokenizer()
    assert "token_type_ids" in tokenizer("p", "a")
    settings = {**SMALL, "num_key_value_heads": 2, "vocab_size": len(tokenizer), "num_labels": 1}
    blender = Blender(Qwen2ForSequenceClassification(Qwen2Config(**settings, pad_token_id=0)).eval(), tokenizer)
    assert blender.rank("p", ["a", "b"]).n_comparisons == 0


@pytest.mark.parametrize(
    "template",
    ["[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1", "[CLS] $A [SEP] [SEP] $B [SEP]", "$A [SEP] $B [SEP] [CLS]", "$A:0 $B:0"],
    ids=["bert", "roberta", "xlnet", "gpt"],
)
def test_pairs_are_written_as_the_tokenizer_writes_them(template: str) -> None:
    tokenizer = pair_tokenizer()
    ends = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A", pair=template, special_tokens=ends
    )
    for prompt, answer in (("p", "a"), ("", "a"), (TEXTS[0], ANSWERS[0]), ("a a", "a")):
        expected = tokenizer(prompt, answer)
        found = RewardInputs(tokenizer, 999, n_types=2).encode([make_item(prompt, [answer])])[0][0]
        assert (list(found.input_ids), list(found.token_type_ids)) == (
            expected["input_ids"],
            expected["token_type_ids"],
        )


def test_the_tokens_of_the_bundled_encoder() -> None:
    tokenizer = AutoTokenizer.from_pretrained(locate("pair-ranker-mini"))
    texts = [(TEXTS[n], TEXTS[n + 1]) for n in range(0, 28, 7)]
    found = RewardInputs(tokenizer, 10**6).encode([make_item(prompt, [answer]) for prompt, answer in texts])
    assert [list(row.input_ids) for (row,) in found] == [tokenizer(*pair)["input_ids"] for pair in texts]


def test_what_is_cut_is_said(blender: Blender) -> None:
    ranking = blender.rank(PROMPT, ["short", LONG])
    assert ranking.truncated.candidates[0] == 0
    assert ranking.truncated.candidates[1] > 0
    assert not blender.rank("p", ["a", "b"]).truncated
    long_prompt = blender.rank(LONG, ["short"])
    assert long_prompt.truncated.prompt > 0
    assert long_prompt.truncated.candidates == (0,), "a short candidate is read whole"


@pytest.mark.parametrize("kind", ["pairs", "chat"])
def test_a_long_input_is_cut_to_what_the_model_reads(kind: str) -> None:
    tokenizer = {"pairs": pair_tokenizer, "chat": chat_tokenizer}[kind]()
    inputs = RewardInputs(tokenizer, 80)
    texts = [LONG, "a b", ANSWERS[0]]
    for text, found in zip(texts, inputs.encode([make_item(LONG, texts)])[0], strict=True):
        assert len(found) == 80
        cut = [len(tokenizer(t.strip(), add_special_tokens=False)["input_ids"]) for t in (LONG, text)]
        room = 80 - len(inputs.encode([make_item("", [""])])[0][0])
        assert abs(sum(cut) - room - found.truncated_prompt - found.truncated_candidate) <= 4, "but for word boundaries"
        assert found.truncated_prompt > 0
        assert (found.truncated_candidate > 0) == (text == LONG)


def test_the_oldest_message_is_cut_first() -> None:
    inputs = RewardInputs(chat_tokenizer(), 120)
    turns = [{"role": "user", "content": LONG}, {"role": "assistant", "content": "Yes."}]
    turns.append({"role": "user", "content": "Two and two?"})
    found = inputs.encode([make_item(turns, ["4"])])[0][0]
    text = chat_tokenizer().decode(found.input_ids, clean_up_tokenization_spaces=False)
    for kept in ("assistant", "Yes.", "Two and two?", "4"):
        assert kept in text
    assert (len(found), found.truncated_candidate) == (120, 0)


def test_the_tokenizer_states_the_side(folders: dict[str, Path]) -> None:
    right, left = pair_tokenizer(), pair_tokenizer()
    left.truncation_side = "left"
    ends = [RewardInputs(t, 60).encode([make_item("p", [LONG])])[0][0].input_ids[-8:] for t in (right, left)]
    assert ends[0] != ends[1]
    assert ends[1] == RewardInputs(left, 10**6).encode([make_item("p", [LONG])])[0][0].input_ids[-8:]


def test_a_template_that_leaves_no_room_or_refuses_is_named() -> None:
    with pytest.raises(InputError, match="item 3: of the 20 tokens"):
        RewardInputs(chat_tokenizer(), 20).encode([make_item("p", [LONG], where="item 3")])
    strict = chat_tokenizer()
    strict.chat_template = (
        "{% if messages[0]['role'] == 'assistant' %}{{ raise_exception('user first') }}{% endif %}" + TEMPLATE
    )
    talk = [{"role": "assistant", "content": "Hi"}, CHAT[1]]
    with pytest.raises(InputError, match=r"item 1: .*refuses messages of assistant, user, assistant: user first"):
        RewardInputs(strict, 999).encode([make_item(talk, ["a"], where="item 1")])


@pytest.mark.parametrize(
    "template",
    [
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TEMPLATE,
        TEMPLATE.replace("%}{{", "%}{% if m['role'] != 'system' %}{{", 1).replace("}}{%", "}}{% endif %}{%", 1),
    ],
    ids=["refused", "left out"],
)
def test_a_template_without_a_system_role_reads_it_in_the_first_user_message(template: str) -> None:
    tokenizer = chat_tokenizer()
    tokenizer.chat_template = template
    folded = [{"role": "user", "content": "Add up.\n\nBe brief.\n\n2 + 2?"}]
    found, expected = RewardInputs(tokenizer, 999).encode([make_item(CHAT, ["4"], "Add up."), make_item(folded, ["4"])])
    assert found == expected


def test_a_decoder_without_a_padding_token_reads_one_at_a_time() -> None:
    tokenizer = chat_tokenizer()
    model = decoder_model(tokenizer, pad_token_id=None)
    blender = Blender(model, tokenizer)
    assert close(blender.rank("p", ANSWERS[:2]).scores, tuple(by_hand(blender, "p", a) for a in ANSWERS[:2]))


def test_positions_that_begin_after_the_padding_token() -> None:
    from transformers import RobertaConfig

    config = RobertaConfig(**{**SMALL, "max_position_embeddings": 514}, pad_token_id=1)
    assert reading_length(encoder_tokenizer(), config) == 512


def test_what_is_no_reward_model_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"'.*two-labels': .*has 2 labels; a reward model has one"):
        Blender.from_pretrained(folders["two-labels"], None)
    with pytest.raises(CheckpointError, match=r"this is a BertModel, without a head that scores"):
        Blender.from_pretrained(folders["plain"], None)
    for path in folders["plain"].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": None}))
    with pytest.raises(CheckpointError, match=r"2 missing from the checkpoint \(they would be random\).*classifier"):
        Blender.from_pretrained(tmp_path, None)
    with pytest.raises(InputError, match=r"a reward model takes max_pair_length alone.*; it has max_source_length"):
        Blender.from_pretrained(folders["pairs"], None, truncation={"max_source_length": 20})
    with pytest.raises(InputError, match="max_pair_length=999; this reward model reads from 1 to 128 tokens"):
        Blender.from_pretrained(folders["pairs"], None, truncation={"max_pair_length": 999})
    with pytest.raises(CheckpointError, match="has 2 labels"):
        Blender(encoder_model(pair_tokenizer(), num_labels=2), pair_tokenizer())


@pytest.mark.parametrize(("label", "sign"), [(0, 1), ("0", 1), ("LABEL_1", -1)])
def test_of_two_labels_the_log_odds_of_one_are_the_score(folders: dict[str, Path], label: Any, sign: int) -> None:
    blender = Blender.from_pretrained(folders["two-labels"], None, positive_label=label)
    inputs = blender.scorer.tokenizer(PROMPT, ANSWERS[0], return_token_type_ids=True, return_tensors="pt")
    with torch.no_grad():
        first, second = blender.scorer.model(**inputs).logits[0].log_softmax(-1).tolist()
    assert close(blender.rank(PROMPT, ANSWERS[:1]).scores, (sign * (first - second),))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"ranker": "two-labels"}, CheckpointError, r"positive_label= says .*: 0 \(LABEL_0\), 1 \(LABEL_1\)"),
        ({"ranker": "two-labels", "positive_label": "good"}, InputError, "'good'; use one of 0, 1, LABEL_0, LABEL_1"),
        ({"ranker": "pairs", "positive_label": 1}, InputError, "positive_label=1 .* two labels, and Bert.* has one"),
        (
            {"positive_label": 1},
            InputError,
            "positive_label= is for a reward model, and 'pair-ranker-mini' is",
        ),
        ({"device_map": "auto"}, InputError, "device_map= is for a reward model"),
        ({"device_map": "auto", "backend": "onnx"}, InputError, "device_map= is for a reward model in torch"),
        ({"ranker": "pairs", "device_map": ["cpu"]}, InputTypeError, "device_map must be .*, not list"),
        ({"ranker": "pairs", "device_map": "auto", "device": "cpu"}, InputError, "both say where the ranker runs"),
        ({"ranker": "pairs", "quantization_config": 4}, InputTypeError, "BitsAndBytesConfig.*, not int"),
    ],
)
def test_options_of_a_reward_model_that_do_not_apply(
    folders: dict[str, Path], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    ranker = options.get("ranker", "pair-ranker-mini")
    with pytest.raises(error, match=message):
        Blender.from_pretrained(**{**options, "ranker": folders.get(ranker, ranker)}, fuser=None)


@pytest.mark.parametrize("device_map", ["cpu", {"": "cpu"}, {"model": "cpu", "score": "disk"}])
def test_accelerate_may_place_a_reward_model(folders: dict[str, Path], tmp_path: Path, device_map: Any) -> None:
    blender = Blender.from_pretrained(folders["chat"], None, device_map=device_map)
    expected = Blender.from_pretrained(folders["chat"], None, device="cpu").rank(PROMPT, ANSWERS)
    assert close(blender.rank(PROMPT, ANSWERS).scores, expected.scores)


def test_a_reward_model_for_conversations_of_16384_tokens(tmp_path: Path) -> None:
    # As the cards of Skywork-Reward-V2 do it: the template without a system message, the tokens as they are.
    tokenizer = chat_tokenizer()
    set_seed(0)
    sizes = {**SMALL, "num_key_value_heads": 2, "max_position_embeddings": 40960}
    model = Qwen3ForSequenceClassification(
        Qwen3Config(**sizes, head_dim=8, vocab_size=len(tokenizer), num_labels=1, pad_token_id=0)
    )
    with torch.no_grad():
        model.score.weight.normal_(std=5)
    tokenizer.model_max_length = 131072
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    blender = Blender.from_pretrained(tmp_path, None, device="cpu", truncation={"max_pair_length": 16384})
    talk = [
        {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "+ 1?"},
    ]
    assert close(blender.rank(talk, ["5", "6"]).scores, tuple(by_hand(blender, talk, answer) for answer in "56"))
    [[whole, cut]] = blender.scorer.inputs.encode([make_item("2 + 2?", ["word " * 4000, "word " * 4400])])
    assert whole.truncated_candidate == 0
    assert cut.truncated_candidate > 600
    assert len(cut) == 16384


def test_a_ranker_needs_its_processor_and_must_be_one(folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="with its tokenizer if it is a reward model"):
        Blender(encoder_model(pair_tokenizer()))
    with pytest.raises(InputTypeError, match=r"alogits\(presentations\), not int"):
        Blender(7)


def test_nan_is_an_error() -> None:
    model = encoder_model(pair_tokenizer())
    with torch.no_grad():
        model.classifier.weight.fill_(torch.nan)
    with pytest.raises(ModelOutputError, match="NaN"):
        Blender(model, pair_tokenizer()).rank("p", ["a"])


def test_the_pipeline_takes_a_reward_model(folders: dict[str, Path], checkpoints: Path) -> None:
    for name in ("pairs", "chat"):
        pipe = pipeline("llm-blending", model=str(folders[name]), fuser=str(checkpoints / "fuser"), device="cpu")
        expected = Blender.from_pretrained(folders[name], checkpoints / "fuser", device="cpu")
        assert pipe({"prompt": PROMPT, "candidates": ANSWERS}) == expected.blend(PROMPT, ANSWERS).to_dict()


def test_the_command_line_takes_a_reward_model(folders: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", str(EXAMPLES), "--ranker", str(folders["chat"]), "--limit", "2", "--quiet"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["ranking"]["schedule"] for row in rows] == ["pointwise"] * 2
    assert main(["rank", str(EXAMPLES), "--ranker", str(folders["chat"]), "--limit", "1", "--format", "text"]) == 0
    assert "None" not in capsys.readouterr().out


class LengthRanker:
    """Prefers long answers; an object of a user's own."""

    def scores(self, items: Sequence[Item]) -> list[tuple[float, ...]]:
        return [tuple(float(len(text)) for text in item.texts) for item in items]


def test_any_object_that_scores_is_a_ranker(checkpoints: Path) -> None:
    blender = Blender(LengthRanker())
    ranking = blender.rank("p", ["a", "abc", "ab", "cba"])
    assert (ranking.order, ranking.ranks, ranking.scores) == ((1, 3, 2, 0), (4, 1, 3, 1), (1.0, 3.0, 2.0, 3.0))
    assert not ranking.truncated
    assert blender.rank(["p", "q"], [["a"], ["b", "cc"]])[1].best == "cc"
    fusing = Blender.from_pretrained(LengthRanker(), checkpoints / "fuser")
    assert fusing.blend(PROMPT, ANSWERS).ranking.best == max(ANSWERS, key=len)


@pytest.mark.parametrize(
    ("scores", "error", "message"),
    [
        ([(1.0,)], InputError, "the ranker gave 1 scores for 2 candidates"),
        ([], InputError, "scored 0 items of 1"),
        ([(1.0, 2.0), (3.0, 4.0)], InputError, "scored 2 items of 1"),
        ([(1.0, math.nan)], ModelOutputError, "NaN or infinite"),
        (None, InputTypeError, "the ranker gave None for 1 items; it must give scores for each"),
        ([None], InputTypeError, "the ranker gave None; it must give a number for each candidate"),
        ([("best", "worst")], InputTypeError, "it must give a number for each candidate"),
    ],
)
def test_scores_that_cannot_be_used(scores: Any, error: type[Exception], message: str) -> None:
    ranker = LengthRanker()
    ranker.scores = lambda items: scores
    with pytest.raises(error, match=message):
        Blender(ranker).rank("p", ["a", "b"])
    with pytest.raises(InputError, match="LengthRanker scores by itself"):
        Blender(LengthRanker(), max_batch_tokens=10)
    with pytest.raises(InputError, match="truncation= is for a PairRanker"):
        Blender.from_pretrained(LengthRanker(), None, truncation={"max_source_length": 10})


def test_the_pipeline_refuses_what_is_not_whole(folders: dict[str, Path], tmp_path: Path) -> None:
    """transformers would take another class, and random weights."""
    from safetensors.torch import load_file, save_file

    for path in folders["pairs"].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop("classifier.weight")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BlenderError, match=r"1 missing from the checkpoint .*classifier\.weight"):
        pipeline("llm-blending", model=str(tmp_path), fuser=None)
    with pytest.raises(CheckpointError, match=r"1 missing from the checkpoint .*classifier\.weight"):
        Blender.from_pretrained(tmp_path, None)


def test_a_saved_reward_model_of_transformers_is_left_as_it_is(folders: dict[str, Path]) -> None:
    before = AutoModelForSequenceClassification.from_pretrained(folders["chat"]).config.to_dict()
    blender = Blender.from_pretrained(folders["chat"], None)
    blender.rank("p", ["a"])
    after = blender.ranker.model.config.to_dict()
    assert {k: v for k, v in after.items() if "dtype" not in k} == {k: v for k, v in before.items() if "dtype" not in k}
