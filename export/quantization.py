"""Smaller graphs from that of float32: eight bits for CPUs, half precision for CUDA."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .graph import FLOAT16_FILE, INT8_FILE, MODEL_FILE, MOST_BYTES_INSIDE, WEIGHTS_SUFFIX

BLOCK = 128  # weights that share a scale; 32 halves the error and costs a seventh of the speed
INT8_ACTIVATIONS = 4  # ONNX Runtime's name for the arithmetic in which activations have eight bits too


def to_int8(source: Path, target: Path) -> None:
    """Quantise weights and activations to eight bits.

    Weights have a scale for every block, activations one for every block of every token, as they come. Scales that a
    whole tensor shares, which `quantize_dynamic` makes, cost a small ranker several times the accuracy, and would let a
    pair's logit depend on what else is in its batch. Embeddings have a scale for each token of the vocabulary.

    Args:
        source: The graph in float32.
        target: What is written.
    """
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    model = onnx.load(source)
    _quantise_embeddings(model.graph)
    quantizer = MatMulNBitsQuantizer(
        model, bits=8, block_size=BLOCK, is_symmetric=True, accuracy_level=INT8_ACTIVATIONS
    )
    quantizer.process()
    quantizer.model.save_model_to_file(str(target))


def _quantise_embeddings(graph: Any) -> None:
    """Replace each table of embeddings (tokens, hidden) by one of eight bits and a column of scales."""
    import onnx
    from onnx import numpy_helper

    tables = {weight.name: weight for weight in graph.initializer if len(weight.dims) == 2}
    nodes, done = [], set()
    for node in graph.node:
        if node.op_type != "Gather" or node.input[0] not in tables or any(axis.i for axis in node.attribute):
            nodes.append(node)
            continue
        table, ids, output = node.input[0], node.input[1], node.output[0]
        if table not in done:
            done.add(table)
            weights = numpy_helper.to_array(tables[table])
            scales = np.maximum(np.abs(weights).max(axis=1, keepdims=True), np.finfo(np.float32).tiny) / 127
            eight_bits = np.rint(weights / scales).astype(np.int8)
            graph.initializer.append(numpy_helper.from_array(eight_bits, f"{table}.int8"))
            graph.initializer.append(numpy_helper.from_array(scales.astype(np.float32), f"{table}.scales"))
        nodes += [
            onnx.helper.make_node("Gather", [f"{table}.int8", ids], [f"{output}.int8"]),
            onnx.helper.make_node("Gather", [f"{table}.scales", ids], [f"{output}.scale"]),
            onnx.helper.make_node("Cast", [f"{output}.int8"], [f"{output}.float"], to=onnx.TensorProto.FLOAT),
            onnx.helper.make_node("Mul", [f"{output}.float", f"{output}.scale"], [output]),
        ]
    used = {name for node in nodes for name in node.input}
    kept = [weight for weight in graph.initializer if weight.name in used or weight.name not in done]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)


def to_float16(source: Path, target: Path) -> None:
    """Convert the weights and the arithmetic to half precision; the inputs are integers and the logits float32.

    Args:
        source: The graph in float32.
        target: What is written.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    beside = source.with_name(source.name + WEIGHTS_SUFFIX)
    n_bytes = sum(path.stat().st_size for path in (source, beside) if path.is_file())
    # The shapes within a graph, of which nothing here depends, are found in a copy that can't be larger than 2 GB.
    is_large = n_bytes > MOST_BYTES_INSIDE
    graph = convert_float_to_float16(onnx.load(source), keep_io_types=True, disable_shape_infer=is_large)
    outside = {"save_as_external_data": True, "location": target.name + WEIGHTS_SUFFIX}
    onnx.save(graph, target, **(outside if n_bytes / 2 > MOST_BYTES_INSIDE else {}))


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
