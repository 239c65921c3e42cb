"""Rankers in ONNX Runtime; only `onnxruntime` is needed, on transformers 4 and 5."""

import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from blender_hf.errors import CheckpointError, InputError, first_line, require
from blender_hf.loading.checkpoints import (
    DEFAULT_OPTIONS,
    HubOptions,
    explained,
    hub_settings,
    locate,
    set_truncation,
)
from blender_hf.modeling import PairRankerConfig, PairRankerOutput, PairRankerProcessor
from blender_hf.modeling.modeling_pair_ranker import lead_in_distinct_tokens

from .graph import ENCODINGS, LOGITS, MODEL_FILE, checkpoint_of, inputs_of, output_of, require_onnx_file
from .provenance import DISTINCT_TOKEN_WEIGHT, check_settings, check_weights, settings_in

DEFAULT_PROVIDER = "CPUExecutionProvider"
# Providers that share memory with torch, and the name of their device.
DEVICES = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "cuda"}
# Types of outputs: ONNX Runtime's name, and those for torch and for the binding.
OUTPUT_TYPES = {"tensor(float)": (torch.float32, np.float32), "tensor(float16)": (torch.float16, np.float16)}


class OnnxPairRanker(nn.Module):
    """A ranker with the interface of `PairRanker`, whose graph runs in ONNX Runtime.

    ONNX Runtime reads and writes tensors in place (IO binding), also on a GPU that torch shares. Otherwise they are on
    the CPU, and the provider copies them there and back.

    Args:
        path: The ONNX file.
        config: The ranker's configuration.
        provider: Name of an execution provider of ONNX Runtime.

    Raises:
        InputError: If the provider does not exist here.
        CheckpointError: If the file can't be read, or is not that of a ranker with this configuration.
    """

    # The graph reads whole rows.
    shares_prompts = False

    def __init__(self, path: str | Path, config: PairRankerConfig, provider: str = DEFAULT_PROVIDER) -> None:
        super().__init__()
        self.config = config
        self.device = _device_of(provider)
        self.dtype = torch.float32
        self._provider, self._path = provider, Path(path)
        self._sessions = {os.getpid(): _session(self._path, provider)}
        self.metadata: dict[str, str] = self.session.get_modelmeta().custom_metadata_map
        self._output, self._output_types = _checked_graph(self.session, self._path, config)
        check_settings(self.metadata, self._path, config)
        self._exported_weight = exported_distinct_token_weight(self.metadata, self._path.parent, config)
        # Or the score of a pair would depend on its batch.
        self._one_by_one = quantises_batch(self._path)

    @property
    def session(self) -> Any:
        """The session of this process: a fork has none of the threads of its parent's."""
        if os.getpid() not in self._sessions:
            # The parent's is kept, since its end would wait for threads that are not here.
            self._sessions[os.getpid()] = _session(self._path, self._provider)
        return self._sessions[os.getpid()]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_sessions": {}}

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
    ) -> PairRankerOutput:
        """Score one presentation order of each pair, or encode each candidate, as `PairRanker.forward` does."""
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if self.config.is_chat and token_type_ids is None:
            raise ValueError("this ranker has no markers (layout='chat'): give the token_type_ids of its processor")
        types = [token_type_ids] if self.config.is_chat and token_type_ids is not None else []
        found = self._outputs(input_ids, attention_mask, *types)
        if self.config.is_separate:
            return PairRankerOutput(encodings=found)
        logits = found
        if change := self.config.distinct_token_weight - self._exported_weight:
            lead = lead_in_distinct_tokens(input_ids, attention_mask.bool(), self.config.markers)
            logits = logits + (change * lead).to(logits)
        return PairRankerOutput(logits=logits)

    def _outputs(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Run the graph on `inputs_of` the ranker."""
        if not self._one_by_one:
            return self._run(*inputs)
        lengths = inputs[1].sum(dim=1).tolist()
        rows = [[tensor[i : i + 1, :n] for tensor in inputs] for i, n in enumerate(lengths)]
        return torch.cat([self._run(*row) for row in rows])

    def _run(self, *inputs: torch.Tensor) -> torch.Tensor:
        rows = inputs[0].shape[0]
        torch_type, numpy_type = self._output_types
        shape = (rows, *_shape_of_row(self.config))
        outputs = torch.empty(shape, dtype=torch_type, device=self.device)
        binding = self.session.io_binding()
        place = (self.device.type, self.device.index or 0)
        # The binding keeps addresses, not tensors, and trusts the types it is given.
        bound = [tensor.to(self.device, torch.int64).contiguous() for tensor in inputs]
        for name, tensor in zip(inputs_of(self.config), bound, strict=True):
            binding.bind_input(name, *place, np.int64, tuple(tensor.shape), tensor.data_ptr())
        binding.bind_output(self._output, *place, numpy_type, shape, outputs.data_ptr())
        if self.device.type == "cuda":
            # ONNX Runtime has its own stream: what torch still copies must have arrived.
            torch.cuda.current_stream(self.device).synchronize()
        self.session.run_with_iobinding(binding)
        return outputs


def load_onnx_ranker(
    name: str | Path,
    options: HubOptions = DEFAULT_OPTIONS,
    *,
    provider: str | None = None,
    file_name: str | None = None,
    truncation: Mapping[str, int | str] | None = None,
) -> tuple[OnnxPairRanker, PairRankerProcessor]:
    """Load an exported ranker and its processor, with a truncation as in `load_ranker`.

    The provider None is that of the CPU, the file name None is `model.onnx`, at the top or under `onnx/`.
    """
    where, hub = locate(name), hub_settings(options)
    config = explained(lambda: PairRankerConfig.from_pretrained(where, **hub), name, "ranker", options)
    processor = explained(lambda: PairRankerProcessor.from_pretrained(where, **hub), name, "ranker", options)
    set_truncation(config, processor, truncation)
    path = require_onnx_file(name, options, file_name or MODEL_FILE)
    model = OnnxPairRanker(path, config, provider or DEFAULT_PROVIDER)
    check_weights(model.metadata, path, checkpoint_of(path, name, options))
    return model, processor


def exported_distinct_token_weight(metadata: Mapping[str, str], folder: Path, config: PairRankerConfig) -> float:
    """Return the `distinct_token_weight` of a graph.

    A file that does not state it, such as those of `optimum-cli`, has that of the configuration in its own folder, or
    without one that of the ranker's configuration.
    """
    stated = metadata.get(DISTINCT_TOKEN_WEIGHT)
    if stated is None:
        stated = settings_in(folder).get("distinct_token_weight", config.distinct_token_weight)
    return float(stated)


def quantises_batch(path: Path) -> bool:
    """Return whether a graph has activation scales of whole batches, as `quantize_dynamic` makes them."""
    # The file contains the names of its operations as plain text, so this needs no package `onnx`.
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b"DynamicQuantize") >= 0


def check_provider(provider: str) -> None:
    """Raise BlenderError if ONNX Runtime is not installed, InputError if it lacks an execution provider."""
    onnxruntime = require("onnxruntime", "onnxruntime", "backend='onnx'", ", or [onnx-gpu] for CUDA")
    known = onnxruntime.get_available_providers()
    if provider not in known:
        raise InputError(
            f"ONNX Runtime has no provider {provider!r} here; it has {', '.join(known)} "
            "(those of a GPU come with the extra onnx-gpu)"
        )


def provider_options(provider: str) -> dict[str, int]:
    """Return the options of an execution provider: its GPU, and the precision of its float32."""
    device = _device_of(provider)
    options = {"device_id": device.index} if device.type == "cuda" else {}
    if provider == "CUDAExecutionProvider":
        # One switch for both backends: by default ONNX Runtime rounds float32 products to the ten bits of TF32.
        options["use_tf32"] = int(torch.get_float32_matmul_precision() != "highest")
    return options


def _device_of(provider: str) -> torch.device:
    """Return where the tensors of a provider are: on its GPU, if torch shares it, or else on the CPU."""
    shared = DEVICES.get(provider) if torch.cuda.is_available() else None
    return torch.device("cpu") if shared is None else torch.device(shared, torch.cuda.current_device())


def _session(path: Path, provider: str) -> Any:
    check_provider(provider)
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()  # one switch for both backends
    settings.log_severity_level = 3  # warnings concern the optimization of the graph, which users can't change
    # Operators that a GPU lacks run on the CPU.
    providers = list(dict.fromkeys((provider, DEFAULT_PROVIDER)))
    if not path.is_file() or not path.stat().st_size:
        raise CheckpointError(f"the ONNX file {path} does not exist or is empty")
    try:
        session = onnxruntime.InferenceSession(
            path,
            settings,
            providers=providers,
            provider_options=[provider_options(provider), *({} for _ in providers[1:])],
        )
    # ONNX Runtime has an exception class for every kind of damage, without a common base.
    except Exception as error:
        raise CheckpointError(f"ONNX Runtime can't load {path}: {first_line(error)}; export it again") from error
    if session.get_providers()[0] != provider:
        raise InputError(
            f"ONNX Runtime can't start {provider}: its libraries do not fit this machine; use {providers[-1]}"
        )
    return session


def _checked_graph(session: Any, path: Path, config: PairRankerConfig) -> tuple[str, tuple[torch.dtype, Any]]:
    """Return the output of a graph and its types; CheckpointError if it is not that of a ranker so configured."""
    inputs = [node.name for node in session.get_inputs()]
    outputs = {node.name: node for node in session.get_outputs()}
    known = [
        name for name, n_axes in ((LOGITS, 1), (ENCODINGS, 3)) if name in outputs and len(outputs[name].shape) == n_axes
    ]
    expected = inputs_of(config)
    if sorted(inputs) != sorted(expected) or not known:
        raise CheckpointError(
            f"{path} is not an exported PairRanker: it maps {', '.join(inputs)} to {', '.join(outputs)}, and a ranker "
            f"with layout={config.layout!r} maps {', '.join(expected)} to {LOGITS}, one for each pair, or "
            f"{ENCODINGS}, one for each candidate"
        )
    output = output_of(config)
    if output not in known:
        raise CheckpointError(
            f"{path} gives {known[0]}, and a ranker with candidate_encoding={config.candidate_encoding!r} in its "
            f"configuration gives {output}, so the two are not of one ranker: export it again"
        )
    shape = tuple(outputs[output].shape[1:])
    if shape != _shape_of_row(config):
        raise CheckpointError(
            f"the {output} of {path} are {_times(shape)} numbers for each candidate, and the configuration says "
            f"{_times(_shape_of_row(config))} (n_tasks, 1 + preference_dim), so the two are not of one ranker: export "
            "it again"
        )
    if outputs[output].type not in OUTPUT_TYPES:
        raise CheckpointError(
            f"the {output} of {path} are {outputs[output].type}; a ranker's are {' or '.join(OUTPUT_TYPES)}"
        )
    return output, OUTPUT_TYPES[outputs[output].type]


def _shape_of_row(config: PairRankerConfig) -> tuple[int, ...]:
    """Return the shape of what a ranker gives of one row."""
    return (config.n_tasks, 1 + config.preference_dim) if config.is_separate else ()


def _times(shape: tuple[Any, ...]) -> str:
    return " x ".join(map(str, shape))
