"""Exports a ranker or a fuser to ONNX, and proves that the result computes the same."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import PretrainedConfig

from blender_hf.checkpoints import HubOptions, explained, first_line, hub_settings, load_fuser, load_ranker, locate
from blender_hf.errors import BlenderError, CheckpointError, InputError, ModelOutputError
from blender_hf.modeling import PairRanker
from blender_hf.modeling.configuration_gen_fuser import LOADABLE_TYPES
from blender_hf.modeling.publishing import make_portable

from .graph import AXES, FUSER_FILES, MODEL_FILE, OPSET, OUTPUT, WEIGHTS_SUFFIX, has_optimum
from .onnx_ranker import DEFAULT_PROVIDER, OnnxPairRanker, check_provider
from .parity import TOLERANCES, Parity, check_fuser, check_ranker, ranker_inputs
from .quantization import PRECISIONS

# A file of this format can't be larger than 2 GB, the graph included.
MOST_BYTES_INSIDE = 1_900_000_000
NEEDS_OPTIMUM = "pip install 'blender-hf[onnx]' 'transformers>=4.57,<4.58'"


def export_onnx(
    name: str | Path,
    output: str | Path,
    *,
    precisions: Sequence[str] = (),
    opset: int = OPSET,
    tolerances: Mapping[str, float] | None = None,
    options: HubOptions | None = None,
) -> dict[str, Parity]:
    """Export a ranker or a fuser, whichever it is, and prove parity of every file.

    Args:
        name: A bundled name, a folder or a Hub id.
        output: The folder to write: the graphs, the configuration and the processor.
        precisions: Which files a ranker gets beside `model.onnx`: "int8" and "float16".
        opset: Version of the operators.
        tolerances: How far a logit may be from torch, by precision ("float32", ...), in units of the largest logit (at
            least 1); what is not given is as in `blender_hf.export.parity.TOLERANCES`.
        options: How the checkpoint is looked up.

    Returns:
        What was found for each file, by its name.

    Raises:
        CheckpointError: If the checkpoint can't be loaded, or can't be exported.
        InputError: If an option does not exist, or is not for this kind of model.
        BlenderError: If what the export needs is not installed.
        ModelOutputError: If a file does not compute what torch does; that of a ranker is removed.
    """
    check_provider(DEFAULT_PROVIDER)
    accepted = {**TOLERANCES, **(tolerances or {})}
    unknown = [precision for precision in (*precisions, *accepted) if precision not in PRECISIONS]
    if unknown:
        raise InputError(f"there is no precision {unknown[0]!r} of an ONNX file; use {', '.join(PRECISIONS)}")
    if not all(value > 0 for value in accepted.values()):
        raise InputError("a tolerance is how far a logit may be from torch, so it is above 0")
    if opset < OPSET:
        raise InputError(f"opset={opset}; use {OPSET} or a later one")
    hub = options or HubOptions()
    config, _ = explained(lambda: PretrainedConfig.get_config_dict(locate(name), **hub_settings(hub)), name, "model")
    if config.get("model_type") not in LOADABLE_TYPES:
        return _export_ranker(name, Path(output), precisions, opset, accepted, hub)
    if precisions:
        raise InputError(f"{', '.join(precisions)}: only a ranker has files of other precisions, not a fuser")
    return _export_fuser(name, Path(output), opset, accepted["float32"], hub)


def _export_ranker(
    name: str | Path,
    output: Path,
    precisions: Sequence[str],
    opset: int,
    tolerances: Mapping[str, float],
    hub: HubOptions,
) -> dict[str, Parity]:
    trace = _trace_with_optimum if has_optimum() else _trace_with_transformers
    model, processor = load_ranker(name, hub, "cpu", "float32")
    output.mkdir(parents=True, exist_ok=True)
    with _explaining(name):
        trace(model, output / MODEL_FILE, opset)
    model.config.save_pretrained(output)
    processor.save_pretrained(output)
    make_portable(output)
    found = {}
    for key in dict.fromkeys(("float32", *precisions)):
        precision = PRECISIONS[key]
        path = output / precision.file_name
        if precision.convert is not None:
            with _explaining(name):
                precision.convert(output / MODEL_FILE, path)
        found[precision.file_name] = _proven(model, path, key, tolerances[key])
    return found


def _proven(model: PairRanker, path: Path, precision: str, tolerance: float) -> Parity:
    """Prove a file, or remove it: nobody shall score with what is not the model."""
    try:
        return check_ranker(model, OnnxPairRanker(path, model.config), tolerance)
    except ModelOutputError as error:
        for file in (path, path.with_name(path.name + WEIGHTS_SUFFIX)):
            file.unlink(missing_ok=True)
        raise ModelOutputError(
            f"{path.name} was removed: {error}. If you accept more, say so with a larger tolerance for {precision}"
        ) from None


def _trace_with_optimum(model: PairRanker, path: Path, opset: int) -> None:
    from optimum.exporters.onnx.convert import export

    from .optimum_configs import RANKER_TASK, PairRankerOnnxConfig

    export(model, PairRankerOnnxConfig(model.config, RANKER_TASK), path, opset=opset)


def _trace_with_transformers(model: PairRanker, path: Path, opset: int) -> None:
    missing = [package for package in ("onnx", "onnxscript", "transformers.exporters") if find_spec(package) is None]
    if missing:
        raise BlenderError(
            f"the export lacks {', '.join(missing)}: pip install -U 'blender-hf[onnx-export]' 'transformers>=5', or "
            f"{NEEDS_OPTIMUM}"
        )
    import onnx_ir
    from transformers.exporters import OnnxConfig, OnnxExporter

    # Traced on a batch of several rows, for an axis of length 1 would be taken for one that never varies.
    example = next(inputs for inputs in ranker_inputs(model.config) if len(inputs["input_ids"]) > 1)
    axes = {name: dict.fromkeys(AXES, torch.export.Dim.AUTO) for name in example}
    config = OnnxConfig(dynamic=True, dynamic_shapes=axes, opset_version=opset)
    graph = OnnxExporter().export(model, example, config=config).program
    for extra in [value for value in graph.graph.outputs if value.name != OUTPUT]:
        graph.graph.outputs.remove(extra)
    beside = sum(weight.numel() * weight.element_size() for weight in model.parameters()) > MOST_BYTES_INSIDE
    onnx_ir.save(graph, path, external_data=path.name + WEIGHTS_SUFFIX if beside else None)


def _export_fuser(name: str | Path, output: Path, opset: int, tolerance: float, hub: HubOptions) -> dict[str, Parity]:
    if not has_optimum():
        raise BlenderError(f"a fuser is exported by Optimum, which needs transformers 4.57: {NEEDS_OPTIMUM}")
    from .onnx_fuser import load_onnx_fuser
    from .optimum_configs import FUSER_TASK_WITH_CACHE, ExportableGenFuser, register

    register()
    model, processor = load_fuser(name, hub, "cpu", "float32")
    model.__class__ = ExportableGenFuser
    with _explaining(name):
        from optimum.exporters.onnx import onnx_export_from_model

        onnx_export_from_model(model, output, task=FUSER_TASK_WITH_CACHE, opset=opset, do_validation=False)
    processor.save_pretrained(output)
    make_portable(output)
    # Exporting has changed the settings of its parts; the reference must be what users load.
    model, _ = load_fuser(name, hub, "cpu", "float32")
    exported, _ = load_onnx_fuser(output, HubOptions())
    return {FUSER_FILES[-1]: check_fuser(model, exported, tolerance)}


@contextlib.contextmanager
def _explaining(name: str | Path) -> Iterator[None]:
    """Silence what tracers report of themselves, and turn their errors into one line."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except BlenderError:
        raise
    # Tracers raise whatever the code that they trace raises.
    except Exception as error:
        raise CheckpointError(f"{str(name)!r} can't be exported: {first_line(error)}") from error
    finally:
        logging.disable(disabled)
