"""The command `export onnx`: a ranker or a fuser as ONNX, with proof that it computes the same."""

import argparse
import sys

from blender_hf.logs import quieten_libraries

from .options import Commands

ABOUT = """Export a ranker or a fuser to ONNX, and prove that each file computes what torch does: the logits of pairs of
several lengths, up to the longest, in batches of several sizes, or each step of a fuser's generation."""


def add(commands: Commands) -> None:
    """Add the command to the parser of the command line."""
    parser = commands.add_parser("export", help="Write a model in another format", allow_abbrev=False)
    formats = parser.add_subparsers(dest="format", required=True, metavar="FORMAT")
    onnx = formats.add_parser(
        "onnx",
        help="ONNX, for ONNX Runtime",
        description=" ".join(ABOUT.split()),
        epilog="Example: blender-hf export onnx pair-ranker-mini pair-ranker-onnx --quantize int8",
        allow_abbrev=False,
    )
    onnx.add_argument("model", metavar="MODEL", help="bundled name, Hub id or folder of a ranker or a fuser")
    onnx.add_argument("output", metavar="DIR", help="the folder to write")
    onnx.add_argument("--quantize", choices=("int8",), help="also write a ranker's model_int8.onnx, for CPUs")
    onnx.add_argument("--dtype", choices=("float32", "float16"), help="float16: also write model_fp16.onnx, for CUDA")
    onnx.add_argument("--opset", type=int, default=18, metavar="N", help="operators' version (default: %(default)s)")
    onnx.add_argument(
        "--tolerance",
        type=float,
        metavar="X",
        help="how far a logit of the int8 or float16 file may be from torch, in units of the largest (at least 1); "
        "default: 0.15 and 0.02. A file that is farther is removed, and the command fails",
    )
    onnx.add_argument("--revision", help="branch, tag or commit of the model")
    onnx.add_argument("--subfolder", help="folder inside its repository")
    onnx.add_argument("--token", help="token that may read it (default: that of `hf auth login`)")
    onnx.add_argument("--local-files-only", action="store_true", help="never ask the Hub")
    onnx.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Export a model as the command line says.

    Raises:
        BlenderError: If it can't be loaded or exported, or an exported file does not compute what torch does.
    """
    from blender_hf.errors import InputError
    from blender_hf.export.onnx_export import export_onnx
    from blender_hf.loading.checkpoints import HubOptions

    quieten_libraries()
    precisions = [name for name in (options.quantize, options.dtype) if name is not None]
    rounded = [name for name in precisions if name != "float32"]
    if options.tolerance is not None and not rounded:
        raise InputError("--tolerance is for the files of --quantize int8 and --dtype float16; ask for one of them")
    tolerances = {} if options.tolerance is None else dict.fromkeys(rounded, options.tolerance)
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
        tolerances=tolerances,
        options=hub,
    )
    for file_name, parity in found.items():
        sys.stderr.write(f"blender-hf: {file_name}: {parity}\n")
    sys.stderr.write(f"blender-hf: wrote {options.output}\n")
