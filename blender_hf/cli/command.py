"""How a command is declared, and the options that several commands share.

The modules of this folder import torch and transformers inside functions: neither `--help` nor a wrong option should
wait for them.
"""

import argparse
import shutil
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blender_hf.errors import BlenderError, InputError

if TYPE_CHECKING:
    from blender_hf.data.sources import Source
    from blender_hf.engine.schedules import Schedule
    from blender_hf.generation.specs import LocalLLM, RemoteLLM

Options = argparse.Namespace


@dataclass(frozen=True)
class Option:
    """An option or a positional argument of a command; made by `option`."""

    name: str  # "--limit", or "file"
    settings: Mapping[str, Any]  # the arguments of `add_argument`
    group: str | None = None  # the title under which help lists it

    def is_given(self, options: Options) -> bool:
        """Return whether the command line gives it another value than its default."""
        name = self.settings.get("dest", self.name.lstrip("-").replace("-", "_"))
        return getattr(options, name) != self.settings.get("default")


def option(name: str, help: str, **settings: Any) -> Option:
    """Declare an option as help shows it, "--limit N"; without a metavar, action or choices it is a switch."""
    flag, _, metavar = name.partition(" ")
    if metavar:
        settings["metavar"] = metavar
    elif flag.startswith("-") and not settings.keys() & {"action", "choices"}:
        settings = {"action": "store_true", "default": False, **settings}
    if settings.get("default") and "action" not in settings and "(default" not in help:
        help += " (default: %(default)s)"
    return Option(flag, {**settings, "help": help})


def grouped(title: str, *options: Option) -> tuple[Option, ...]:
    """Return options as a group of their own in help."""
    return tuple(replace(option, group=title) for option in options)


@dataclass(frozen=True)
class Command:
    """A command of the command line."""

    name: str
    help: str  # its line in the list of commands
    about: str  # its description
    options: Sequence[Option]  # what it accepts
    run: Callable[[Options], None]  # does the work; raises `BlenderError` for what the user can correct
    epilog: str  # what `--help` shows last, with line breaks as written: the input's form and an example

    def add(self, commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
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
        parser.set_defaults(run=self.run)
        groups: dict[str | None, argparse._ActionsContainer] = {None: parser}
        for option in self.options:
            if option.group not in groups:
                groups[option.group] = parser.add_argument_group(option.group)
            groups[option.group].add_argument(option.name, **option.settings)


def whole(least: int) -> Callable[[str], int]:
    """Return a type of options: whole numbers from `least` on."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {least} or more")
        return int(text)

    return read


def column_names(text: str) -> dict[str, list[str]]:
    """Read the names of columns such as "prompt=question,candidates=gpt,llama"."""
    from blender_hf.data.columns import columns_from_text

    try:
        return columns_from_text(text)
    except BlenderError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


LIMIT = option("--limit N", "only the first N records", type=whole(0))
QUIET = option("--quiet", "no progress bar")
COLUMNS = option(
    "--columns ROLE=COLUMN",
    "columns whose names say nothing: prompt=frage,system=rolle,candidates=gpt,llama; see docs/data.md",
    type=column_names,
)
DATASET_OPTIONS = (
    option("--split SPLIT", "split of a dataset (default: the only one)"),
    option("--subset NAME", "configuration of a dataset on the Hub"),
    option("--dataset-revision REVISION", "branch, tag or commit of a dataset on the Hub"),
)
# Of the commands that read records: where these come from, and where results go.
RECORD_OPTIONS = (
    option(
        "data",
        "JSON Lines or an array, CSV, Parquet, Arrow, or .gz; a folder of datasets, or a Hub id (default: stdin)",
        nargs="?",
        default="-",
        metavar="DATA",
    ),
    option("--output OUT", "a .jsonl, .jsonl.gz or .parquet file to write (default: stdout)"),
    *DATASET_OPTIONS,
    COLUMNS,
    LIMIT,
    option("--json", "print the summary as JSON on stdout; needs --output"),
)
OVERWRITE = option("--overwrite", "discard an existing output instead of resuming it")
LOCAL_FILES_ONLY = option("--local-files-only", "never contact the Hub")
ATTENTION = option(
    "--attn-implementation NAME", "attention: eager, sdpa, flash_attention_2, ... (default: that of transformers)"
)
HUB_OPTIONS = (LOCAL_FILES_ONLY, option("--trust-remote-code", "allow code from a model repository to run"))
# Which ranker is loaded, and how models run.
LOADING_OPTIONS = (
    option(
        "--ranker ID",
        "Hub id or folder of the ranker, which may name a fuser; or judge:MODEL for a language model as in "
        "`blender-hf generate --help`, length, random, mlm:ID, simcls:ID, reward:http://host:8000#model, or one made "
        "of others, mixture:A|B, cascade:0.25-0.75|A|B, mbr:A; see docs/rankers.md (default: the bundled %(default)s)",
        default="pair-ranker-mini",
    ),
    option("--revision REVISION", "branch, tag or commit of the ranker"),
    option("--backend", "runtime", choices=("torch", "onnx"), default="torch"),
    option("--provider PROVIDER", "ONNX Runtime execution provider (default: CPUExecutionProvider)"),
    option("--file-name FILE", "the ranker's ONNX file (default: model.onnx)"),
    option("--positive-label LABEL", "of a reward model with two labels, the one that means a good answer"),
    option("--device-map MAP", "spread a reward model over devices: auto, balanced, ... (default: one device)"),
    option("--device DEVICE", "cpu, cuda, cuda:1, mps (default: a GPU if available)"),
    option("--dtype DTYPE", "float32, bfloat16, float16 or auto (default: float32)"),
    ATTENTION,
    option("--batch-size N", "prompts processed together", type=whole(1), default=16),
    *HUB_OPTIONS,
)
# How a language model is asked that is a ranker; the fields of `JudgeSettings` by the names of the options.
JUDGE_FIELDS = {"judge_cache": "cache"} | {
    name: name
    for name in ["criteria", "template", "ask", "verdicts", "on_unreadable", "max_comparisons", "logit_temperature"]
}
JUDGE_OPTIONS = grouped(
    "a judge (--ranker judge:MODEL)",
    option("--criteria TEXT", 'what makes an answer better, "Which is more concise?"; repeatable', action="append"),
    option("--template NAME", "default, rlhflow, gram or a .jinja file (default: the model's)"),
    option("--ask WAY", "decisions, systemone, logprobs or verdict (default: the first that the server has)"),
    option("--verdicts FORM", "the form of verdicts: brackets, degrees, result, answer, better, genrm, ..."),
    option("--on-unreadable", "what a reply without a verdict is (default: error)", choices=("error", "tie")),
    option("--max-comparisons N", "stop before more than N questions are asked", type=whole(0)),
    option("--judge-cache FILE", "a file that keeps every answer (default: in HF_HOME, for a server)"),
    option("--logit-temperature T", "divides logits before they become probabilities (default: 1)", type=float),
)
RANKER_OPTIONS = (
    *LOADING_OPTIONS,
    option("--length-neutral", "leave out the preference for longer answers that a ranker states"),
    *JUDGE_OPTIONS,
    option("--max-batch-tokens N", "maximum tokens in a batch of pairs (default: by device)", type=whole(1)),
)
SCHEDULE_OPTIONS = (
    option("--schedule SCHEDULE", "pairs to compare: full (all), adaptive, knockout or bubble", default="full"),
    option("--orders ORDERS", "both presentation orders of each pair, or one at half the cost", default="both"),
    option(
        "--aggregation AGGREGATION",
        "scores from comparisons: max_logits, max_wins, bradley_terry or copeland",
        default="max_logits",
    ),
)
SCHEDULE_TOP_K = option("--top-k K", "top candidates to find by a sparse schedule (default: its own)", type=whole(1))
FUSER_OPTIONS = (
    option(
        "--fuser ID",
        "Hub id or folder, or a language model: chat:MODEL, or an address, as in `blender-hf generate --help` "
        "(default: the ranker's, else the bundled gen-fuser-mini)",
        default="auto",
    ),
    option("--fuser-revision REVISION", "branch, tag or commit of the fuser"),
    option("--max-new-tokens N", "maximum length of the fused text (default: the model's)", type=whole(1)),
    option("--num-beams N", "beam search width (default: the model's)", type=whole(1)),
)
LLM_OPTIONS = (
    option("--batch-size N", "answers that a local model writes together", type=whole(1)),
    option("--device DEVICE", "of local models: cpu, cuda, cuda:1 (default: a GPU if available)"),
    option("--dtype DTYPE", "of local models: float32, bfloat16, float16 or auto (default: auto)"),
    ATTENTION,
    *HUB_OPTIONS,
    option("--concurrency N", "parallel requests to a server (default: 8)", type=whole(1)),
    option("--timeout S", "seconds before a request fails (default: 120)", type=float),
    option("--max-retries N", "retries of a failed request (default: 5)", type=int),
)
LLM_FORMS = """\
A language model is written as
  org/model or a folder                       runs locally, with transformers
  smollm2-135m                                the same; comes with the package
  org/model#file.gguf or FILE.gguf            the same, from a GGUF file (needs the extra gguf)
  http://host:8000/v1#model                   an OpenAI-compatible server: vLLM, TGI, Ollama, ...
  https://host/v1?api_key_env=NAME#model      with the API key in the environment variable NAME
  providers:org/model, providers:org/model:together   Hugging Face Inference Providers
  qwen=...                                    any of these, named qwen in the records
"""


def record_source(options: Options) -> "Source":
    """Return the source of the records that a command reads."""
    from blender_hf.data.sources import open_source

    return open_source(
        options.data,
        subset=options.subset,
        split=options.split,
        revision=options.dataset_revision,
        columns=options.columns,
    )


def ranker_arguments(options: Options) -> dict[str, Any]:
    """Return the arguments of `Blender.from_pretrained` that the options of a ranker set."""
    check_revision("--revision", options.revision, options.ranker)
    names = "device dtype attn_implementation revision local_files_only trust_remote_code backend provider file_name"
    names += " max_batch_tokens positive_label device_map"
    found = {"ranker": options.ranker, **{name: getattr(options, name, None) for name in names.split()}}
    found["judge"] = _judge_settings(options)
    # Only if it is given: a job of `label` that began without the option is resumed by the same arguments.
    return {**found, **({"length_neutral": True} if getattr(options, "length_neutral", False) else {})}


def _judge_settings(options: Options) -> dict[str, Any] | None:
    """Return the settings of a judge, or None if the ranker is none, for which such options are rejected."""
    given = {name: getattr(options, name, None) for name in JUDGE_FIELDS}
    stated = {JUDGE_FIELDS[name]: value for name, value in given.items() if value is not None}
    if options.ranker.startswith("judge:"):
        return stated
    if first := next((name for name, value in given.items() if value is not None), None):
        raise InputError(f"--{first.replace('_', '-')} is for a judge, --ranker judge:MODEL; remove it")
    return None


def usage_text(ranker: Any) -> str:
    """Return what a judge was asked, for the summary of a run; empty for other rankers."""
    usage = getattr(ranker, "usage", None)
    return "" if usage is None else str(usage)


def check_revision(option: str, revision: str | None, name: str) -> None:
    """Reject the revision of a folder or a bundled checkpoint."""
    if revision is None:
        return
    from blender_hf.loading.checkpoints import locate

    if Path(locate(name)).is_dir():
        raise InputError(f"{option} {revision}: {name} is a local checkpoint and has no revisions; remove {option}")


def checked_schedule(options: Options) -> "Schedule":
    """Return the schedule of `rank` and `label`, and reject a `--top-k` that would change nothing."""
    from blender_hf.engine.schedules import Schedule

    if options.top_k is not None and options.schedule == "full":
        raise InputError(
            f"--top-k {options.top_k} has no meaning for --schedule full, which compares all pairs; remove it, or use "
            "--schedule adaptive, knockout or bubble"
        )
    return Schedule(options.schedule, options.top_k, options.orders)


def check_fuser(options: Options) -> None:
    """Reject a fuser whose name is a language model's that can't be read, before any library is imported."""
    from blender_hf.generation.specs import as_llm, chat_name

    if (name := chat_name(options.fuser)) is not None:
        as_llm(name)


def fusion_generation(options: Options) -> dict[str, int]:
    """Return the generation settings that the options of a fuser set."""
    given = {name: getattr(options, name) for name in ("max_new_tokens", "num_beams")}
    return {name: value for name, value in given.items() if value is not None}


def chosen_llms(texts: Sequence[str], options: Options) -> "tuple[LocalLLM | RemoteLLM, ...]":
    """Return the language models that the command line names, with its options."""
    from blender_hf.generation.specs import LocalLLM, as_llms

    local = ("batch_size", "device", "dtype", "attn_implementation", "local_files_only", "trust_remote_code")
    remote = ("concurrency", "timeout", "max_retries")
    return tuple(
        replace(llm, **_given(options, local if isinstance(llm, LocalLLM) else remote)) for llm in as_llms(texts)
    )


def _given(options: Options, names: Sequence[str]) -> dict[str, Any]:
    values = {name: getattr(options, name) for name in names}
    # 0 is a value, though it equals False, the default of a switch.
    return {name: value for name, value in values.items() if value is not None and value is not False}
