"""The command `export onnx`: a ranker or a fuser as ONNX, verified against torch."""

from blender_hf.errors import InputError
from blender_hf.logs import quieten_libraries

from .command import LOCAL_FILES_ONLY, Command, Options, option
from .output import log


def run(options: Options) -> None:
    """Export a model; fails if it can't be loaded or exported, or a file does not compute what torch does."""
    precisions = [name for name in (options.quantize, options.dtype) if name is not None]
    rounded = [name for name in precisions if name != "float32"]
    if options.tolerance is not None and not rounded:
        raise InputError("--tolerance is for the files of --quantize int8 and --dtype float16; add one of them")
    from blender_hf.export.onnx_export import export_onnx
    from blender_hf.loading.checkpoints import HubOptions

    quieten_libraries()
    hub = HubOptions(
        revision=options.revision,
        token=options.token,
        local_files_only=options.local_files_only,
        subfolder=options.subfolder,
    )
    found = export_onnx(
        options.model,
        options.output,
        precisions=precisions,
        opset=options.opset,
        tolerances={} if options.tolerance is None else dict.fromkeys(rounded, options.tolerance),
        options=hub,
    )
    for file_name, parity in found.items():
        log(f"{file_name}: {parity}")
    log(f"wrote {options.output}")


COMMAND = Command(
    name="export",
    help="Write a model in another format",
    about="""Export a ranker or a fuser to ONNX, and verify that each file computes what torch does: the logits of pairs
    of several lengths, up to the longest, in batches of several sizes, or each step of a fuser's generation.""",
    options=(
        option("format", "for ONNX Runtime", choices=("onnx",)),
        option("model", "bundled name, Hub id or folder of a ranker or a fuser", metavar="MODEL"),
        option("output", "folder to write", metavar="DIR"),
        option("--quantize", "also write a ranker's model_int8.onnx, for CPUs", choices=("int8",)),
        option("--dtype", "float16: also write model_fp16.onnx, for CUDA", choices=("float32", "float16")),
        option("--opset N", "ONNX opset version", type=int, default=18),
        option(
            "--tolerance X",
            "maximum deviation of a logit of the int8 or float16 file, relative to the largest (at least 1); "
            "default: 0.15 and 0.02. A file that deviates more is removed, and the command fails",
            type=float,
        ),
        option("--revision REVISION", "branch, tag or commit of the model"),
        option("--subfolder FOLDER", "folder inside the model's repository"),
        option("--token TOKEN", "token with read access (default: that of `hf auth login`)"),
        LOCAL_FILES_ONLY,
    ),
    run=run,
    epilog="Example: blender-hf export onnx pair-ranker-mini pair-ranker-onnx --quantize int8",
)
