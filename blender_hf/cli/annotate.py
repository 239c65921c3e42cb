"""The command `annotate`: candidates in, the verdicts of a chat model on their pairs out."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice, tee
from typing import TYPE_CHECKING

from blender_hf.errors import BlenderError
from blender_hf.logs import counted, quieten_libraries

from .command import (
    LLM_FORMS,
    LLM_OPTIONS,
    OVERWRITE,
    QUIET,
    RECORD_OPTIONS,
    Command,
    Options,
    chosen_llms,
    option,
    record_source,
    whole,
)
from .output import Tally, check_records, report, shows_progress

if TYPE_CHECKING:
    from blender_hf.generation.annotation import JudgedRecord
    from blender_hf.generation.judge import Judgment


def run(options: Options) -> None:
    """Judge all pairs; each line is written complete, as soon as its record is judged."""
    output = check_records(options)
    from tqdm import tqdm

    from blender_hf.data.jobs import open_log, remaining
    from blender_hf.data.sources import checked_count
    from blender_hf.generation.annotation import judged_records, read_candidates
    from blender_hf.generation.judge import DEFAULT_WINDOW, Judge
    from blender_hf.generation.models import load_model
    from blender_hf.generation.sampling import Sampling
    from blender_hf.generation.specs import LocalLLM

    quieten_libraries()
    (llm,) = chosen_llms([options.judge], options)
    sampling = Sampling(max_new_tokens=options.max_new_tokens, temperature=0)
    settings = {"model": llm.origin, "dtype": options.dtype, **asdict(sampling)}
    # What a local model answers may depend on its batch, so a resumed run makes the same batches again.
    window = DEFAULT_WINDOW if isinstance(llm, LocalLLM) else None
    source = record_source(options)
    with open_log(output, ".annotate.json") as log:
        done: dict[str, str] = {}
        if not options.overwrite:
            done = judged_records(log, llm.label, source.columns)
            log.check(settings)

        def waiting() -> Iterator["JudgedRecord"]:
            return remaining(islice(read_candidates(source), options.limit), done, window)

        # A file is checked whole before a model is loaded.
        total = checked_count(source, waiting())
        judge = Judge(load_model(llm), sampling)
        tally = Tally(already=len(done))
        records, ahead = tee(waiting())
        judged = judge.iter(record.task for record in ahead)
        log.begin(settings, anew=options.overwrite)
        with tqdm(total=total, unit="prompt", disable=not shows_progress(options)) as bar:
            for judgments, record in zip(judged, records, strict=True):
                if record.id not in done and _count(tally, record, judgments):
                    log.append(record.judged(judgments, llm.label))
                bar.update()
    _report(options, tally)


def _count(tally: Tally, record: "JudgedRecord", judgments: Sequence["Judgment"]) -> bool:
    """Add the judgments of a prompt; return whether to write it, which is not so if the judge never replied."""
    written = not judgments or any(judgment.replied for judgment in judgments)
    tally.counts["written"] += written
    if not written:
        tally.failed.append(record.id)
    for judgment in judgments:
        tally.counts["reminders"] += judgment.reminders
        if judgment.verdict is None:
            tally.reasons["unjudged"][judgment.reason or ""] += 1
        else:
            tally.counts["verdict", judgment.verdict] += 1
            tally.counts["consistent"] += judgment.consistent
    return written


def _report(options: Options, tally: Tally) -> None:
    """Log and print the summary; fail if the judge never replied about a record."""
    from blender_hf.generation.verdicts import VERDICTS

    counts, seconds, unjudged = tally.counts, tally.seconds, tally.reasons["unjudged"]
    verdicts = {verdict: counts["verdict", verdict] for verdict in VERDICTS}
    judged = sum(verdicts.values())
    parts = [
        f"{counted(judged, 'pair')} of {counted(counts['written'], 'prompt')} judged in {seconds:.1f} s",
        f"{counts['already']} judged before" if counts["already"] else "",
        ", ".join(f"{number} {verdict}" for verdict, number in verdicts.items()) if judged else "",
        f"both orders agree on {counts['consistent'] / judged:.0%}" if judged else "",
        f"{counted(counts['reminders'], 'reply', 'replies')} without a verdict" if counts["reminders"] else "",
        *(f"{counted(number, 'pair')} left out: {reason}" for reason, number in unjudged.items()),
    ]
    summary = {
        **{name: counts[name] for name in ("written", "already")},
        "judged": judged,
        "verdicts": verdicts,
        "consistent": counts["consistent"],
        "replies_without_verdict": counts["reminders"],
        "unjudged": dict(unjudged),
        "seconds": seconds,
        "output": options.output,
    }
    report(options, parts, summary)
    if tally.failed:
        raise BlenderError(
            f"the judge never replied about the record {tally.failed[0]!r} ({next(iter(unjudged))}); such records are "
            "not in the output; run the command again to retry them"
        )


COMMAND = Command(
    name="annotate",
    help="Let a chat model compare the candidates of each prompt",
    about="""Let a chat model compare all pairs of candidates of each prompt, in both presentation orders, and write its
    verdicts as cmp_results, in MixInstruct's format. A candidate is better only if both orders agree; otherwise the
    pair is a tie: "Same bad" if one order says that both are bad, else "Same good". A reply without a verdict is
    retried twice, and never guessed. After an interruption, run the same command again to resume after the last record
    written.""",
    options=(
        *RECORD_OPTIONS,
        QUIET,
        option("--judge MODEL", "the chat model", required=True),
        OVERWRITE,
        option("--max-new-tokens N", "maximum reply length", type=whole(1), default=1024),
        *LLM_OPTIONS,
    ),
    run=run,
    epilog=f"""\
Input is what rank and blend read. A pair that already has a verdict is not judged again.

{LLM_FORMS}
Example: blender-hf annotate answers.jsonl --judge http://localhost:8000/v1#qwen --output judged.jsonl
""",
)
