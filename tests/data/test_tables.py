"""Answers in several rows or columns of a table become one record, for every reader alike."""

from pathlib import Path
from typing import Any

import pytest

from blender_hf.data.labelled_formats import read_labelled
from blender_hf.data.sources import read_records
from blender_hf.errors import InputError

pytestmark = pytest.mark.once


def table(folder: Path, text: str, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def read(path: Path, **options: Any) -> list[tuple[str, list[tuple[str, str | None]]]]:
    found = read_records(path, **options)
    return [(r.item.source, [(c.text, c.model) for c in r.item.candidates]) for r in found]


ARENA = "id,model_a,model_b,prompt,response_a,response_b,winner_model_a,winner_model_b,winner_tie\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (ARENA + "1,alpha,beta,p,Lima.,Bananas.,1,0,0\n", [("p", [("Lima.", "alpha"), ("Bananas.", "beta")])]),
        (
            ARENA + '1,alpha,beta,"[""p""]","[""Lima.""]","[""Bananas.""]",1,0,0\n',
            [("p", [("Lima.", "alpha"), ("Bananas.", "beta")])],
        ),
        ("prompt,response_1,response_2,preference_strength\np,4,5,-3\n", [("p", [("4", None), ("5", None)])]),
        (
            "Unnamed: 0,prompt,gpt,llama\n0,p,4,5\n1,q,a,\n",
            [("p", [("4", "gpt"), ("5", "llama")]), ("q", [("a", "gpt")])],
        ),
        (",prompt,gpt\n0,p,4\n", [("p", [("4", "gpt")])]),
        (
            "question,system,gpt,llama,category,length\np,s,4,5,math,3\n",
            [("SYSTEM: s\nUSER: p", [("4", "gpt"), ("5", "llama")])],
        ),
        (
            "prompt,model,answer\np,a,4\nq,a,5\np,b,6\nq,b,\n",
            [("p", [("4", "a"), ("6", "b")]), ("q", [("5", "a"), ("", "b")])],
        ),
        (
            "prompt,response,helpfulness,correctness\np,4,3,4\np,5,1,1\n",
            [("p", [("4", None), ("5", None)])],
        ),
        ('prompt,candidates\np,"[""4"", ""5""]"\n', [("p", [("4", None), ("5", None)])]),
        (
            'messages,responses,models\n"[{""role"": ""user"", ""content"": ""p""}]","[""4"",""5""]","[""a"",""b""]"\n',
            [("p", [("4", "a"), ("5", "b")])],
        ),
        ("instruction,input,output,generator\ni,p,4,a\ni,p,5,b\n", [("i\np", [("4", "a"), ("5", "b")])]),
        ("prompt;gpt;llama\np, q;4;5\n", [("p, q", [("4", "gpt"), ("5", "llama")])]),
        ("sep=;\r\nprompt;gpt\r\np;4\r\n", [("p", [("4", "gpt")])]),
        ("prompt\tgpt\np\t4\n", [("p", [("4", "gpt")])]),
        ("Prompt, Model A, Model B\np,4,5\n", [("p", [("4", "Model A"), ("5", "Model B")])]),
        ("ID,Question,Model,Answer\n1,p,a,4\n2,p,b,5\n", [("p", [("4", "a"), ("5", "b")])]),
        (
            "prompt,chosen,rejected\np,\"[{'role': 'assistant', 'content': '4'}]\",5\n",
            [("p", [("4", None), ("5", None)])],
        ),
    ],
    ids=[
        "Arena",
        "Arena's turns",
        "HelpSteer2",
        "pandas",
        "unnamed",
        "metadata",
        "long",
        "HelpSteer2 rows",
        "JSON",
        "JSON messages",
        "alpaca",
        "semicolons",
        "Excel",
        "tabs",
        "capitals",
        "ids of rows",
        "messages of Python",
    ],
)
def test_a_table_is_read_as_what_it_is(
    text: str, found: list[Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = table(tmp_path, text)
    assert read(path) == found
    labelled = [(p.item.source, [(c.text, c.model) for c in p.item.candidates]) for p in read_labelled(path)]
    assert labelled == found
    assert not caplog.messages


def test_a_column_that_is_called_nothing_known_can_be_stated(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no prompt was found"):
        read(table(tmp_path, "frage,gpt,llama\np,a,b\n"))
    path = table(tmp_path, "frage,gpt,elo\np,an answer,1200\n")
    assert read(path, columns={"prompt": "frage", "candidates": ["gpt", "elo"]}) == [
        ("p", [("an answer", "gpt"), ("1200", "elo")])
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "prompt,gpt,llama,elo\np,some,text,1200\n",
            r'table.csv:2: the column "elo" has numbers where other columns have texts.*--columns candidates=gpt,llama',
        ),
        ("prompt,gpt,is_right_\np,a,True\nq,b,False\n", None),
        ("prompt,gpt,gpt\np,a,b\n", r'table.csv:1: two columns are called "gpt"; rename or drop one'),
        ("prompt,gpt\np,a\nq,b,c\n", r"table.csv:3: the cell 'c' stands in column 3, and the header has 2 columns"),
        ("prompt,answer,response\np,a,b\n", r'table.csv:2: "response" and "answer" may both be the answer'),
        ("prompt,answer\np,a\nq,b\n", r"table.csv:2: this and every other record has one answer to its prompt"),
        ("prompt,score\np,3\n", r"table.csv:2: no candidates were found"),
        ("prompt,response_a\np,a\n", r"table.csv:2: no candidates were found"),
    ],
)
def test_what_is_not_certain_in_a_table(text: str, message: str | None, tmp_path: Path) -> None:
    if message is None:
        assert read(table(tmp_path, text))
        return
    with pytest.raises(InputError, match=message):
        read(table(tmp_path, text))


def test_good_answers_are_no_models(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = table(tmp_path, "prompt,gpt,llama,Ground Truth,solution\np,a,b,c,d\n")
    assert [model for _, model in read(path)[0][1]] == ["gpt", "llama"]
    assert caplog.messages == [f'{path}: not read: "ground_truth", "solution"']


def test_verdicts_of_rows(tmp_path: Path) -> None:
    lines = '{"prompt": "p", "completion": "4", "label": true}\n{"prompt": "p", "completion": "5", "label": false}\n'
    [prompt] = read_labelled(table(tmp_path, lines, "kto.jsonl"))
    assert [(pair.a, pair.b, pair.label) for pair in prompt.pairs] == [(0, 1, 1.0)]
    [prompt] = read_labelled(table(tmp_path, "prompt,response,helpfulness,verbosity\np,4,3,1\np,5,1,2\n"))
    assert prompt.scores == {"helpfulness": (3.0, 1.0), "verbosity": (1.0, 2.0)}
    [prompt] = read_labelled(table(tmp_path, ARENA + "1,alpha,beta,p,Lima.,Bananas.,0,0,1\n"))
    assert [pair.label for pair in prompt.pairs] == [0.5]


def test_rows_of_one_prompt_keep_what_is_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = '{"prompt": "p", "response": "4", "foo": 1}\n{"prompt": "p", "response": "5", "foo": 2}\n'
    path = table(tmp_path, lines, "rows.jsonl")
    assert read(path) == [("p", [("4", None), ("5", None)])]
    assert caplog.messages == [f'{path}: not read: "foo"']
