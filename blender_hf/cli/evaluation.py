"""The command `evaluate`: how good a ranker is on labelled data, and the tables of the paper."""

import argparse
from functools import partial

from blender_hf.errors import InputError

from .options import Commands, count, fuser_options, given_of, model_options, seed

ABOUT = """Measure a ranker on labelled data, beside the rules that the longer answer is better, that the best single
model is, and chance; or make the tables of the paper on MixInstruct."""
EPILOG = """\
Data is a JSONL file (or .jsonl.gz), a Parquet, CSV or JSON file, a folder of `datasets`, or the id of a data set on the
Hub. Its records have pairs, as ours; verdicts and scores, as MixInstruct; or chosen and rejected, as RewardBench and
the preference data of TRL.

A ranker is a Hub id or a folder, of a pair ranker or a reward model; or one of
  length          the longer answer is better
  random          dice
  oracle:METRIC   whatever the scores of the records say
  mlm:ID          how likely a masked language model finds an answer
  simcls:ID       how near an answer lies to the prompt, by an encoder

A metric is rouge1, rouge2, rougeL, chrf, bleu, bertscore, bartscore or bleurt; the last three take a model, as in
bertscore=org/encoder@9, where 9 is the layer. Scores that the records have are not computed.

Example: blender-hf evaluate dev.jsonl.gz --ranker org/pair-ranker --baseline length --output report
"""


def add(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "evaluate",
        help="Measure a ranker on labelled data",
        description=" ".join(ABOUT.split()),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("data", metavar="DATA", help="labelled data: a file, a folder, or the id of a data set")
    parser.add_argument("--split", help="which split of a data set (default: the only one)")
    parser.add_argument("--limit", type=count, metavar="N", help="only the first N records")
    parser.add_argument("--output", metavar="DIR", help="write report.json, report.md and plots into this folder")
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument(
        "--baseline", action="append", default=[], metavar="RANKER", help="one more ranker; repeat it for more"
    )
    parser.add_argument(
        "--metric", action="append", default=[], metavar="METRIC", help="scores to compute where they are missing"
    )
    parser.add_argument(
        "--cache", metavar="FILE", help="where computed scores are kept (default: with the Hub's cache)"
    )
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of the bootstrap (default: %(default)s)")
    model_options(parser)
    measuring = parser.add_argument_group("measuring a ranker")
    _rank_options(measuring)
    parser.add_argument("--table", choices=("mixinstruct",), help="make the two tables of the paper instead")
    tables = parser.add_argument_group("the tables of the paper")
    _table_options(tables)
    parser.set_defaults(run=partial(run, measuring=measuring, tables=tables))


def run(options: argparse.Namespace, measuring: argparse._ArgumentGroup, tables: argparse._ArgumentGroup) -> None:
    """Do what the command line says; see `evaluating.run`.

    Args:
        options: The command line.
        measuring: Its options that are for measuring a ranker alone.
        tables: Those that are for the tables alone.

    Raises:
        InputError: If one of them would change nothing.
    """
    if options.table and (unused := given_of(measuring, options)):
        raise InputError(f"{unused[0]} has no meaning for --table; leave it out")
    if not options.table and (unused := given_of(tables, options)):
        raise InputError(f"{unused[0]} is for --table; add --table mixinstruct, or leave it out")
    # It loads torch and transformers, for which `--help` need not wait.
    from .evaluating import run

    run(options)


def _rank_options(parser: argparse._ArgumentGroup) -> None:
    parser.add_argument(
        "--gold", metavar="METRIC", help="scores that say what an answer is worth (default: score, else the verdicts)"
    )
    parser.add_argument("--pairs-only", action="store_true", help="ask about judged pairs alone, and rank nothing")
    parser.add_argument(
        "--tie-threshold",
        type=float,
        default=0.05,
        metavar="P",
        help="how far from 0.5 a probability is a tie (default: %(default)s)",
    )


def _table_options(parser: argparse._ArgumentGroup) -> None:
    parser.add_argument(
        "--base",
        action="append",
        metavar="MODEL",
        help="a model that all are compared with; repeat it for more (default: the paper's Vicuna and OpenAssistant)",
    )
    parser.add_argument(
        "--rule",
        choices=("paper", "win-rate"),
        default="paper",
        help="at least as good: any tie counts one, or a tie of good ones counts one half (default: %(default)s)",
    )
    parser.add_argument("--no-blend", dest="blend", action="store_false", help="do not fuse")
    parser.add_argument("--judge", metavar="RANKER", help="what says how fused answers stand beside the candidates")
    fuser_options(parser)
