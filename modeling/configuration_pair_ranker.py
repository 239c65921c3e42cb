"""Configuration of PairRanker."""

import math
from typing import TYPE_CHECKING, Any

from transformers import AutoConfig, PretrainedConfig

from .original_formats import from_pairrm, from_ranker_config, is_pairrm, is_ranker_config
from .ranker_tokenizer import original_tokenizer
from .symmetry import SYMMETRIC_BACKBONES
from .truncation import check_truncation

if TYPE_CHECKING:
    # The processor that the pipeline of `custom_pipelines` loads, and what it imports: from a local folder,
    # transformers 4 takes only the files that a file names, and a configuration is loaded before all else.
    from .chat import render_prompt  # noqa: F401
    from .padding import pad_right  # noqa: F401
    from .plain_text import PlainTextEncoder  # noqa: F401
    from .processing_pair_ranker import PairRankerProcessor  # noqa: F401
    from .publishing import PublishingMixin  # noqa: F401
    from .tokenizer_files import tokenizer_json  # noqa: F401

POOLINGS = ("marker", "mean")
# Encoders with a table of absolute positions, which ends; those of the second row begin behind their padding.
COUNTED_FROM_0 = ("albert", "bert", "convbert", "deberta", "deberta-v2", "distilbert", "electra", "ernie", "rembert")
COUNTED_FROM_PADDING = (
    "camembert",
    "data2vec-text",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
)
MPNET_PADDING = 1  # whatever its configuration states
# What transformers 4 calls the bases of ModernBERT's rotary positions, by the attention that 5 states them for.
ROPE_THETAS = {"global_rope_theta": "full_attention", "local_rope_theta": "sliding_attention"}
# In the form of transformers: the task, and what runs it from the code beside the weights.
BLENDING = ("llm-blending", {"impl": "pipeline_llm_blending.LlmBlendingPipeline", "pt": ["AutoModel"], "type": "text"})


class PairRankerConfig(PretrainedConfig):
    """Everything that fixes what a PairRanker computes, the lengths at which texts are cut included.

    Args:
        backbone_config: Configuration of the encoder (any that `AutoModel` builds), or its dictionary.
        n_tasks: Number of quality functions that the head was trained on; the logit of a pair is their mean.
        pooling: What represents the prompt and each candidate: the state at the special token in front of it ("marker",
            PairRM), or the mean over its tokens ("mean"), for which encoders of sentences are trained.
        symmetric: Whether neither candidate has a place of its own, so that swapping them negates the logit: see
            `symmetry.py`. For encoders of `SYMMETRIC_BACKBONES`; a ranker has to be trained with it.
        cross_candidate_bias: With `symmetric`, what is added to the attention scores between different candidates.
        distinct_token_weight: A preference for the candidate that says more, which the logit has besides what the model
            finds: this times (n1 - n2) / (n1 + n2), where n1 and n2 count the distinct tokens of the candidates, as far
            as they are read. 0: none. It may be changed at any time; `logit_temperature` was fitted with it.
        head_dropout: Dropout before both layers of the head, in training.
        source_token_id: Id of the special token in front of the prompt.
        candidate1_token_id: Id of the special token in front of the candidate that is read first.
        candidate2_token_id: Id of the special token in front of the candidate that is read second.
        max_pair_length: Most tokens of a pair, special tokens included.
        max_source_length: Most tokens of the prompt's part, special tokens included.
        max_candidate_length: Most tokens of a candidate's part, special tokens included. The budget of each of the two
            is also at most half of what the prompt leaves of `max_pair_length`, so it depends on that prompt alone.
        source_truncation_side: Which end of a long prompt is cut. "left" keeps the last turns of a conversation.
        candidate_truncation_side: Which end of a long candidate is cut.
        logit_temperature: What a logit is divided by before its sigmoid is taken for a probability: 1 as trained;
            fitted on judged pairs, it makes the probabilities come true.
        fuser: The Hub id of the fuser that goes with this ranker: who loads the ranker for blending gets both.
        fuser_revision: Branch, tag or commit of that fuser.
        initializer_range: Standard deviation of new weights of the head.
        **kwargs: Options of every configuration in transformers.

    Raises:
        ValueError: If a length, a side or the encoder can't work.
    """

    model_type = "pair_ranker"
    sub_configs = {"backbone_config": AutoConfig}  # noqa: RUF012 (the form that transformers expects)
    # What `custom_pipelines` is; where the package is installed it puts its own here, see `blender_hf.pipeline`.
    pipelines_type: type[dict[str, Any]] = dict

    def __init__(
        self,
        backbone_config: PretrainedConfig | dict[str, Any] | None = None,
        n_tasks: int = 1,
        pooling: str = "marker",
        symmetric: bool = False,
        cross_candidate_bias: float = -2.0,
        distinct_token_weight: float = 0.0,
        head_dropout: float = 0.05,
        source_token_id: int | None = None,
        candidate1_token_id: int | None = None,
        candidate2_token_id: int | None = None,
        max_pair_length: int = 2048,
        max_source_length: int = 1224,
        max_candidate_length: int = 1024,
        source_truncation_side: str = "right",
        candidate_truncation_side: str = "right",
        logit_temperature: float = 1.0,
        fuser: str | None = None,
        fuser_revision: str | None = None,
        initializer_range: float = 0.02,
        **kwargs: Any,
    ) -> None:
        self.backbone_config = _as_config(backbone_config)
        self.n_tasks = n_tasks
        self.pooling = pooling
        self.symmetric = symmetric
        self.cross_candidate_bias = cross_candidate_bias
        self.distinct_token_weight = distinct_token_weight
        self.head_dropout = head_dropout
        self.source_token_id = source_token_id
        self.candidate1_token_id = candidate1_token_id
        self.candidate2_token_id = candidate2_token_id
        self.max_pair_length = max_pair_length
        self.max_source_length = max_source_length
        self.max_candidate_length = max_candidate_length
        self.source_truncation_side = source_truncation_side
        self.candidate_truncation_side = candidate_truncation_side
        self.logit_temperature = logit_temperature
        self.fuser = fuser
        self.fuser_revision = fuser_revision
        self.initializer_range = initializer_range
        self._check()
        super().__init__(**kwargs)
        # `transformers.pipeline` writes into it, so every configuration has one of its own.
        self.custom_pipelines = self.pipelines_type({BLENDING[0]: dict(BLENDING[1])})

    @property
    def markers(self) -> tuple[Any, Any, Any]:
        """Ids of the special tokens in front of the prompt and the two candidates."""
        return self.source_token_id, self.candidate1_token_id, self.candidate2_token_id

    @property
    def n_positions(self) -> int | None:
        """How many tokens the encoder has positions for; None if it can be any number, or is not known."""
        encoder = self.backbone_config
        kind = encoder.model_type
        # DeBERTa-v3 has relative positions alone.
        if not getattr(encoder, "position_biased_input", True):
            return None
        if kind in COUNTED_FROM_0:
            return encoder.max_position_embeddings
        if kind in COUNTED_FROM_PADDING:
            padding = MPNET_PADDING if kind == "mpnet" else encoder.pad_token_id
            return encoder.max_position_embeddings - (0 if padding is None else padding + 1)
        return None

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: Any, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read the dictionary of a configuration, taking those of the authors' checkpoints for ours."""
        config, rest = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if is_pairrm(config):
            config = {"model_type": cls.model_type, **from_pairrm(config, pretrained_model_name_or_path)}
        elif is_ranker_config(config):
            tokenizer = original_tokenizer(config, **kwargs)
            config = {"model_type": cls.model_type, **from_ranker_config(config, tokenizer, **kwargs)}
        return config, rest

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> "PairRankerConfig":
        """Make a configuration from its dictionary.

        Raises:
            ValueError: If the dictionary is that of another kind of model: its weights would not be a ranker's.
        """
        kind = config_dict.get("model_type", cls.model_type)
        if kind != cls.model_type:
            raise ValueError(
                f"this is a checkpoint of model_type {kind!r}, not a PairRanker; to train a ranker on top of such an "
                "encoder, use PairRanker.from_backbone"
            )
        return super().from_dict(config_dict, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as a dictionary, without where the encoder once came from and its precision then."""
        output = super().to_dict()
        for name in ("_name_or_path", "dtype", "torch_dtype"):
            output["backbone_config"].pop(name, None)
        return output

    def _check(self) -> None:
        check_truncation(self)
        if not self.logit_temperature > 0:
            raise ValueError(f"logit_temperature={self.logit_temperature}; it divides logits, so it is above 0")
        if not math.isfinite(self.distinct_token_weight):
            raise ValueError(f"distinct_token_weight={self.distinct_token_weight}; it is a number, 0 for none")
        if self.pooling not in POOLINGS:
            raise ValueError(f"pooling={self.pooling!r}; use one of {', '.join(POOLINGS)}")
        if self.symmetric and self.backbone_config.model_type not in SYMMETRIC_BACKBONES:
            raise ValueError(
                f"symmetric=True with an encoder of type {self.backbone_config.model_type!r}; it works with "
                f"{', '.join(SYMMETRIC_BACKBONES)}, whose positions are absolute"
            )
        if not isinstance(self.head_dropout, int | float) or not 0 <= self.head_dropout < 1:
            raise ValueError(f"head_dropout={self.head_dropout!r}; use a number from 0 up to 1 (PairRM: drop_out)")
        if self.n_tasks < 1:
            raise ValueError(f"n_tasks={self.n_tasks}; a ranker has at least one")


def _as_config(config: PretrainedConfig | dict[str, Any] | None) -> PretrainedConfig:
    if isinstance(config, PretrainedConfig):
        return config
    # transformers builds a configuration without arguments to find out what the defaults are.
    settings = {"model_type": "deberta-v2"} if config is None else dict(config)
    if "model_type" not in settings:
        raise ValueError("the configuration of the encoder states no model_type: add it to config.json")
    kind = settings.pop("model_type")
    return AutoConfig.for_model(kind, **(_with_rope_thetas(settings) if kind == "modernbert" else settings))


def _with_rope_thetas(settings: dict[str, Any]) -> dict[str, Any]:
    """Name the bases of ModernBERT's rotary positions as transformers 4 does, which passes over the names of 5.

    It would take its defaults instead, and the encoders of which that is wrong, such as mmBERT, would see other
    positions without a word.
    """
    stated = settings.get("rope_parameters") or {}
    thetas = {name: stated[kind]["rope_theta"] for name, kind in ROPE_THETAS.items() if kind in stated}
    return {**thetas, **settings}
