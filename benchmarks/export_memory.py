"""How much memory the export of a large ranker takes, and whether what comes out says the same as torch.

    python benchmarks/export_memory.py --quantize int8 --dtype float16 --card docs/export.md

The ranker has the shape of DeBERTa-v3-large and random weights. `blender-hf export onnx` exports it in a process of its
own, whose peak memory is measured; it fails if the logits of the graph are not those of torch. Prints a Markdown table.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import transformers
from cards import markdown_table, show_figures
from ranking_inputs import Shape, read_records, save_tokenizer, texts_of
from transformers import AutoTokenizer

from blender_hf import PairRanker, PairRankerConfig, PairRankerProcessor

SCRIPT = "benchmarks/export_memory.py"
EXAMPLES = Path(__file__).resolve().parents[1] / "blender_hf" / "examples" / "smoke.jsonl"
LARGE = Shape("large", 24, 1024)
VOCABULARY = 128104
GIB = 2**30


def main() -> None:
    options = arguments()
    with tempfile.TemporaryDirectory() as root:
        ranker, target = Path(root) / "ranker", Path(root) / "onnx"
        n_weights = save_large(ranker)
        minutes, said = exported(ranker, target, options)
        sizes = [[file.name, f"{size_of(file) / GIB:.2f}"] for file in sorted(target.glob("*.onnx"))]
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    rows = [["most memory of the export", f"{peak / GIB:.2f}"], *sizes]
    note = (
        f"DeBERTa-v3-large's shape, {n_weights / 1e6:.0f} million random weights in float32; transformers "
        f"{transformers.__version__}, {minutes:.0f} minutes. It said:\n\n```text\n{said}\n```"
    )
    text = f"{markdown_table(['', 'GiB'], rows)}\n\n{note}"
    show_figures(text, SCRIPT, options.card)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quantize", choices=("int8",), help="as of `blender-hf export onnx`")
    parser.add_argument("--dtype", choices=("float16",), help="as of `blender-hf export onnx`")
    parser.add_argument("--card", type=Path, help="document to write the table into")
    return parser.parse_args()


def save_large(folder: Path) -> int:
    """Save a large ranker with random weights, and return how many."""
    tokenizer_folder = folder.with_name("tokenizer")
    save_tokenizer(tokenizer_folder, texts_of(read_records(EXAMPLES)))
    processor = PairRankerProcessor.for_training(AutoTokenizer.from_pretrained(tokenizer_folder))
    config = PairRankerConfig(backbone_config=LARGE.config(VOCABULARY), **processor.special_token_ids())
    model = PairRanker(config)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return sum(weight.numel() for weight in model.parameters())


def exported(ranker: Path, target: Path, options: argparse.Namespace) -> tuple[float, str]:
    """Export in a process of its own; return the minutes it took, and what it said."""
    command = [sys.executable, "-c", "import sys; from blender_hf.cli.main import main; sys.exit(main(sys.argv[1:]))"]
    command += ["export", "onnx", str(ranker), str(target)]
    for name in ("quantize", "dtype"):
        command += [f"--{name}", getattr(options, name)] if getattr(options, name) else []
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    said = [line for line in done.stderr.splitlines() if line.startswith("blender-hf: ")]
    return (time.monotonic() - start) / 60, "\n".join(said).replace(str(target), target.name)


def size_of(file: Path) -> int:
    """Return the bytes of a graph with the weights that lie beside it."""
    return sum(part.stat().st_size for part in file.parent.glob(f"{file.name}*"))


if __name__ == "__main__":
    main()
