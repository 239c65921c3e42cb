"""Smaller graphs from the float32 one: eight bits for CPUs, half precision for CUDA."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .graph import FLOAT16_FILE, INT8_FILE, MAX_BYTES_INSIDE, MODEL_FILE, WEIGHTS_SUFFIX

BLOCK = 128  # weights that share a scale; 32 halves the error and costs a seventh of the speed
INT8_ACTIVATIONS = 4  # ONNX Runtime's accuracy level with activations of eight bits


def to_int8(source: Path, target: Path) -> None:
    """Quantise weights and activations to eight bits.

    Weights have a scale per block, activations one per block of each token, computed on the fly. Scales of a whole
    tensor, as `quantize_dynamic` makes them, cost a small ranker several times the accuracy, and let a pair's logit
    depend on its batch. Embeddings have a scale per token of the vocabulary.
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
    """Replace each embedding table (tokens, hidden) by one of eight bits and a column of scales."""
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
    """Convert weights and arithmetic to half precision; inputs stay integers and logits float32."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    beside = source.with_name(source.name + WEIGHTS_SUFFIX)
    n_bytes = sum(path.stat().st_size for path in (source, beside) if path.is_file())
    # Inferring shapes, on which nothing here depends, copies the graph to a message of at most 2 GB.
    is_large = n_bytes > MAX_BYTES_INSIDE
    graph = convert_float_to_float16(onnx.load(source), keep_io_types=True, disable_shape_infer=is_large)
    is_outside = n_bytes / 2 > MAX_BYTES_INSIDE
    onnx.save(graph, target, save_as_external_data=is_outside, location=target.name + WEIGHTS_SUFFIX)


@dataclass(frozen=True)
class Precision:
    """A precision in which a graph is written: `convert` makes it from the float32 one, which needs none."""

    name: str
    file_name: str
    convert: Callable[[Path, Path], None] | None = None


PRECISIONS = {
    "float32": Precision("float32", MODEL_FILE),
    "float16": Precision("float16", FLOAT16_FILE, to_float16),
    "int8": Precision("int8", INT8_FILE, to_int8),
}
