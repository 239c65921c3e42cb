"""Smaller graphs from that of float32: eight bits for CPUs, half precision for CUDA."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .graph import FLOAT16_FILE, INT8_FILE, MODEL_FILE


def to_int8(source: Path, target: Path) -> None:
    """Quantise the weights to eight bits, each output channel by its own scale, and activations as they come.

    Embeddings are quantised too: they are most of a small multilingual encoder.

    Args:
        source: The graph in float32.
        target: What is written.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(source, target, per_channel=True, weight_type=QuantType.QInt8)


def to_float16(source: Path, target: Path) -> None:
    """Convert the weights and the arithmetic to half precision; the inputs are integers and the logits float32.

    Args:
        source: The graph in float32.
        target: What is written.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True), target)


@dataclass(frozen=True)
class Precision:
    """A form in which a graph is written.

    Args:
        name: As in `blender_hf.export.parity.TOLERANCES`.
        file_name: The file.
        convert: Writes it from the graph in float32; None for that itself.
    """

    name: str
    file_name: str
    convert: Callable[[Path, Path], None] | None = None


PRECISIONS = {
    "float32": Precision("float32", MODEL_FILE),
    "float16": Precision("float16", FLOAT16_FILE, to_float16),
    "int8": Precision("int8", INT8_FILE, to_int8),
}
