"""Measure the memory that the export of a large ranker takes, and check its outputs against torch.

    python -m benchmarks.export_memory --quantize int8 --dtype float16 --save

The ranker has the shape of DeBERTa-v3-large and random weights. `blender-hf export onnx` runs in a separate process,
whose peak memory is measured; it fails if the logits of the graph differ from those of torch.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import transformers
from transformers import AutoTokenizer

from benchmarks.inputs import LARGE, VOCABULARY, read_records, save_tokenizer, texts_of
from benchmarks.judged import parser_of
from benchmarks.tables import Table, publish
from blender_hf import PairRanker, PairRankerConfig, PairRankerProcessor

GIB = 2**30


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory() as root:
        ranker, target = Path(root) / "ranker", Path(root) / "onnx"
        n_weights = save_large(ranker)
        minutes, log = exported(ranker, target, options)
        sizes = [[file.name, size_of(file) / GIB] for file in sorted(target.glob("*.onnx"))]
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    note = (
        f"DeBERTa-v3-large's shape, {n_weights / 1e6:.0f} million random weights in float32; transformers "
        f"{transformers.__version__}, {minutes:.0f} minutes. Its log:\n\n```text\n{log}\n```"
    )
    table = Table({"": "", "GiB": ".2f"}, [["peak memory of the export", peak / GIB], *sizes])
    publish(__file__, [table, note], options)


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("--quantize", choices=("int8",), help="as of `blender-hf export onnx`")
    parser.add_argument("--dtype", choices=("float16",), help="as of `blender-hf export onnx`")
    return parser.parse_args()


def save_large(folder: Path) -> int:
    """Save a large ranker with random weights, and return how many."""
    tokenizer_folder = folder.with_name("tokenizer")
    save_tokenizer(tokenizer_folder, texts_of(read_records()))
    processor = PairRankerProcessor.for_training(AutoTokenizer.from_pretrained(tokenizer_folder))
    config = PairRankerConfig(backbone_config=LARGE.config(VOCABULARY), **processor.special_token_ids())
    model = PairRanker(config)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return sum(weight.numel() for weight in model.parameters())


def exported(ranker: Path, target: Path, options: argparse.Namespace) -> tuple[float, str]:
    """Export in a separate process; return the minutes it took, and its log."""
    command = [sys.executable, "-c", "import sys; from blender_hf.cli.main import main; sys.exit(main(sys.argv[1:]))"]
    command += ["export", "onnx", str(ranker), str(target)]
    for name in ("quantize", "dtype"):
        command += [f"--{name}", getattr(options, name)] if getattr(options, name) else []
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    log = [line for line in done.stderr.splitlines() if line.startswith("blender-hf: ")]
    return (time.monotonic() - start) / 60, "\n".join(log).replace(str(target), target.name)


def size_of(file: Path) -> int:
    """Return the bytes of a graph and of the weights beside it."""
    return sum(part.stat().st_size for part in file.parent.glob(f"{file.name}*"))


if __name__ == "__main__":
    main()
