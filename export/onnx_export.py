"""Export of a ranker or a fuser to ONNX, with proof that the result computes the same."""

import io
import logging
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import PretrainedConfig

from blender_hf.errors import BlenderError, CheckpointError, InputError, ModelOutputError, first_line
from blender_hf.loading.checkpoints import (
    HubOptions,
    explained,
    hub_settings,
    load_fuser,
    load_ranker,
    locate,
)
from blender_hf.modeling import CausalGenFuser, PairRanker
from blender_hf.modeling.configuration_gen_fuser import LOADABLE_TYPES

from .graph import (
    AXES,
    CAUSAL_FUSER_FILES,
    FUSER_FILES,
    FUSER_GRAPHS,
    MAX_BYTES_INSIDE,
    MAX_OPSET,
    MODEL_FILE,
    NEEDS_OPTIMUM,
    OPSET,
    WEIGHTS_SUFFIX,
    has_optimum,
    is_causal_fuser,
    output_of,
)
from .onnx_ranker import OnnxPairRanker
from .parity import TOLERANCES, Parity, check_fuser, check_ranker, ranker_inputs
from .provenance import WEIGHTS, add_metadata, read_metadata, saved_fingerprints, statement_of, weight_files
from .quantization import PRECISIONS, Precision


def export_onnx(
    name: str | Path,
    output: str | Path,
    *,
    precisions: Sequence[str] = (),
    opset: int = OPSET,
    tolerances: Mapping[str, float] | None = None,
    options: HubOptions | None = None,
) -> dict[str, Parity]:
    """Export a ranker or a fuser, whichever it is, and prove parity of every file."""
    accepted = {**TOLERANCES, **(tolerances or {})}
    unknown = [precision for precision in (*precisions, *accepted) if precision not in PRECISIONS]
    if unknown:
        raise InputError(f"there is no precision {unknown[0]!r} of an ONNX file; use {', '.join(PRECISIONS)}")
    if not all(value > 0 for value in accepted.values()):
        raise InputError("a tolerance is how far a logit may be from torch, so it is above 0")
    if not OPSET <= opset <= MAX_OPSET:
        raise InputError(f"opset={opset}; use {OPSET} to {MAX_OPSET}")
    hub = options or HubOptions()
    with unproved_folder(Path(output)) as unproved:
        config, _ = explained(
            lambda: PretrainedConfig.get_config_dict(locate(name), **hub_settings(hub)), name, "model"
        )
        if config.get("model_type") not in LOADABLE_TYPES and not is_causal_fuser(config):
            return _export_ranker(name, Path(output), unproved, precisions, opset, accepted, hub)
        if precisions:
            raise InputError(f"{', '.join(precisions)}: only a ranker has files of other precisions, not a fuser")
        return _export_fuser(name, Path(output), unproved, opset, accepted["float32"], hub)


def _export_ranker(
    name: str | Path,
    output: Path,
    unproved: Path,
    precisions: Sequence[str],
    opset: int,
    tolerances: Mapping[str, float],
    hub: HubOptions,
) -> dict[str, Parity]:
    trace = _trace_with_optimum if has_optimum() else _trace_with_transformers
    if not has_optimum():
        _check_packages()
    model, processor = load_ranker(name, hub, device="cpu", dtype="float32")
    statement = statement_of(model)
    wanted = [PRECISIONS[key] for key in dict.fromkeys(("float32", *precisions))]
    check_output(output, statement, [precision.file_name for precision in wanted], _is_source(output, name, hub))
    found = {}
    for precision in wanted:
        path = unproved / precision.file_name
        with _explaining(name):
            if precision.convert is None:
                trace(model, path, opset)
            else:
                precision.convert(output / MODEL_FILE, path)
            add_metadata(path, statement)
            found[precision.file_name] = _proven(model, path, output, precision, tolerances[precision.name])
        keep(path, output)
        if precision.convert is None and not _has_settings(output, name, hub):
            model.config.save_pretrained(output)
            processor.save_pretrained(output)
    return found


def _proven(model: PairRanker, path: Path, output: Path, precision: Precision, tolerance: float) -> Parity:
    """Prove a file, or remove an earlier export of it too, so that nobody scores with another model."""
    try:
        return check_ranker(model, OnnxPairRanker(path, model.config), tolerance)
    except ModelOutputError as error:
        remove(output / path.name)
        raise ModelOutputError(
            f"{path.name} was removed: {error}. If you accept more, say so with a larger tolerance for {precision.name}"
        ) from None


def _has_settings(output: Path, name: str | Path, hub: HubOptions) -> bool:
    """Return whether a folder is a checkpoint, whose configuration and processor stay unchanged."""
    return bool(weight_files(output)) or _is_source(output, name, hub)


def _is_source(output: Path, name: str | Path, hub: HubOptions) -> bool:
    return Path(locate(name), hub.subfolder or "").resolve() == output.resolve()


def _trace_with_optimum(model: PairRanker, path: Path, opset: int) -> None:
    from optimum.exporters.onnx.convert import export

    from .optimum_configs import RANKER_TASK, PairRankerOnnxConfig

    export(model, PairRankerOnnxConfig(model.config, RANKER_TASK), path, opset=opset)


def _check_packages() -> None:
    """Raise BlenderError, before any work, if a package is missing that exports without Optimum."""
    needed = ("onnx", "onnxruntime", "onnxscript", "transformers.exporters")
    if missing := [package for package in needed if find_spec(package) is None]:
        raise BlenderError(
            f"the export lacks {', '.join(missing)}: pip install -U 'blender-hf[onnx-export]' 'transformers>=5', or "
            f"{NEEDS_OPTIMUM}"
        )


def _trace_with_transformers(model: PairRanker, path: Path, opset: int) -> None:
    import onnx_ir
    from transformers.exporters import OnnxConfig, OnnxExporter

    # Traced on a batch of several rows, since an axis of length 1 would be taken for a constant.
    example = next(inputs for inputs in ranker_inputs(model.config) if len(inputs["input_ids"]) > 1)
    axes = {name: dict.fromkeys(AXES, torch.export.Dim.AUTO) for name in example}
    config = OnnxConfig(dynamic=True, dynamic_shapes=axes, opset_version=opset)
    exported = OnnxExporter().export(model, dict(example), config=config)
    # transformers 5.17 returns torch's own result, 5.24 an object with the graph under another name.
    graph: Any = getattr(exported, "program" if hasattr(exported, "program") else "model")
    for extra in [value for value in graph.graph.outputs if value.name != output_of(model.config)]:
        graph.graph.outputs.remove(extra)
    beside = sum(weight.numel() * weight.element_size() for weight in model.parameters()) > MAX_BYTES_INSIDE
    onnx_ir.save(graph, path, external_data=path.name + WEIGHTS_SUFFIX if beside else None)


def _export_fuser(
    name: str | Path, output: Path, unproved: Path, opset: int, tolerance: float, hub: HubOptions
) -> dict[str, Parity]:
    if not has_optimum():
        raise BlenderError(f"a fuser is exported by Optimum, which needs transformers 4.57: {NEEDS_OPTIMUM}")
    from .onnx_fuser import load_onnx_fuser
    from .optimum_configs import CAUSAL_TASK_WITH_CACHE, FUSER_TASK_WITH_CACHE, ExportableGenFuser, register

    register()
    model, processor = load_fuser(name, hub, device="cpu", dtype="float32")
    statement = statement_of(model)
    is_causal = isinstance(model, CausalGenFuser)
    check_output(output, statement, CAUSAL_FUSER_FILES if is_causal else FUSER_GRAPHS, _is_source(output, name, hub))
    if not is_causal:
        model.__class__ = ExportableGenFuser
    task = CAUSAL_TASK_WITH_CACHE if is_causal else FUSER_TASK_WITH_CACHE
    with _explaining(name):
        from optimum.exporters.onnx import onnx_export_from_model

        onnx_export_from_model(model, unproved, task=task, opset=opset, do_validation=False)
        processor.save_pretrained(unproved)
        for graph in unproved.glob("*.onnx"):
            add_metadata(graph, statement)
        # Exporting changed the settings of its parts; the reference must be what users load.
        model, _ = load_fuser(name, hub, device="cpu", dtype="float32")
        exported, _ = load_onnx_fuser(unproved, HubOptions())
        parity = check_fuser(model, exported, tolerance, processor.max_source_length)
    settings_stay = _has_settings(output, name, hub)
    for path in sorted(unproved.iterdir()):
        if path.name.endswith((".onnx", WEIGHTS_SUFFIX)) or not settings_stay:
            path.replace(output / path.name)
    return {(CAUSAL_FUSER_FILES if is_causal else FUSER_FILES)[-1]: parity}


@contextmanager
def _explaining(name: str | Path) -> Iterator[None]:
    """Silence the logs of tracers, and turn their errors into one line."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except BlenderError:
        raise
    # Tracers raise whatever the code that they trace raises.
    except Exception as error:
        raise CheckpointError(f"{str(name)!r} can't be exported: {first_line(error)}") from error
    finally:
        logging.disable(disabled)


@contextmanager
def unproved_folder(output: Path) -> Iterator[Path]:
    """Create the folder of an export, and yield a temporary one in it for what is not proved yet.

    Afterwards the temporary folder is gone, whatever happens, and so is an export without files.
    """
    places = (output, *output.parents)
    for place in places:
        if place.exists() and not place.is_dir():
            raise InputError(f"can't write {output}: {place} is a file, and an export is a folder")
    missing = [place for place in places if not place.exists()]
    try:
        output.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".unproved-", dir=output) as unproved:
            yield Path(unproved)
    except BlenderError:
        raise
    except OSError as error:
        raise InputError(f"can't write {output}: {error.strerror or error}") from None
    finally:
        for place in missing:
            with suppress(OSError):  # it has files
                place.rmdir()


def check_output(output: Path, statement: Mapping[str, str], written: Collection[str], is_source: bool) -> None:
    """Check that a folder has nothing of another model beside the files of an export."""
    same = is_source or (saved_fingerprints(output) or frozenset()).issuperset(statement[WEIGHTS].split())
    if not same and weight_files(output):
        raise InputError(f"{output} has the weights of another model; give another folder, such as {output / 'onnx'}")
    for path in sorted(output.glob("*.onnx")):
        if path.name not in written and read_metadata(path).get(WEIGHTS) != statement[WEIGHTS]:
            raise InputError(
                f"{path} was made of other weights, or does not say of which, and this export does not write it anew: "
                "remove it, or give another folder"
            )


def keep(path: Path, output: Path) -> None:
    """Move a proved file, and the weights beside it, to the folder of the export."""
    for name in (path.name + WEIGHTS_SUFFIX, path.name):
        if path.with_name(name).is_file():
            path.with_name(name).replace(output / name)
        else:
            (output / name).unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove a file, if it exists, and the weights beside it."""
    for name in (path.name, path.name + WEIGHTS_SUFFIX):
        path.with_name(name).unlink(missing_ok=True)
