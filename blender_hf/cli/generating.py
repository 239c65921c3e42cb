"""The command `generate`: prompts in, the candidates of several language models out."""

import argparse
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from blender_hf.logs import quieten_libraries

from .appending import checked_output, opened
from .generation_summary import Tally
from .llm_options import WAYS, chosen_llms, llm_options
from .options import Commands, count, positive, seed

if TYPE_CHECKING:
    from blender_hf.generation.records import PromptRecord

ABOUT = """Let several language models answer each prompt, and write what blend, rank and fuse read. A model that fails
is named in the record with the reason, and the others go on. Killed and started again, the command goes on after the
last record that it wrote."""
EPILOG = f"""\
Input is one JSON object a line, for example
  {{"id": "q1", "prompt": "2 + 2?"}}
"messages" (chat) may stand instead of "prompt"; records of MixInstruct are read as they are. Candidates that a record
has already are kept, and a model is not asked for what it has answered: run over its own output, the command asks again
only those that failed.

{WAYS}
Example: blender-hf generate prompts.jsonl --llm org/model --llm http://localhost:8000/v1#qwen --output answers.jsonl
"""


def add(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "generate",
        help="Let several language models answer each prompt",
        description=" ".join(ABOUT.split()),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("file", nargs="?", default="-", metavar="FILE", help="JSONL, or .jsonl.gz; stdin if left out")
    parser.add_argument(
        "--llm", action="append", required=True, metavar="MODEL", help="a language model; repeat it for more"
    )
    parser.add_argument("--output", metavar="OUT", help="where the records go, one a line (default: stdout)")
    parser.add_argument("--overwrite", action="store_true", help="begin anew, whatever is in the output")
    parser.add_argument("--limit", type=count, metavar="N", help="only the first N prompts")
    parser.add_argument(
        "--n", type=positive, default=1, metavar="N", help="answers of each model (default: %(default)s)"
    )
    parser.add_argument(
        "--max-new-tokens", type=positive, default=512, metavar="N", help="longest answer (default: %(default)s)"
    )
    parser.add_argument(
        "--temperature", type=float, metavar="T", help="0 takes the likeliest token (default: the model's)"
    )
    parser.add_argument(
        "--top-p", type=float, metavar="P", help="sample from the likeliest tokens (default: the model's)"
    )
    parser.add_argument("--seed", type=seed, metavar="N", help="makes sampling repeatable, as far as the model can")
    llm_options(parser)
    parser.add_argument("--json", action="store_true", help="print the summary as JSON on stdout")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Generate candidates as the command line says; each line is written when its prompt is answered, and complete.

    Raises:
        BlenderError: If the input, the output, an option or a model can't be used, or prompts got no candidate.
    """
    # These load torch and transformers, for which `--help` need not wait.
    from tqdm import tqdm

    from blender_hf.data.sources import checked_count
    from blender_hf.generation.candidates import CandidateWriter
    from blender_hf.generation.records import answered_prompts
    from blender_hf.generation.sampling import Sampling

    quieten_libraries()
    llms = chosen_llms(options.llm, options)
    sampling = Sampling(options.n, options.max_new_tokens, options.temperature, options.top_p, options.seed)
    output = checked_output(options)
    names = [llm.label for llm in llms]
    answered = answered_prompts(output, names, options.n) if output is not None and not options.overwrite else {}
    # A file is checked whole before a model is loaded.
    total = checked_count(options.file, _waiting(options, answered))
    writer = CandidateWriter(llms, sampling)
    tally = Tally(names, already=len(answered))
    # The records that are read ahead wait here until their candidates are there.
    waiting: deque[PromptRecord] = deque()
    with opened(output, options.overwrite) as out, tqdm(total=total, unit="prompt", disable=options.quiet) as bar:
        for generated in writer.iter(_noted(_waiting(options, answered), waiting)):
            record = waiting.popleft()
            if generated.candidates:
                out.write(record.answered(generated, names) + "\n")
                out.flush()
            tally.count(record, generated)
            bar.update()
            if len(writer.given_up) == len(names) and not generated.candidates:
                break
    tally.report(options)


def _waiting(options: argparse.Namespace, answered: dict[str | int, str]) -> Iterator["PromptRecord"]:
    from blender_hf.data.resuming import is_done
    from blender_hf.generation.records import read_prompts

    return (record for record in islice(read_prompts(options.file), options.limit) if not is_done(record, answered))


def _noted(records: Iterator["PromptRecord"], waiting: "deque[PromptRecord]") -> Iterator[Any]:
    for record in records:
        waiting.append(record)
        yield record.item
