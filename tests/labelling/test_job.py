"""Whole jobs: what they write, what they refuse, and that stopping them anywhere changes nothing."""

import gzip
import itertools
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest

from blender_hf import Blender
from blender_hf.data.sources import open_source
from blender_hf.engine.schedules import Schedule
from blender_hf.errors import InputError
from blender_hf.labelling.filters import Filters
from blender_hf.labelling.formats import FORMATS
from blender_hf.labelling.job import label, work_here
from blender_hf.labelling.parts import Part
from blender_hf.labelling.settings import LabelSettings, RankingSettings, Shard

from .conftest import N_RECORDS, Called, CountedSource, rows_of, small_settings, written

pytestmark = pytest.mark.usefixtures("called")


class Killed(BaseException):
    """Stands for the end of a process: nothing in the library handles it."""


def files(folder: Path, stem: str) -> dict[str, bytes]:
    return {path.name.removeprefix(stem): path.read_bytes() for path in folder.glob(f"{stem}*") if path.is_file()}


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_as_lines_and_as_parquet(data: Path, tmp_path: Path, form: str) -> None:
    summaries = [
        label(open_source(data), tmp_path / f"out{suffix}", small_settings(form=form))
        for suffix in (".jsonl", ".jsonl.gz", ".parquet")
    ]
    rows = rows_of(tmp_path / "out.jsonl")
    assert gzip.decompress((tmp_path / "out.jsonl.gz").read_bytes()) == (tmp_path / "out.jsonl").read_bytes()
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.to_pylist() == rows
    assert datasets.Dataset.from_parquet(str(tmp_path / "out.parquet"), cache_dir=tmp_path / "cache").num_rows == len(
        rows
    )
    for summary in summaries:
        assert (summary["records"], summary["rows"], summary["bad"]) == (N_RECORDS, len(rows), 0)
        assert summary["resumed"] == 0
    assert not list(tmp_path.glob("*.parts*"))


def test_rows_are_what_rank_says(data: Path, values: list[dict[str, Any]], tmp_path: Path, blender: Blender) -> None:
    label(open_source(data), tmp_path / "out.jsonl", small_settings())
    rows = {row["id"]: row for row in rows_of(tmp_path / "out.jsonl")}
    for value in values:
        ranking = blender.rank(value["prompt"], value["candidates"])
        best, worst = ranking.order[0], ranking.order[-1]
        margin = ranking.comparisons[best][worst]
        if value["id"] not in rows:
            assert margin <= 0
            continue
        row = rows[value["id"]]
        assert (row["chosen"], row["rejected"]) == (ranking.best, ranking.worst)
        assert row["margin"] == pytest.approx(margin, abs=1e-5)
        assert row["model_chosen"] == ranking.models[best]
    assert len(rows) > 5


def test_conversations(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]
    turns = {"messages": [*chat, {"role": "user", "content": "2 + 2?"}], "candidates": ["4", "Bananas."]}
    text = {"prompt": "3 + 3?", "candidates": ["6", "Bananas."]}
    for first, second, kind in ((turns, text, list), (text, turns, str)):
        source = open_source(written(tmp_path / "in.jsonl", [first, second]))
        label(source, tmp_path / "out.parquet", small_settings(form="kto"), restart=True)
        rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
        assert {type(row["prompt"]) for row in rows} == {type(row["completion"]) for row in rows} == {kind}


@pytest.mark.parametrize(
    ("filters", "reason"),
    [
        (Filters(min_margin=0.1), "margin"),
        (Filters(min_probability=0.55), "probability"),
        (Filters(min_candidates=5), "candidates"),
        (Filters(drop_flips=True), "flip"),
    ],
)
def test_what_is_left_out_is_counted(data: Path, tmp_path: Path, filters: Filters, reason: str) -> None:
    everything = label(open_source(data), tmp_path / "all.jsonl", small_settings(pairs="all"))
    summary = label(open_source(data), tmp_path / "out.jsonl", small_settings(pairs="all", filters=filters))
    assert summary["filtered"][reason] > 0
    kept = rows_of(tmp_path / "out.jsonl")
    assert len(kept) == summary["rows"] < everything["rows"]
    assert all(row in rows_of(tmp_path / "all.jsonl") for row in kept)
    if reason != "candidates":
        assert sum(summary["filtered"].values()) == sum(everything["filtered"].values()) + everything["rows"] - len(
            kept
        )


@pytest.mark.parametrize(("form", "pairs"), [("dpo", "best-random"), ("rewards", "best-worst")])
def test_shards_together_are_the_whole(data: Path, tmp_path: Path, form: str, pairs: str) -> None:
    settings = {"form": form, "pairs": pairs, "limit": 10}
    label(open_source(data), tmp_path / "whole.jsonl", small_settings(**settings))
    whole = rows_of(tmp_path / "whole.jsonl")
    shards = []
    for number in (1, 2, 3):
        output = tmp_path / f"{number}.jsonl"
        label(open_source(data), output, small_settings(**settings, shard=Shard(number, 3)))
        shards += rows_of(output)
    assert len(shards) == len(whole)
    for row in whole:
        # A shard has other batches, which may change the last bits of a logit.
        assert any(same(row, other) for other in shards)


def same(row: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(
        value == (pytest.approx(other[name], abs=1e-5) if isinstance(value, float) else other[name])
        for name, value in row.items()
    )


def test_bad_lines_stop_it_before_any_work(values: list[dict[str, Any]], tmp_path: Path, called: Called) -> None:
    data = written(tmp_path / "in.jsonl", [*values[:3], '{"prompt": "p", "cand', values[3], "[]"])
    with pytest.raises(InputError, match=r"in.jsonl:4: not valid JSON.*\(2 bad in all; .*--skip-bad"):
        label(open_source(data), tmp_path / "out.jsonl", small_settings())
    assert called.loads == 0
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]
    # The file is corrected, and nothing of the first try is in the way.
    written(data, values[:4])
    assert label(open_source(data), tmp_path / "out.jsonl", small_settings())["records"] == 4


def test_bad_lines_are_logged_and_passed_over(values: list[dict[str, Any]], tmp_path: Path) -> None:
    data = written(tmp_path / "in.jsonl", [values[0], "{", "", *values[1:], '{"prompt": "p", "candidates": []}'])
    summary = label(open_source(data), tmp_path / "out.jsonl", small_settings(form="rankings", skip_bad=True))
    assert (summary["records"], summary["rows"], summary["bad"]) == (N_RECORDS + 2, N_RECORDS, 2)
    bad = rows_of(Path(summary["bad_file"]))
    assert [line["line"] for line in bad] == [2, N_RECORDS + 3]
    assert "in.jsonl:2: not valid JSON" in bad[0]["reason"]
    assert "there are no candidates" in bad[1]["reason"]
    assert [row["id"] for row in rows_of(tmp_path / "out.jsonl")] == [value["id"] for value in values]


def test_a_stream_stops_at_a_bad_record_and_goes_on_with_skip_bad(
    values: list[dict[str, Any]], tmp_path: Path, called: Called
) -> None:
    source = CountedSource(lambda: iter([*values[:5], {"prompt": "p"}, *values[5:]]))
    with pytest.raises(InputError, match="record 6: no candidates were found"):
        label(source, tmp_path / "out.jsonl", small_settings(form="rankings"))
    assert len(called.items) == 4
    summary = label(source, tmp_path / "out.jsonl", small_settings(form="rankings", skip_bad=True))
    assert (summary["resumed"], summary["records"], summary["rows"]) == (4, N_RECORDS + 1, N_RECORDS)
    assert called.items == [value["prompt"] for value in values]


def stopped_after(n_parts: int) -> Callable[..., Any]:
    """Return an engine that is killed after some parts."""

    def engine(*arguments: Any) -> Any:
        for number, part in enumerate(work_here(*arguments), 1):
            yield part
            if number == n_parts:
                raise Killed

    return engine


def test_it_goes_on_where_it_was(data: Path, tmp_path: Path, called: Called) -> None:
    label(open_source(data), tmp_path / "whole.jsonl", small_settings())
    called.items.clear()
    with pytest.raises(Killed):
        label(open_source(data), tmp_path / "out.jsonl", small_settings(), engine=stopped_after(2))
    assert not (tmp_path / "out.jsonl").exists()
    summary = label(open_source(data), tmp_path / "out.jsonl", small_settings())
    assert (summary["resumed"], summary["records"]) == (4, N_RECORDS)
    assert len(called.items) == N_RECORDS
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_finished_job_is_not_done_again(data: Path, tmp_path: Path, called: Called) -> None:
    first = label(open_source(data), tmp_path / "out.jsonl", small_settings())
    again = label(open_source(data), tmp_path / "out.jsonl", small_settings())
    assert called.loads == 1
    assert again["resumed"] == again["records"] == first["records"]
    assert again["records_per_second"] is None
    with pytest.raises(InputError, match=r"out.jsonl was made with other settings: format was 'dpo' and is 'kto'"):
        label(open_source(data), tmp_path / "out.jsonl", small_settings(form="kto"))
    assert label(open_source(data), tmp_path / "out.jsonl", small_settings(form="kto"), restart=True)["resumed"] == 0


CHANGES: tuple[dict[str, Any], ...] = (
    {"form": "kto"},
    {"part_size": 3},
    {"limit": 9},
    {"shard": Shard(1, 2)},
    {"filters": Filters(min_margin=0.5)},
    {"ranking": RankingSettings(schedule=Schedule("knockout"))},
    {"ranking": RankingSettings(aggregation="max_wins")},
    {"ranking": RankingSettings({"dtype": "bfloat16"})},
)


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_other_settings_are_an_error(data: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(Killed):
        label(open_source(data), tmp_path / "out.jsonl", small_settings(), engine=stopped_after(1))
    with pytest.raises(InputError, match="was made with other settings"):
        label(open_source(data), tmp_path / "out.jsonl", small_settings(**change))


def test_an_input_that_changed_is_an_error(data: Path, values: list[dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(Killed):
        label(open_source(data), tmp_path / "out.jsonl", small_settings(), engine=stopped_after(1))
    written(data, values[1:])
    with pytest.raises(InputError, match="other settings: input size was"):
        label(open_source(data), tmp_path / "out.jsonl", small_settings())


def test_it_may_go_on_elsewhere_and_faster(data: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        label(open_source(data), tmp_path / "out.jsonl", small_settings(), engine=stopped_after(1))
    moved = data.rename(tmp_path / "moved.jsonl")
    os.utime(moved)
    ranking = RankingSettings({"device": "cpu", "max_batch_tokens": 512}, window=4)
    assert label(open_source(moved), tmp_path / "out.jsonl", small_settings(ranking=ranking))["resumed"] == 2


def test_the_weights_of_a_ranker_are_a_setting(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ranker"
    folder.mkdir()
    settings = small_settings(ranking=RankingSettings({"ranker": str(folder)}))
    (folder / "model.safetensors").write_bytes(b"one")
    with pytest.raises(Killed):
        label(open_source(data), tmp_path / "out.jsonl", settings, engine=stopped_after(1))
    (folder / "model.safetensors").write_bytes(b"two")
    with pytest.raises(InputError, match="other settings: weights was"):
        label(open_source(data), tmp_path / "out.jsonl", settings)


def test_parts_without_settings_are_discarded(data: Path, tmp_path: Path) -> None:
    """They are left over from a job that was being discarded when the process was killed."""
    with pytest.raises(Killed):
        label(open_source(data), tmp_path / "out.jsonl", small_settings(), engine=stopped_after(1))
    (tmp_path / "out.jsonl.label.json").unlink()
    assert label(open_source(data), tmp_path / "out.jsonl", small_settings(form="kto"))["resumed"] == 0


def test_killed_in_the_middle_of_a_line(data: Path, tmp_path: Path) -> None:
    label(open_source(data), tmp_path / "whole.jsonl", small_settings())
    with pytest.raises(Killed):
        label(open_source(data), tmp_path / "out.jsonl", small_settings(), engine=stopped_after(3))
    log, about = tmp_path / "out.jsonl.parts.jsonl", tmp_path / "out.jsonl.label.json"
    lines, settings = log.read_bytes(), about.read_bytes()
    for place in random.Random(0).sample(range(len(lines)), 8):
        (tmp_path / "out.jsonl").unlink(missing_ok=True)
        log.write_bytes(lines[:place])
        about.write_bytes(settings)
        resumed = label(open_source(data), tmp_path / "out.jsonl", small_settings())["resumed"]
        assert resumed == 2 * lines[:place].count(b"\n")
        assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_stream_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the input can be read only once.*give a file"):
        label(open_source("-"), tmp_path / "out.jsonl", small_settings())


STEPS = ((".jsonl", ("replace", "fsync", "unlink")), (".parquet", ("replace",)))


@pytest.mark.parametrize(("suffix", "names"), STEPS)
def test_killed_at_every_step_of_every_file(
    values: list[dict[str, Any]],
    tmp_path: Path,
    suffix: str,
    names: tuple[str, ...],
    checkpoints: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before and after each time that something reaches the disk: the steps between which a process can die."""
    data = written(tmp_path / "in.jsonl", [values[0], "{", values[5]])
    # A small ranker, for its digest is made in every try.
    ranking = RankingSettings({"ranker": str(checkpoints / "ranker")})
    settings = small_settings(form="rewards", skip_bad=True, ranking=ranking)
    label(open_source(data), tmp_path / f"whole{suffix}", settings)
    expected = files(tmp_path, "whole")

    def killing(name: str, at: int, after: bool) -> bool:
        """Kill a job at one step, go on with it, and say whether there was such a step."""
        steps = itertools.count(1)
        real: Callable[..., Any] = getattr(os, name)

        def step(*arguments: Any, **options: Any) -> Any:
            due = next(steps) == at
            if due and not after:
                raise Killed
            result = real(*arguments, **options)
            if due:
                raise Killed
            return result

        output = tmp_path / f"{name}-{at}-{after}{suffix}"
        with monkeypatch.context() as patch:
            patch.setattr(os, name, step)
            try:
                label(open_source(data), output, settings)
            except Killed:
                killed = True
            else:
                killed = False
        summary = label(open_source(data), output, settings)
        assert (summary["records"], summary["bad"]) == (3, 1)
        found = files(tmp_path, output.name.removesuffix(suffix))
        assert set(found) == set(expected)
        assert all(found[name] == expected[name] for name in (suffix, f"{suffix}.bad.jsonl"))
        return killed

    for name in names:
        for after in (False, True):
            n_steps = next(at for at in itertools.count(1) if not killing(name, at, after)) - 1
            assert n_steps > 0
    assert not list(tmp_path.glob("*.parts"))


def test_memory_is_constant_in_the_number_of_prompts(tmp_path: Path) -> None:
    """An endless source is never read further than a part ahead of the rows that are on the disk."""
    source = CountedSource(
        lambda: ({"prompt": f"{n} + {n}?", "candidates": [str(2 * n), "?"]} for n in itertools.count())
    )
    settings = small_settings(part_size=8)
    done = 0

    def engine(*arguments: Any) -> Any:
        nonlocal done
        for part in work_here(*arguments):
            assert isinstance(part, Part)
            assert source.n_read <= done + settings.part_size
            yield part
            done += part.records
            if done >= 100:
                raise Killed

    with pytest.raises(Killed):
        label(source, tmp_path / "out.jsonl", settings, engine=engine)


def test_an_output_is_never_overwritten_unasked(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    output.write_text("mine")
    with pytest.raises(InputError, match=r"out.jsonl exists; give another --output, or --restart"):
        label(open_source(data), output, small_settings())
    assert output.read_text() == "mine"
    label(open_source(data), output, small_settings(), restart=True)
    assert len(rows_of(output)) > 5


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("in.jsonl", "is the input itself"),
        ("out.csv", r"ends in one of .jsonl, .jsonl.gz, .parquet"),
        ("missing/out.jsonl", "its folder does not exist"),
    ],
)
def test_outputs_that_cannot_be_written(data: Path, tmp_path: Path, output: str, message: str) -> None:
    before = data.read_bytes()
    with pytest.raises(InputError, match=message):
        label(open_source(data), tmp_path / output, small_settings(), restart=True)
    assert data.read_bytes() == before


def test_an_empty_source(tmp_path: Path, called: Called) -> None:
    (tmp_path / "in.jsonl").touch()
    summary = label(open_source(tmp_path / "in.jsonl"), tmp_path / "out.parquet", small_settings())
    assert (summary["records"], summary["rows"], called.loads) == (0, 0, 0)
    table = pq.read_table(tmp_path / "out.parquet")
    assert (table.num_rows, table.column_names) == (0, list(FORMATS["dpo"].columns))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LabelSettings(form="ppo"), "unknown format 'ppo'"),
        (lambda: LabelSettings(pairs="x"), "unknown choice of pairs"),
        (lambda: LabelSettings(part_size=0), "part_size=0"),
        (lambda: Shard(3, 2), "no shard 3 of 2"),
        (lambda: RankingSettings(aggregation="x"), "unknown aggregation 'x'"),
        (
            lambda: LabelSettings(RankingSettings(schedule=Schedule(orders="one")), filters=Filters(drop_flips=True)),
            "remove --orders one",
        ),
    ],
)
def test_settings_that_do_not_exist(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_what_a_finished_job_says_of_itself(data: Path, tmp_path: Path) -> None:
    label(open_source(data), tmp_path / "out.jsonl", small_settings())
    about = json.loads((tmp_path / "out.jsonl.label.json").read_text())
    assert about["summary"]["records"] == N_RECORDS
    assert (about["settings"]["format"], about["settings"]["schedule"]) == ("dpo", "full")
