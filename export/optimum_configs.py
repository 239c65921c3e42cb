"""What Optimum needs to know of our models to export them: their inputs, their outputs, and how they are loaded."""

from typing import Any

import torch

from blender_hf.errors import BlenderError
from blender_hf.modeling import GenFuser, GenFuserConfig, PairRanker, PairRankerConfig
from blender_hf.modeling.hub_mixins import TASKS

from .graph import AXES, NEEDS_OPTIMUM, OPSET, inputs_of, output_of

try:
    from optimum.exporters.onnx.config import TextEncoderOnnxConfig
    from optimum.exporters.onnx.model_configs import T5OnnxConfig
    from optimum.exporters.tasks import TasksManager
    from optimum.utils import DummyTextInputGenerator, NormalizedTextConfig
except ModuleNotFoundError:
    raise BlenderError(f"an export by Optimum lacks it: {NEEDS_OPTIMUM}") from None

RANKER_TASK = "text-classification"
FUSER_TASK = "text2text-generation"
FUSER_TASK_WITH_CACHE = "text2text-generation-with-past"
# Of a fuser that is a causal language model, which Optimum knows itself.
CAUSAL_TASK_WITH_CACHE = "text-generation-with-past"


class RowGenerator(DummyTextInputGenerator):
    """Creates the inputs on which Optimum compares the graph: random pairs or candidates, as the ranker reads them."""

    def generate(self, input_name: str, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return (batch, length), with a token after each of the markers, and no padding in between.

        Without markers the first half is the prompt.
        """
        made = super().generate(input_name, *args, **kwargs)
        config = self.normalized_config.config
        if config.is_chat:
            half = made.shape[1] // 2
            if input_name == "attention_mask":
                made[:, : half + 1] = 1
            elif input_name == "token_type_ids":
                made[:] = torch.arange(made.shape[1]) >= half
            return made
        markers = config.row_markers
        if input_name == "input_ids":
            ordinary = next(token for token in range(self.vocab_size) if token not in config.markers)
            made = made.masked_fill(torch.isin(made, torch.tensor(config.markers)), ordinary)
            made[:, : 2 * len(markers) : 2] = torch.tensor(markers)
        else:
            made[:, : 2 * len(markers)] = 1
        return made


class PairRankerOnnxConfig(TextEncoderOnnxConfig):
    """One graph: `input_ids` and `attention_mask`, both (batch, length), give `logits`, (batch,), or encodings.

    With layout "chat" it has `token_type_ids` too.
    Those of a ranker that reads each candidate by itself are `encodings`, (batch, n_tasks, 1 + preference_dim).
    """

    DEFAULT_ONNX_OPSET = OPSET
    DUMMY_INPUT_GENERATOR_CLASSES = (RowGenerator,)
    NORMALIZED_CONFIG_CLASS = NormalizedTextConfig.with_args(vocab_size="backbone_config.vocab_size", allow_new=True)

    @property
    def inputs(self) -> dict[str, dict[int, str]]:
        """Names of the inputs and of their free axes."""
        return dict.fromkeys(inputs_of(self._config), AXES)

    @property
    def outputs(self) -> dict[str, dict[int, str]]:
        """Name of the output and of its free axis."""
        return {output_of(self._config): {0: AXES[0]}}


class GenFuserOnnxConfig(T5OnnxConfig):
    """The graphs of a T5: its encoder, its decoder without and with a cache, and the two decoders merged into one."""


class ExportablePairRanker(PairRanker):
    """A ranker in the form that Optimum requires."""

    # Optimum recognizes models of transformers by the beginning of the name of their module.
    __module__ = "transformers.blender_hf"

    def __init__(self, config: PairRankerConfig) -> None:
        super().__init__(config)
        # Optimum requires one, and would ask a tokenizer for it.
        self.config.pad_token_id = config.backbone_config.pad_token_id


class ExportableGenFuser(GenFuser):
    """A fuser in the form that Optimum requires."""

    __module__ = "transformers.blender_hf"


def register() -> None:
    """Tell Optimum of our models, for `optimum-cli export onnx` and for our own export; repeating it is harmless."""
    # The Hub's task of a published ranker, which Optimum takes for its own.
    TasksManager._SYNONYM_TASK_MAP.setdefault(TASKS[PairRankerConfig.model_type], RANKER_TASK)
    register_onnx = TasksManager.create_register("onnx", overwrite_existing=True)
    register_onnx(PairRankerConfig.model_type, RANKER_TASK)(PairRankerOnnxConfig)
    register_onnx(GenFuserConfig.model_type, FUSER_TASK, FUSER_TASK_WITH_CACHE)(GenFuserOnnxConfig)
    TasksManager._CUSTOM_CLASSES |= {
        ("pt", PairRankerConfig.model_type, RANKER_TASK): (__name__, ExportablePairRanker.__name__),
        ("pt", GenFuserConfig.model_type, FUSER_TASK): (__name__, ExportableGenFuser.__name__),
    }
