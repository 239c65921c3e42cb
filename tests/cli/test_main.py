"""The command line: what every command does alike, and `rank`, `fuse` and `blend`."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from blender_hf import Blender, __version__, make_item
from blender_hf.cli.main import COMMANDS, main, parser
from blender_hf.cli.results import rank_text
from blender_hf.engine.results import Truncation, make_ranking
from blender_hf.named_rankers import NAMED_RANKERS
from tests.conftest import EXAMPLES
from tests.forking import RUN_A_COMMAND, Streams, forked
from tests.language_server import Fault, LanguageServer

RECORDS = [
    {"id": "one", "prompt": "2 + 2?", "candidates": ["4", {"text": "5", "model": "parrot"}, "It is 4. Yes."]},
    {"prompt": "q", "candidates": ["only"]},
    {"id": 7, "instruction": "Reply.", "input": "Hello", "candidates": [{"model": "m", "text": "a"}, {"text": "b"}]},
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS), encoding="utf-8")
    return path


@pytest.fixture
def models(checkpoints: Path) -> list[str]:
    return ["--ranker", str(checkpoints / "ranker"), "--fuser", str(checkpoints / "fuser"), "--device", "cpu"]


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_blend(file: Path, models: list[str], checkpoints: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["blend", str(file), *models]) == 0
    out, err = capsys.readouterr()
    first, second, third = lines(out)
    assert [first["id"], second["id"], third["id"]] == ["one", "2", "7"]
    assert third["prompt"] == "Reply.\nHello"
    blend = Blender.from_pretrained(checkpoints / "ranker", checkpoints / "fuser").blend(
        "2 + 2?", RECORDS[0]["candidates"]
    )
    full = blend.to_dict()
    for name in ("best", "fused", "fused_from", "returned", "output"):
        assert first[name] == full[name]
    names = (
        "order",
        "ranks",
        "scores",
        "models",
        "schedule",
        "n_comparisons",
        "n_encodings",
        "flip_rate",
        "n_cycles",
        "truncated",
        "unread",
    )
    assert set(first["ranking"]) == set(names)
    assert first["ranking"]["order"] == full["ranking"]["order"]
    assert (second["output"], second["returned"], second["fused"]) == ("only", "best", None)
    assert "3/3" in err


def test_rank_and_fuse(file: Path, models: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", str(file), *models[:2], "--aggregation", "max_wins", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert set(lines(out)[0]) == {"id", "prompt", "candidates", "ranking", "best"}
    assert err == ""
    assert main(["fuse", str(file), *models, "--max-new-tokens", "5"]) == 0
    assert [line["fused_from"] for line in lines(capsys.readouterr().out)] == [[0, 1, 2], [0], [0, 1]]


def test_a_summary_for_people_and_for_machines(
    file: Path, models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.jsonl"
    assert main(["rank", str(file), *models[:2], "--output", str(output), "--json"]) == 0
    out, err = capsys.readouterr()
    [summary] = lines(out)
    assert (summary["command"], summary["prompts"], summary["output"]) == ("rank", 3, str(output))
    assert "rank: 3 prompts in" in err.splitlines()[-1]
    assert main(["rank", str(file), *models[:2], "--json"]) == 2
    assert "add --output" in capsys.readouterr().err


def test_options_reach_the_work(file: Path, models: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["blend", str(file), *models, "--no-fallback", "--top-k", "2", "--limit", "1", "--num-beams", "2"]) == 0
    [line] = lines(capsys.readouterr().out)
    assert line["returned"] == "fused"
    assert len(line["fused_from"]) == 2


def test_text_for_people(file: Path, models: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["blend", str(file), *models, "--format", "text"]) == 0
    out = capsys.readouterr().out
    assert "== one ====" in out
    assert "parrot" in out
    assert "Returned: the best candidate (there are not two different candidates to fuse)" in out
    for command in (["rank", *models[:2]], ["fuse", *models]):
        assert main([command[0], str(file), *command[1:], "--format", "text"]) == 0
        assert "Reply." in capsys.readouterr().out


def test_a_fuser_that_can_not_be_reached_is_an_error_that_keeps_the_rankings(
    file: Path, models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It took 23 seconds, said that no two candidates were different, and ended with code 0."""
    reason = "the fuser m gave no answer: the connection was refused: no server listens at its address"
    command = ["blend", str(file), *models[:2], "--fuser", "chat:http://127.0.0.1:9/v1#m"]
    output = tmp_path / "out.jsonl"
    assert main([*command, "--output", str(output), "--json"]) == 2
    out, err = capsys.readouterr()
    first, second, third = lines(output.read_text(encoding="utf-8"))
    assert [(line["fused"], line["fusion_error"]) for line in (first, third)] == [(None, reason)] * 2
    assert (first["output"], first["returned"], second["fusion_error"]) == (first["best"], "best", None)
    [summary] = lines(out)
    assert (summary["fused"], summary["fusion_errors"]) == (0, {reason: 2})
    assert err.splitlines()[-1].startswith(f"blender-hf: error: nothing could be fused: {reason}")
    assert main([*command, "--format", "text"]) == 2
    out = capsys.readouterr().out
    assert out.count(f"Returned: the best candidate ({reason})") == 2
    assert out.count("there are not two different candidates to fuse") == 1


def test_a_prompt_that_is_not_fused_is_no_error_of_the_others(
    file: Path, models: list[str], server: LanguageServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.faults = [Fault("echo", 400, message="too long")]
    fuser = ["--fuser", f"chat:{server.url}#echo", "--batch-size", "1"]
    assert main(["blend", str(file), *models[:2], *fuser]) == 0
    out, err = capsys.readouterr()
    assert [(line["fused"] is None, line["fusion_error"] is None) for line in lines(out)] == [
        (True, False),
        (True, True),
        (False, True),
    ]
    assert "1 not fused: the fuser echo gave no answer: the server answered 400 (too long)" in err.splitlines()[-1]


def test_what_a_person_reads_is_not_crossed_by_a_bar(
    file: Path, models: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*models[:2], "--limit", "1"]
    assert main(["rank", str(file), *options, "--format", "text"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("blender-hf: rank: 1 prompt in ")
    assert main(["rank", str(file), *options]) == 0
    assert "1/1 [" in capsys.readouterr().err  # of JSON lines, which go to a file or a program


@pytest.mark.once
def test_length_counts_for_nothing_if_asked(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["rank", str(file), "--device", "cpu", "--quiet", "--limit", "1"]
    scores = []
    for option in ([], ["--length-neutral"]):
        assert main([*command, *option]) == 0
        scores.append(lines(capsys.readouterr().out)[0]["ranking"]["scores"])
    assert scores[0] != scores[1]
    assert main([*command, "--length-neutral", "--ranker", "pair-ranker-base"]) == 2
    assert "'pair-ranker-base' has none (distinct_token_weight); remove length_neutral" in capsys.readouterr().err


@pytest.mark.once
def test_a_baseline_is_a_ranker(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", str(file), "--ranker", "length", "--quiet"]) == 0
    assert [line["best"] for line in lines(capsys.readouterr().out)] == ["It is 4. Yes.", "only", "a"]
    assert main(["rank", str(file), "--ranker", "mlm", "--quiet"]) == 2
    assert "there is no ranker 'mlm'; write mlm:... with a masked language model" in capsys.readouterr().err


@pytest.mark.once
def test_nothing_is_negative_zero() -> None:
    """A tie by a hair was shown as -0.00."""
    item = make_item("2 + 2?", ["4", "5"])
    options = {"temperature": 1.0, "truncated": Truncation(0, (0, 0)), "schedule": "full"}
    table = rank_text(make_ranking(item, ((0.0, 1e-3), (-1e-3, 0.0)), "max_logits", **options))
    assert "-0.00" not in table
    assert table.count("+0.00") == 2


def test_output_file(file: Path, models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out.jsonl"
    assert main(["rank", str(file), *models[:2], "--output", str(output)]) == 0
    assert capsys.readouterr().out == ""
    assert len(lines(output.read_text(encoding="utf-8"))) == 3


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_read_once(file: Path, models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As of a shell's <(...): what was read to check it was gone when it was to be ranked."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(file.read_bytes()))
    writer.start()
    assert main(["rank", str(pipe), *models[:2], "--quiet"]) == 0
    writer.join(10)
    assert len(lines(capsys.readouterr().out)) == 3


def test_closed_streams_are_named(
    file: Path, models: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert main(["rank", *models[:2], "--quiet"]) == 2
    assert "the standard input is closed: name a file" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdout", None)
    assert main(["rank", str(file), *models[:2], "--quiet"]) == 2
    assert "the standard output is closed: name a file with --output" in capsys.readouterr().err


def test_an_empty_file_gives_no_results(tmp_path: Path, models: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.jsonl").touch()
    assert main(["rank", str(tmp_path / "empty.jsonl"), *models[:2]]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["{file}", "--ranker", "no/such"], "can't load the ranker 'no/such'"),
        (["{file}", "--aggregation", "best"], "unknown aggregation 'best'"),
        (["{file}", "--device", "abacus"], "the device 'abacus' can't be used"),
        (["{file}", "--dtype", "int3"], "unknown dtype 'int3'"),
        (["{file}", "--output", "{file}"], "is the input itself"),
        (["{file}", "--output", "/no/such/folder/out"], "its folder does not exist"),
        (["missing.jsonl"], "can't read missing.jsonl: No such file or directory"),
        (["{file}", "--top-k", "2"], "--top-k 2 has no meaning for --schedule full"),
        (["{file}", "--revision", "main"], "is a local checkpoint and has no revisions"),
    ],
)
def test_errors_are_one_line_and_code_2(
    file: Path, models: list[str], change: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [part.format(file=file) for part in change]
    assert main(["rank", *models[:2], *arguments, "--local-files-only"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    last = err.splitlines()[-1]
    assert last.startswith("blender-hf: error: ")
    assert message in last
    assert len(file.read_text(encoding="utf-8").splitlines()) == 3


def test_a_bad_line_stops_before_any_work(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with file.open("a", encoding="utf-8") as lines_:
        lines_.write('{"prompt": "p"\n')
    output = tmp_path / "out.jsonl"
    assert main(["rank", str(file), "--output", str(output), "--ranker", "no/such"]) == 2
    assert f"{file}:4: not valid JSON" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.once
def test_attention_is_chosen_and_a_name_that_does_not_exist_is_refused(
    file: Path, models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ["--output", str(tmp_path / "out.jsonl")]

    def scores(*options: str) -> list[object]:
        assert main(["rank", str(file), *models[:2], "--quiet", *options]) == 0
        return [line["ranking"]["scores"][0] for line in lines(capsys.readouterr().out)]

    assert scores("--attn-implementation", "eager") == pytest.approx(scores("--attn-implementation", "sdpa"), abs=1e-5)
    for command in (["rank"], ["label", *output], ["generate", "--llm", "a", *output]):
        assert main([command[0], str(file), *command[1:], "--attn-implementation", "quick"]) == 2
        assert "unknown attn_implementation 'quick'; use one of eager" in capsys.readouterr().err


@pytest.mark.once
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rank", "--limit", "-1"], "argument --limit: '-1' is not a whole number of 0 or more"),
        (["blend", "--top-k", "x"], "argument --top-k: 'x' is not"),
        (["rank", "--tpo", "2"], "unknown option --tpo; did you mean --top-k? (see `blender-hf rank --help`)"),
        (["blend", "--Fuser_Revision=x"], "unknown option --Fuser_Revision; did you mean --fuser-revision?"),
        (["train", "ranker", "--config", "a", "--resum"], "unknown option --resum; did you mean --resume?"),
        (["rank", "--zzz"], "unknown option --zzz (see"),
        (["rank", "a", "b"], "unexpected argument 'b'"),
        (["label"], "the following arguments are required: DATA, --output"),
        (["export", "onx", "m", "out"], "invalid choice: 'onx' (choose from 'onnx')"),
        (["rnak", "a"], "unknown command 'rnak'; did you mean rank? (see `blender-hf --help`)"),
        (["Blend"], "did you mean blend?"),
        (["x"], "unknown command 'x' (see"),
        (["--verison"], "unknown option --verison; did you mean --version?"),
    ],
)
def test_what_is_misspelt_gets_a_suggestion_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("blender-hf: error: ")
    assert message in line


@pytest.mark.once
def test_without_arguments_it_shows_where_to_begin(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    shown = [line.split("  ")[1].split() for line in out.splitlines() if line.startswith("  blender-hf ")]
    assert [words[1] for words in shown] == ["demo", "rank", "blend"]
    for words in shown:
        assert parser().parse_args(words[1:]).command == words[1]


@pytest.mark.once
@pytest.mark.slow
def test_from_stdin_what_came_before_a_bad_line_is_written(models: list[str], tmp_path: Path) -> None:
    streams = Streams(tmp_path / "in", tmp_path / "out", tmp_path / "err")
    streams.stdin.write_text("\n".join([*map(json.dumps, RECORDS), "{", json.dumps(RECORDS[0])]), encoding="utf-8")
    assert forked(RUN_A_COMMAND, "rank", *models[:2], streams=streams).wait() == 2
    assert [line["id"] for line in lines(streams.stdout.read_text(encoding="utf-8"))] == ["one", "2", "7"]
    assert "<stdin>:4: not valid JSON" in streams.stderr.read_text(encoding="utf-8")


@pytest.mark.once
@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_reader_that_leaves_ends_it_quietly(models: list[str], tmp_path: Path) -> None:
    streams = Streams(stdout=tmp_path / "out", stderr=tmp_path / "err")
    os.mkfifo(streams.stdout)
    # More than a pipe holds.
    command = ["rank", str(EXAMPLES), "--batch-size", "1", "--quiet", *models[:2]]
    process = forked(RUN_A_COMMAND, *command, streams=streams)
    with streams.stdout.open(encoding="utf-8") as reader:
        assert json.loads(reader.readline())["ranking"]
    assert process.wait() == 141
    assert streams.stderr.read_text(encoding="utf-8") == ""


@pytest.mark.once
@pytest.mark.slow
@pytest.mark.parametrize("output", [[], ["--output", "/dev/full"]])
def test_a_full_disk_is_an_error_in_one_line(file: Path, models: list[str], output: list[str], tmp_path: Path) -> None:
    streams = Streams(stdout=Path("/dev/full"), stderr=tmp_path / "err")
    assert forked(RUN_A_COMMAND, "rank", str(file), *models[:2], "--quiet", *output, streams=streams).wait() == 2
    (line,) = (line for line in streams.stderr.read_text(encoding="utf-8").splitlines() if "can't read all" not in line)
    where = output[-1] if output else "stdout"
    remedy = "what was done before is kept" if output else "free some space and retry"
    assert line == f"blender-hf: error: can't write {where}: No space left on device; {remedy}"


@pytest.mark.once
@pytest.mark.slow
def test_stdout_is_utf_8_in_every_locale(models: list[str]) -> None:
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    record = json.dumps({"prompt": "caf\u00e9 \u4f60", "candidates": ["a", "b"]})
    command = [sys.executable, "-m", "blender_hf", "rank", *models[:2], "--quiet"]
    done = subprocess.run(command, input=record.encode(), capture_output=True, env=plain, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.decode("utf-8"))["prompt"] == "caf\u00e9 \u4f60"


LIGHT = """
import sys
from blender_hf.cli.main import main

for arguments in {commands!r}:
    print(arguments, file=sys.stderr)
    try:
        code = main(arguments)
    except SystemExit as end:
        code = end.code
    assert code == (0 if not arguments or {{"--help", "--version"}} & set(arguments) else 2)
    assert not {{"torch", "transformers"}} & sys.modules.keys()
"""


@pytest.mark.once
def test_help_and_mistakes_do_not_wait_for_the_models(file: Path) -> None:
    """Importing torch takes seconds; a newcomer's first `--help` should not."""
    commands = [[], ["--help"], ["--version"], ["rnak"], *([command.name, "--help"] for command in COMMANDS)]
    commands += [["rank", "--tpo"], ["rank", "--limit", "-1"], ["train", "judge", "--config", "run.yaml"]]
    for name in ("rank", "blend", "fuse"):
        commands += [[name, "missing.jsonl"], [name, str(file), "--output", str(file)], [name, str(file), "--json"]]
    commands += [["rank", str(file), "--top-k", "2"], ["rank", str(file), "--schedule", "some"]]
    commands += [["blend", str(file), "--fuser", "http://localhost:8000/v1"], ["fuse", str(file), "--fuser", "chat:"]]
    commands += [["blend", str(file), "--aggregation", "best"], ["rank", str(file), "--output", "/no/such/folder/out"]]
    commands += [["generate", "missing.jsonl", "--llm", "m"], ["annotate", "missing.jsonl", "--judge", "m"]]
    commands += [
        ["label", str(file), "--output", "out.jsonl", "--workers", "2"],
        ["label", str(file), "--shard", "0/1"],
    ]
    commands += [["evaluate", str(file), "--base", "vicuna"], ["evaluate", str(file), "--output", str(file)]]
    commands += [["convert", "pair-ranker-mini", str(file)], ["export", "onnx", "m", "out", "--tolerance", "0.3"]]
    commands += [["push", "ranker", "folder", "org/name", "--card", "missing.md"]]
    commands += [["train", "ranker", "--config", "missing.yaml"]]
    commands += [["label", "missing.jsonl", "--output", "out.jsonl"], ["evaluate", "missing.jsonl"]]
    command = [sys.executable, "-c", LIGHT.format(commands=commands)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "blend" in done.stdout
    assert __version__ in done.stdout


@pytest.mark.once
def test_help_tells_the_commands_apart(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert "rank Rank the candidates of each prompt fuse Write one" in out
    assert "blend Rank the candidates of each prompt, fuse the best" in out
    with pytest.raises(SystemExit):
        main(["fuse", "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert "which may name a fuser" in out
    assert "--max-batch-tokens" not in out
    assert all(name in out for name in NAMED_RANKERS)


@pytest.mark.once
def test_help_shows_an_example_of_the_input(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["blend", "--help"])
    out = capsys.readouterr().out
    assert '"candidates": ["4", {"text": "5", "model": "parrot"}]' in out
    assert "MixInstruct" in out


def test_a_schedule_saves_comparisons(file: Path, models: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--schedule", "knockout", "--orders", "one", "--aggregation", "copeland", "--top-k", "1"]
    assert main(["rank", str(file), "--quiet", *models[:2], *options]) == 0
    for line in capsys.readouterr().out.splitlines():
        ranking = json.loads(line)["ranking"]
        n = len(set(ranking["order"]))
        assert ranking["schedule"] == "knockout"
        assert ranking["n_comparisons"] <= n - 1
        assert ranking["flip_rate"] is None
