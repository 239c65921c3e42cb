"""The command `annotate`: candidates in, the verdicts of a chat model on their pairs out."""

import argparse
import json
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from blender_hf.logs import quieten_libraries

from .appending import checked_output, opened
from .llm_options import WAYS, chosen_llms, llm_options
from .options import Commands, count, positive

if TYPE_CHECKING:
    from blender_hf.generation.annotation import JudgedRecord
    from blender_hf.generation.judge import Judgment, Task

ABOUT = """Let a chat model compare all pairs of the candidates of each prompt, in both orders, and write its verdicts
as cmp_results, in the form of MixInstruct. A candidate is better only if both orders say so; otherwise it is a tie:
"Same bad" if one order says that both are bad, else "Same good". A reply without a verdict is asked about again, twice,
and never guessed. Killed and started again, the command goes on after the last record that it wrote."""
EPILOG = f"""\
Input is what rank and blend read. A pair that has its verdict already is not judged again.

{WAYS}
Example: blender-hf annotate answers.jsonl --judge http://localhost:8000/v1#qwen --output judged.jsonl
"""


def add(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "annotate",
        help="Let a chat model compare the candidates of each prompt",
        description=" ".join(ABOUT.split()),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("file", nargs="?", default="-", metavar="FILE", help="JSONL, or .jsonl.gz; stdin if left out")
    parser.add_argument("--judge", required=True, metavar="MODEL", help="the chat model")
    parser.add_argument("--output", metavar="OUT", help="where the records go, one a line (default: stdout)")
    parser.add_argument("--overwrite", action="store_true", help="begin anew, whatever is in the output")
    parser.add_argument("--limit", type=count, metavar="N", help="only the first N records")
    parser.add_argument(
        "--max-new-tokens", type=positive, default=1024, metavar="N", help="longest reply (default: %(default)s)"
    )
    llm_options(parser)
    parser.add_argument("--json", action="store_true", help="print the summary as JSON on stdout")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Judge as the command line says; each line is written when all pairs of its record are judged, and complete.

    Raises:
        BlenderError: If the input, the output, an option or the judge can't be used, or it said nothing of a record.
    """
    # These load torch and transformers, for which `--help` need not wait.
    from tqdm import tqdm

    from blender_hf.data.sources import checked_count
    from blender_hf.generation.annotation import judged_records
    from blender_hf.generation.judge import Judge
    from blender_hf.generation.models import load_model
    from blender_hf.generation.sampling import Sampling

    quieten_libraries()
    (llm,) = chosen_llms([options.judge], options)
    output = checked_output(options)
    done = judged_records(output, llm.label) if output is not None and not options.overwrite else {}
    # A file is checked whole before a model is loaded.
    total = checked_count(options.file, _waiting(options, done))
    judge = Judge(load_model(llm), Sampling(max_new_tokens=options.max_new_tokens, temperature=0))
    tally = Tally(already=len(done))
    # The records that are read ahead wait here until their verdicts are there.
    waiting: deque[JudgedRecord] = deque()
    with opened(output, options.overwrite) as out, tqdm(total=total, unit="prompt", disable=options.quiet) as bar:
        for judgments in judge.iter(_noted(_waiting(options, done), waiting)):
            record = waiting.popleft()
            if tally.count(record, judgments):
                out.write(record.judged(judgments, llm.label) + "\n")
                out.flush()
            bar.update()
    tally.report(options)


class Tally:
    """What the judge said, for the summary.

    Args:
        already: How many records an earlier run has written.
    """

    def __init__(self, already: int) -> None:
        self._started = time.monotonic()
        self._counts: Counter[str] = Counter(already=already)
        self._verdicts: Counter[str] = Counter()
        self._unjudged: Counter[str] = Counter()
        self._unwritten: list[str | int] = []

    def count(self, record: "JudgedRecord", judgments: Sequence["Judgment"]) -> bool:
        """Add the judgments of a prompt, and tell whether there is anything to write: not if the judge said nothing."""
        written = not judgments or any(judgment.replied for judgment in judgments)
        self._counts["written"] += written
        if not written:
            self._unwritten.append(record.id)
        for judgment in judgments:
            self._counts["reminders"] += judgment.reminders
            if judgment.verdict is None:
                self._unjudged[judgment.reason or ""] += 1
            else:
                self._verdicts[judgment.verdict] += 1
                self._counts["consistent"] += judgment.consistent
        return written

    def report(self, options: argparse.Namespace) -> None:
        """Print the summary.

        Raises:
            BlenderError: If the judge said nothing of a record.
        """
        from blender_hf.errors import BlenderError
        from blender_hf.generation.judging import VERDICTS

        seconds = round(time.monotonic() - self._started, 3)
        verdicts = {verdict: self._verdicts[verdict] for verdict in VERDICTS}
        judged = sum(verdicts.values())
        parts = [f"{judged} pairs of {self._counts['written']} prompts judged in {seconds:.1f} s"]
        parts += [f"{self._counts['already']} prompts were judged before"] if self._counts["already"] else []
        parts += [", ".join(f"{number} {verdict}" for verdict, number in verdicts.items())] if judged else []
        parts += [f"both orders agree on {self._counts['consistent'] / judged:.0%}"] if judged else []
        parts += [f"{self._counts['reminders']} replies had no verdict"] if self._counts["reminders"] else []
        parts += [f"{number} pairs are left out: {reason}" for reason, number in self._unjudged.items()]
        sys.stderr.write(f"blender-hf: {'; '.join(parts)}\n")
        if options.json:
            summary = {
                **{name: self._counts[name] for name in ("written", "already")},
                "judged": judged,
                "verdicts": verdicts,
                "consistent": self._counts["consistent"],
                "replies_without_verdict": self._counts["reminders"],
                "unjudged": dict(self._unjudged),
                "seconds": seconds,
                "output": options.output,
            }
            sys.stdout.write(json.dumps(summary, ensure_ascii=False) + "\n")
        if self._unwritten:
            raise BlenderError(
                f"the judge said nothing of the record {self._unwritten[0]!r} ({next(iter(self._unjudged))}); such "
                "records are not in the output, and are judged when the command is run again"
            )


def _waiting(options: argparse.Namespace, done: dict[str | int, str]) -> Iterator["JudgedRecord"]:
    from blender_hf.data.resuming import is_done
    from blender_hf.generation.annotation import read_candidates

    return (record for record in islice(read_candidates(options.file), options.limit) if not is_done(record, done))


def _noted(records: Iterator["JudgedRecord"], waiting: "deque[JudgedRecord]") -> Iterator["Task"]:
    for record in records:
        waiting.append(record)
        yield record.task
