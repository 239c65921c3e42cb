"""`blender-hf annotate`: the verdicts of a judge, in the form of MixInstruct."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from blender_hf.cli.main import main
from blender_hf.data.labelled_formats import read_labelled
from blender_hf.data.sources import read_records
from tests.data.shapes import SHAPES
from tests.generation.test_judge import longer
from tests.language_server import Fault, LanguageServer

RECORDS = [
    {
        "id": number,
        "prompt": f"{number}?",
        "candidates": [{"model": name, "text": name * k} for k, name in enumerate("abc", 1)],
    }
    for number in range(6)
]


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS), encoding="utf-8")
    return path


@pytest.fixture
def judge(server: LanguageServer) -> list[str]:
    server.answers["judge"] = longer
    return ["--judge", f"{server.url}#judge", "--max-retries", "0", "--quiet"]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_verdicts_and_summary(
    answers: Path,
    judge: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "judged.jsonl"
    assert main(["annotate", str(answers), *judge, "--output", str(output), "--json"]) == 0
    found = lines(output)
    assert [record["id"] for record in found] == [*"012345"]
    assert found[0]["cmp_results"] == {"a,b": "B is better", "a,c": "B is better", "b,c": "B is better"}
    out, err = capsys.readouterr()
    summary = json.loads(out)
    assert (summary["written"], summary["judged"], summary["consistent"]) == (6, 18, 18)
    assert summary["verdicts"] == {"A is better": 0, "B is better": 18, "Same good": 0, "Same bad": 0}
    assert "18 pairs of 6 prompts judged" in err
    assert "both orders agree on 100%" in err


def test_what_is_no_verdict_is_counted(
    server: LanguageServer,
    answers: Path,
    judge: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.answers["judge"] = lambda messages: "Who knows?"
    assert main(["annotate", str(answers), *judge, "--limit", "1"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["cmp_results"] == {}
    assert json.loads(out)["annotation"]["pairs"]["a,b"]["unjudged"] == "the judge gave no verdict"
    assert "12 replies without a verdict; 3 pairs left out: the judge gave no verdict" in err


def test_it_goes_on_from_wherever_it_was_killed(answers: Path, judge: list[str], tmp_path: Path) -> None:
    whole, output = tmp_path / "whole.jsonl", tmp_path / "judged.jsonl"
    assert main(["annotate", str(answers), *judge, "--output", str(whole)]) == 0
    content = whole.read_bytes()
    for place in random.Random(0).sample(range(len(content)), 6):
        output.write_bytes(content[:place])
        assert main(["annotate", str(answers), *judge, "--output", str(output)]) == 0
        assert output.read_bytes() == content


def test_what_a_judge_said_nothing_of_is_judged_again(
    server: LanguageServer,
    answers: Path,
    judge: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A record without any verdict was written as done, and never judged."""
    output = tmp_path / "judged.jsonl"
    two = [{**RECORDS[0], "candidates": RECORDS[0]["candidates"][:2]}]
    answers.write_text("".join(json.dumps(record) + "\n" for record in two), encoding="utf-8")
    server.faults = [Fault("judge", 503, times=2)]
    command = ["annotate", str(answers), *judge, "--output", str(output)]
    assert main(command) == 2
    assert "the judge never replied about the record" in capsys.readouterr().err
    assert output.read_text(encoding="utf-8") == ""
    assert main(command) == 0
    assert len(lines(output)[0]["cmp_results"]) == 1


def test_a_judge_that_goes_away_loses_nothing(
    server: LanguageServer,
    answers: Path,
    judge: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "judged.jsonl"
    command = ["annotate", str(answers), *judge, "--output", str(output)]
    server.faults = [Fault("judge", 401, times=1000)]
    assert main(command) == 2
    assert "the judge judge can't be asked any more: the token was refused" in capsys.readouterr().err
    server.reset()
    server.answers["judge"] = longer
    assert main(command) == 0
    assert [record["id"] for record in lines(output)] == [*"012345"]


def test_the_output_of_another_job_is_left_alone(
    server: LanguageServer,
    answers: Path,
    judge: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "judged.jsonl"
    assert main(["annotate", str(answers), *judge, "--output", str(output), "--limit", "1"]) == 0
    other = ["--judge", f"other={server.url}#judge"]
    assert main(["annotate", str(answers), *other, "--output", str(output)]) == 2
    assert "the judge was judge, not other" in capsys.readouterr().err
    assert main(["annotate", str(answers), *judge, "--output", str(answers)]) == 2
    assert "is the input itself" in capsys.readouterr().err
    for content in ('{"id": 1}\n', '{"id": 1}', '{"id": 1}\n{"id'):
        output.write_text(content)
        assert main(["annotate", str(answers), *judge, "--output", str(output)]) == 2
        assert "is no output of `blender-hf annotate`" in capsys.readouterr().err
        assert output.read_text() == content
    strange = tmp_path / "strange.jsonl"
    strange.write_text(json.dumps({**RECORDS[0], "note": "\ud83d"}) + "\n")
    assert main(["annotate", str(strange), *judge]) == 2
    assert "strange.jsonl:1: contains a lone surrogate ('\\ud83d')" in capsys.readouterr().err


@pytest.mark.parametrize("name", SHAPES)
def test_records_of_every_shape_are_judged_and_read_again(
    name: str, judge: list[str], server: LanguageServer, tmp_path: Path
) -> None:
    shape, source, output = SHAPES[name], tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(json.dumps(shape.record) + "\n", encoding="utf-8")
    command = ["annotate", str(source), *judge, "--output", str(output)]
    assert main(command) == 0
    [record] = read_records(output)
    assert (record.item.source, set(record.item.texts)) == (shape.source, shape.candidates)
    [prompt] = read_labelled(output)
    assert len(prompt.pairs) == len(shape.candidates) * (len(shape.candidates) - 1) / 2
    server.reset()
    assert main(command) == 0
    assert not server.requests, "what is done is known again"
