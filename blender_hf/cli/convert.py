"""The command `convert`: a ranker in any supported format, written in ours."""

from blender_hf.errors import InputError
from blender_hf.logs import quieten_libraries

from .command import HUB_OPTIONS, Command, Options, option, whole
from .output import checked_folder, log

LENGTHS = {"pair": "a pair", "source": "the prompt", "candidate": "a candidate"}


def run(options: Options) -> None:
    """Convert a checkpoint; the folder then works on its own, with processor and code."""
    output = checked_folder(options.output, options.source)
    if output.is_dir() and any(output.iterdir()) and not options.force:
        raise InputError(f"{output} is not empty; use --force to overwrite files in it")
    from blender_hf.loading.checkpoints import HubOptions, load_ranker, save_portable

    quieten_libraries()
    hub = HubOptions(
        revision=options.revision,
        local_files_only=options.local_files_only,
        trust_remote_code=options.trust_remote_code,
    )
    model, processor = load_ranker(
        options.source, hub, device="cpu", dtype=options.dtype, truncation=_truncation(options)
    )
    try:
        save_portable(model, processor, output)
    except OSError as error:
        raise InputError(f"can't write {output}: {error.strerror or error}") from None
    log(f"wrote {output}")


def _truncation(options: Options) -> dict[str, int | str]:
    names = (*(f"max_{name}_length" for name in LENGTHS), "source_truncation_side")
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


COMMAND = Command(
    name="convert",
    help="Write a ranker in our format",
    about="""Write a ranker in our format, from any supported one: llm-blender/PairRM-hf, PairRM and pair-ranker,
    mightbe/Better-PairRM, and our own. The result states its maximum lengths and carries its code.""",
    options=(
        option("source", "Hub id or folder of the ranker", metavar="SOURCE"),
        option("output", "folder to write", metavar="OUTPUT"),
        option("--force", "write into a folder that is not empty"),
        option("--dtype DTYPE", "precision of the weights: float32, bfloat16 or float16 (default: float32)"),
        option("--revision REVISION", "branch, tag or commit of the source"),
        *(
            option(f"--max-{name}-length N", f"maximum tokens of {what} (default: the source's)", type=whole(1))
            for name, what in LENGTHS.items()
        ),
        option(
            "--source-truncation-side",
            "end at which a long prompt is truncated (default: the source's)",
            choices=("left", "right"),
        ),
        *HUB_OPTIONS,
    ),
    run=run,
    epilog="Example: blender-hf convert llm-blender/PairRM-hf pair-rm --dtype float16",
)
