"""Text that a model does not read, although nothing of it is cut, is counted and told."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForSequenceClassification, BertConfig, GPT2Config, PreTrainedTokenizerFast

from blender_hf import Blender
from blender_hf.cli.main import main
from blender_hf.engine.results import Unread
from blender_hf.inputs import Item
from blender_hf.modeling.tokenization import unknown_id
from blender_hf.space.markup import comparison_html, ranking_html
from tests.conftest import SMALL, build_fuser

THAI = ("เมืองหลวงของประเทศเปรูคือกรุงลิมา" * 4, "กล้วยเป็นผลไม้ที่มีรสหวาน" * 5)
TEMPLATE = "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} {% endfor %}"


@pytest.fixture(scope="module")
def mini() -> Blender:
    return Blender.from_pretrained(device="cpu")


@pytest.mark.parametrize(
    ("prompt", "candidates", "expected"),
    [
        ("Which letters?", ("x" * 120, "y" * 120), Unread(0, (1, 1), ((0, 1),))),
        ("Which?", ("one " + "x" * 120, "two " + "y" * 120), Unread(0, (1, 1))),
        (THAI[0], ("Lima", "Cusco"), Unread(1, (0, 0))),
        ("Reply with a sad emoji.", ("😢", "🎉", "No."), Unread(0, (1, 1, 0), ((0, 1),))),
        ("Capital of Peru?", ("Lima", "LIMA", "Lima"), Unread(0, (0, 0, 0), ((0, 1, 2),))),
        ("Nothing is left of it.", ("\u200b", "Yes."), Unread(0, (1, 0))),
        ("Unknown? [UNK]", ("[UNK]", "a [SEP]"), Unread(0, (0, 0))),
        ("Capital of Peru?", ("Lima", "Cusco"), Unread(0, (0, 0))),
    ],
    ids=range(8),
)
def test_what_the_bundled_ranker_does_not_read(
    mini: Blender, prompt: str, candidates: Sequence[str], expected: Unread
) -> None:
    """Two different answers tied at 0, and nothing said why."""
    ranking = mini.rank(prompt, candidates)
    assert ranking.unread == expected
    assert ranking.to_dict()["unread"] == expected.to_dict()
    assert json.loads(json.dumps(expected.to_dict()))["indistinguishable"] == [*map(list, expected.indistinguishable)]
    for group in expected.indistinguishable:
        assert len({ranking.scores[index] for index in group}) == 1
    if len(candidates) == 2:
        assert mini.compare(prompt, *candidates).unread == expected


def words(*extra: str, **settings: Any) -> PreTrainedTokenizerFast:
    """Return a tokenizer that knows a few words."""
    known = ["[PAD]", "[UNK]", "[SEP]", "Hi", "Yes", "No", *extra]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(known)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "eos_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **{**names, **settings})


@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_what_a_reward_model_does_not_read(template: str | None) -> None:
    """In the texts alone: what the template writes is not the user's, here two unknown words."""
    tokenizer = words(model_max_length=64)
    tokenizer.chat_template = template
    config = BertConfig(**SMALL, vocab_size=8, num_labels=1, pad_token_id=0)
    ranker = Blender(AutoModelForSequenceClassification.from_config(config).eval(), tokenizer)
    ranking = ranker.rank("Hi Ho", ["Yes", "Yes or no", "Yes ,,, yes", ""])
    assert ranking.unread == Unread(1, (0, 2, 2, 0), ((1, 2),))
    assert ranker.compare("Hi", "Yes", "No").unread == Unread(0, (0, 0))


def test_what_has_no_unknown_token_reports_none() -> None:
    tokenizer = words(unk_token="[SEP]")  # as that of GPT-2
    assert unknown_id(tokenizer) is None
    assert unknown_id(words()) == 1
    config = GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=8, num_labels=1, pad_token_id=0)
    ranker = Blender(AutoModelForSequenceClassification.from_config(config).eval(), words(unk_token=None))
    assert not ranker.rank("Hi", ["Yes", "No"]).unread


class ByLength:
    def scores(self, items: Sequence[Item]) -> list[list[int]]:
        return [[*map(len, item.texts)] for item in items]


@pytest.mark.once
def test_of_an_object_that_ranks_by_itself_it_is_not_known() -> None:
    ranking = Blender(ByLength()).rank("Hi", ["😢", "🎉🎉"])
    assert ranking.unread is None
    assert ranking.to_dict()["unread"] is None


def test_what_a_fuser_does_not_read(mini: Blender) -> None:
    blender = Blender(mini.ranker.model, mini.scorer.processor, *build_fuser())
    assert blender.fuse("A\N{SNOWMAN}?", ["Yes 😢", "No."]).unread == Unread(1, (1, 0))
    assert mini.fuse("A\N{SNOWMAN}?", ["Yes 😢", "No."]).unread == Unread(0, (0, 0)), "byte by byte"


def test_it_is_logged_once(mini: Blender, caplog: pytest.LogCaptureFixture) -> None:
    blender = Blender(mini.ranker.model, mini.scorer.processor)
    with caplog.at_level(logging.WARNING):
        blender.rank(["2 + 2?", "Sad?", "Sad?"], [["4", "5"], ["😢", "🎉"], ["😢", "🎉"]])
        blender.compare("Sad?", "😢", "🎉")
    [message] = [record.getMessage() for record in caplog.records if record.name.startswith("blender_hf")]
    assert "unknown tokens: 1 of candidate 0, 1 of candidate 1, the same tokens: candidates 0 and 1" in message


def test_the_commands_tell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    records = [{"prompt": "Sad?", "candidates": ["😢", "🎉"]}, {"prompt": "2 + 2?", "candidates": ["4", "5"]}]
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    expected = {"prompt": 0, "candidates": [1, 1], "indistinguishable": [[0, 1]]}
    none = {"prompt": 0, "candidates": [0, 0], "indistinguishable": []}
    commands = [["rank", str(path)], ["label", str(path), "--format", "rankings"]]
    for command in commands:
        assert main([*command, "--output", str(output), "--json"]) == 0
        out, err = capsys.readouterr()
        assert json.loads(out)["unread"] == 1
        assert "1 prompt with text that the model can't read" in err
        rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
        assert [row.get("ranking", row)["unread"] for row in rows] == [expected, none]
        output.unlink()


def test_the_page_tells(mini: Blender) -> None:
    ranking = mini.rank("Sad?", ["😢", "🎉"])
    page = ranking_html(ranking, 0.0)
    assert page.count("1 tokens unknown") == 2
    assert "It reads the same in Candidate 1 and Candidate 2" in page
    assert "does not know 1 tokens of A, 1 tokens of B" in comparison_html(mini.compare("Sad?", "😢", "🎉"))
    assert "unknown" not in ranking_html(mini.rank("2 + 2?", ["4", "5"]), 0.0)
