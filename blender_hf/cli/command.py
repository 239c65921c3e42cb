"""How a command is declared, and the options that several commands share.

The modules of this folder import torch and transformers inside functions: neither `--help` nor a wrong option should
wait for them.
"""

import argparse
import shutil
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blender_hf.errors import InputError

if TYPE_CHECKING:
    from blender_hf.engine.schedules import Schedule
    from blender_hf.generation.specs import LocalLLM, RemoteLLM

Options = argparse.Namespace
Parser = argparse.ArgumentParser
Group = argparse._ActionsContainer  # a parser or an argument group; argparse has no public name for both


@dataclass(frozen=True)
class Command:
    """A command of the command line.

    Args:
        name: Its name.
        help: Its line in the list of commands.
        about: Its description.
        options: Functions that each add some of its options to its parser.
        run: Does the work; raises `BlenderError` for what the user can correct.
        epilog: What `--help` shows last, with line breaks as written: the input's form and an example.
    """

    name: str
    help: str
    about: str
    options: Sequence[Callable[[Parser], None]]
    run: Callable[[Options], None]
    epilog: str

    def add(self, commands: "argparse._SubParsersAction[Parser]") -> None:
        """Add the command's parser to those of the command line."""
        width = min(shutil.get_terminal_size().columns, 120) - 2
        parser = commands.add_parser(
            self.name,
            help=self.help,
            description=textwrap.fill(" ".join(self.about.split()), width),
            epilog=self.epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        for add_options in self.options:
            add_options(parser)
        parser.set_defaults(run=self.run)


def whole(least: int) -> Callable[[str], int]:
    """Return a type of options: whole numbers from `least` on."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {least} or more")
        return int(text)

    return read


def record_options(parser: Parser, quiet: str = "no progress bar") -> None:
    """Add where records come from and where results go."""
    parser.add_argument("file", nargs="?", default="-", metavar="FILE", help="JSONL or .jsonl.gz (default: stdin)")
    parser.add_argument("--output", metavar="OUT", help="JSONL file to write (default: stdout)")
    limit_option(parser)
    parser.add_argument("--json", action="store_true", help="print the summary as JSON on stdout; needs --output")
    parser.add_argument("--quiet", action="store_true", help=quiet)


def limit_option(group: Group) -> None:
    """Add how many records are read."""
    group.add_argument("--limit", type=whole(0), metavar="N", help="only the first N records")


def overwrite_option(parser: Parser) -> None:
    """Add whether a resumable command starts over."""
    parser.add_argument("--overwrite", action="store_true", help="discard an existing output instead of resuming it")


def seed_option(group: Group) -> None:
    """Add the random seed of a command that is reproducible by default."""
    group.add_argument("--seed", type=whole(0), default=0, metavar="N", help="random seed (default: %(default)s)")


def hub_options(group: Group) -> None:
    """Add how repositories on the Hub are used."""
    group.add_argument("--local-files-only", action="store_true", help="never contact the Hub")
    group.add_argument("--trust-remote-code", action="store_true", help="allow code from a model repository to run")


def backend_options(parser: Parser) -> None:
    """Add which ranker is loaded, and how models run."""
    parser.add_argument(
        "--ranker",
        default="pair-ranker-mini",
        metavar="ID",
        help="Hub id or folder of the ranker; it may name a fuser (default: the bundled %(default)s)",
    )
    parser.add_argument("--revision", help="branch, tag or commit of the ranker")
    parser.add_argument("--backend", choices=("torch", "onnx"), default="torch", help="runtime (default: %(default)s)")
    parser.add_argument("--provider", help="ONNX Runtime execution provider (default: CPUExecutionProvider)")
    parser.add_argument("--file-name", metavar="FILE", help="the ranker's ONNX file (default: model.onnx)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: a GPU if available)")
    parser.add_argument("--dtype", help="float32, bfloat16, float16 or auto (default: float32)")
    parser.add_argument(
        "--batch-size", type=whole(1), default=16, metavar="N", help="prompts processed together (default: %(default)s)"
    )
    hub_options(parser)


def ranker_options(parser: Parser) -> None:
    """Add which ranker is used, and how it runs."""
    backend_options(parser)
    parser.add_argument(
        "--max-batch-tokens", type=whole(1), metavar="N", help="maximum tokens in a batch of pairs (default: by device)"
    )


def ranker_arguments(options: Options) -> dict[str, Any]:
    """Return the arguments of `Blender.from_pretrained` that `ranker_options` set."""
    check_revision("--revision", options.revision, options.ranker)
    names = "device dtype revision local_files_only trust_remote_code backend provider file_name max_batch_tokens"
    return {"ranker": options.ranker, **{name: getattr(options, name, None) for name in names.split()}}


def check_revision(option: str, revision: str | None, name: str) -> None:
    """Reject the revision of a folder or a bundled checkpoint."""
    from blender_hf.loading.checkpoints import locate

    if revision is not None and Path(locate(name)).is_dir():
        raise InputError(f"{option} {revision}: {name} is a local checkpoint and has no revisions; remove {option}")


def schedule_options(parser: Parser) -> None:
    """Add how pairs are chosen and scores computed."""
    parser.add_argument(
        "--schedule", default="full", help="pairs to compare: full (all), adaptive, knockout, bubble (default: full)"
    )
    parser.add_argument(
        "--orders",
        default="both",
        help="compare each pair in both presentation orders, or in one for half the cost (default: %(default)s)",
    )
    parser.add_argument(
        "--aggregation",
        default="max_logits",
        help="scores from comparisons: max_logits, max_wins, bradley_terry or copeland (default: %(default)s)",
    )


def schedule_top_k_option(parser: Parser) -> None:
    """Add how many of the best a sparse schedule has to find."""
    parser.add_argument(
        "--top-k", type=whole(1), metavar="K", help="top candidates that a sparse schedule must find (default: its own)"
    )


def checked_schedule(options: Options) -> "Schedule":
    """Return the schedule of `rank` and `label`, and reject a `--top-k` that would change nothing."""
    from blender_hf.engine.schedules import Schedule

    if options.top_k is not None and options.schedule == "full":
        raise InputError(
            f"--top-k {options.top_k} has no meaning for --schedule full, which compares all pairs; remove it, or use "
            "--schedule adaptive, knockout or bubble"
        )
    return Schedule(options.schedule, options.top_k, options.orders)


def fuser_options(parser: Group) -> None:
    """Add which fuser is used, and how it generates."""
    parser.add_argument(
        "--fuser",
        default="auto",
        metavar="ID",
        help="Hub id or folder, or chat:MODEL for a language model as in `blender-hf generate --help` (default: the "
        "ranker's own, else the bundled gen-fuser-mini)",
    )
    parser.add_argument("--fuser-revision", help="branch, tag or commit of the fuser")
    parser.add_argument(
        "--max-new-tokens", type=whole(1), metavar="N", help="maximum length of the fused text (default: the model's)"
    )
    parser.add_argument("--num-beams", type=whole(1), metavar="N", help="beam search width (default: the model's)")


def fusion_generation(options: Options) -> dict[str, int]:
    """Return the generation settings that `fuser_options` set."""
    given = {name: getattr(options, name) for name in ("max_new_tokens", "num_beams")}
    return {name: value for name, value in given.items() if value is not None}


LLM_FORMS = """\
A language model is written as
  org/model or a folder                       runs locally, with transformers
  http://host:8000/v1#model                   an OpenAI-compatible server: vLLM, TGI, Ollama, ...
  https://host/v1?api_key_env=NAME#model      with the API key in the environment variable NAME
  providers:org/model, providers:org/model:together   Hugging Face Inference Providers
  qwen=...                                    any of these, named qwen in the records
"""


def llm_options(parser: Parser) -> None:
    """Add how language models run and are queried."""
    parser.add_argument("--batch-size", type=whole(1), metavar="N", help="answers that a local model writes together")
    parser.add_argument("--device", help="of local models: cpu, cuda, cuda:1 (default: a GPU if available)")
    parser.add_argument("--dtype", help="of local models: float32, bfloat16, float16 or auto (default: auto)")
    hub_options(parser)
    parser.add_argument("--concurrency", type=whole(1), metavar="N", help="parallel requests to a server (default: 8)")
    parser.add_argument("--timeout", type=float, metavar="S", help="seconds before a request fails (default: 120)")
    parser.add_argument("--max-retries", type=int, metavar="N", help="retries of a failed request (default: 5)")


def chosen_llms(texts: Sequence[str], options: Options) -> "tuple[LocalLLM | RemoteLLM, ...]":
    """Return the language models that the command line names, with its options."""
    from blender_hf.generation.specs import LocalLLM, as_llms

    local = ("batch_size", "device", "dtype", "local_files_only", "trust_remote_code")
    remote = ("concurrency", "timeout", "max_retries")
    return tuple(
        replace(llm, **_given(options, local if isinstance(llm, LocalLLM) else remote)) for llm in as_llms(texts)
    )


def _given(options: Options, names: Sequence[str]) -> dict[str, Any]:
    values = {name: getattr(options, name) for name in names}
    # 0 is a value, though it equals False, the default of a switch.
    return {name: value for name, value in values.items() if value is not None and value is not False}
