"""Configuration of PairRanker, and the checkpoint formats it is read from.

The authors of LLM-Blender published two formats, which load unchanged. Both keep the encoder's weights under
`pretrained_model`, and the head in a `Sequential`: 0 dropout, 1 linear, 2 tanh, 3 dropout, 4 linear.

- `llm-blender/PairRM-hf` (class `DebertaV2PairRM`): the encoder's configuration with a few more settings. So is
  `mightbe/Better-PairRM`, which was trained with other lengths.
- `llm-blender/PairRM`, `llm-blender/pair-ranker` (`RankerConfig`): names the encoder's repository, from which the
  tokenizer and the encoder's configuration come.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES

from .configurations import load_config, read_alike
from .tokenization import POSITIONS_AFTER_PADDING, n_positions
from .tokenizer_files import load_tokenizer

POOLINGS = ("marker", "mean", "last")
# How a ranker reads the candidates of a prompt.
CANDIDATE_ENCODINGS = ("joint", "separate")
# How rows are made of texts: with a special token in front of each part, or by the tokenizer's chat template.
LAYOUTS = ("markers", "chat")
# Settings that only one of them has, with what they are in the other.
OF_JOINT = {"symmetric": False, "distinct_token_weight": 0.0}
OF_SEPARATE = {"shared_prompt": False, "preference_dim": 0}
# Encoders with absolute positions, made of `embeddings` and an `encoder` that takes a mask of any shape.
SYMMETRIC_BACKBONES = ("bert", "roberta", "xlm-roberta")
# Encoders that can read a prompt apart from its candidates; they have the same parts.
SHARING_ENCODERS = SYMMETRIC_BACKBONES
# Encoders and decoders whose table of absolute positions ends.
ABSOLUTE_POSITIONS = (
    *("albert", "bert", "convbert", "deberta", "deberta-v2", "distilbert", "electra", "ernie", "rembert"),
    *("biogpt", "gpt2", "gpt_bigcode", "gpt_neo", "openai-gpt", "opt"),
    *POSITIONS_AFTER_PADDING,
)
# As transformers expects it: the task, and the class that runs it from the code beside the weights.
BLENDING = ("llm-blending", {"impl": "pipeline_llm_blending.LlmBlendingPipeline", "pt": ["AutoModel"], "type": "text"})
# Encoders with a decoder that make its input of the text by themselves.
DECODING_ENCODERS = ("bart", "bigbird_pegasus", "led", "mbart", "mvp", "plbart")
# Language models that read a whole text in both directions.
BOTH_WAYS = ("bert-generation", "xlnet")
SPECIAL_TOKENS = ("<|source|>", "<|candidate1|>", "<|candidate2|>", "<|candidate|>")
TOKEN_IDS = ("source_token_id", "candidate1_token_id", "candidate2_token_id")
TRUNCATION_SIDES = ("left", "right")
LENGTHS = ("max_pair_length", "max_source_length", "max_candidate_length")
SIDES = ("source_truncation_side", "candidate_truncation_side")
# The settings of truncation, which a ranker's configuration and its processor share.
TRUNCATION = (*LENGTHS, *SIDES)


class PairRankerConfig(PretrainedConfig):
    """Everything that determines what a PairRanker computes, including where texts are truncated.

    Args:
        backbone_config: Configuration of the encoder (any that `AutoModel` builds), or its dictionary.
        n_tasks: Number of quality functions that the head was trained on; the logit of a pair is their mean.
        candidate_encoding: How candidates are read: two of them together with the prompt ("joint", PairRM), so that N
            candidates take N (N - 1) / 2 readings in one order of presentation; or each once with the prompt
            ("separate"), N readings, whose encodings are compared, see `compare_encodings`. A logit of separate
            encodings has no position bias.
        shared_prompt: With separate encodings, whether the prompt is read without its candidates, so that it is read
            once for all of them. Causal backbones always read so; for encoders of `SHARING_ENCODERS`.
        preference_dim: With separate encodings, how many coordinates an encoding has besides its score, an even number.
            With 0 a logit is a difference of two scores, so preferences are transitive.
        layout: How a row is made of the texts: with a special token in front of each part ("markers", PairRM), or as
            the tokenizer's chat template writes the conversation, with the candidate as the assistant's answer
            ("chat"), so that a chat model reads what it knows. "chat" is for separate encodings and causal backbones;
            it adds no tokens, and the ids of the special tokens are None.
        pooling: What represents the prompt and each candidate: the state at the special token in front of it ("marker",
            PairRM), the mean over its tokens ("mean"), as sentence encoders are trained, or the state at its last token
            ("last"), where a causal model has read all of it: with layout "chat", at the end of the header of the
            answer and at the token that ends the answer.
        encoder_sample: With separate encodings, a few weights of the encoder, which `save_pretrained` writes, so that a
            head is not taken for that of another revision of the encoder. None says nothing.
        symmetric: Whether the model has no position bias by construction: swapping the candidates negates the logit,
            see `encode_symmetrically`. For encoders of `SYMMETRIC_BACKBONES`; a ranker has to be trained with it.
        cross_candidate_bias: With `symmetric`, what is added to the attention scores between different candidates.
        distinct_token_weight: Weight of a length preference that is added to the logit: this times
            (n1 - n2) / (n1 + n2), where n1 and n2 count the distinct tokens of the candidates after truncation. 0
            disables it. It may be changed at any time, but `logit_temperature` was fitted with it.
        head_dropout: Dropout before both layers of the head, in training.
        source_token_id: Id of the special token in front of the prompt; None with layout "chat", as the next two.
        candidate1_token_id: Id of the special token in front of the first candidate.
        candidate2_token_id: Id of the special token in front of the second candidate.
        max_pair_length: Maximum tokens of what is read at once, special tokens included: of a prompt with a pair of
            candidates or, with separate encodings, with one.
        max_source_length: Maximum tokens of the prompt's part, special tokens included, and with layout "chat" all that
            the template writes.
        max_candidate_length: Maximum tokens of a candidate's part, special tokens included. Each candidate also gets at
            most half of what the prompt leaves of `max_pair_length`, so its budget depends on the prompt alone; with
            separate encodings, all of it.
        source_truncation_side: Which end of a long prompt is cut. "left" keeps the last turns of a conversation.
        candidate_truncation_side: Which end of a long candidate is cut.
        logit_temperature: A logit is divided by this before its sigmoid is taken as a probability: 1 as trained, or
            fitted on judged pairs to calibrate the probabilities.
        fuser: Hub id of the fuser that goes with this ranker; loading the ranker for blending loads both.
        fuser_revision: Branch, tag or commit of that fuser.
        initializer_range: Standard deviation of new weights of the head.
        **kwargs: Options of every configuration in transformers.

    Raises:
        ValueError: If a length, a side or the encoder can't work.
    """

    model_type = "pair_ranker"
    sub_configs = {"backbone_config": AutoConfig}  # noqa: RUF012 (the form that transformers expects)
    # Type of `custom_pipelines`; where the package is installed it sets its own, see `blender_hf.pipeline`.
    pipelines_type: type[dict[str, Any]] = dict

    def __init__(
        self,
        backbone_config: PretrainedConfig | dict[str, Any] | None = None,
        n_tasks: int = 1,
        candidate_encoding: str = "joint",
        shared_prompt: bool = False,
        preference_dim: int = 0,
        layout: str = "markers",
        pooling: str = "marker",
        encoder_sample: list[float] | None = None,
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
        self.candidate_encoding = candidate_encoding
        self.shared_prompt = shared_prompt
        self.preference_dim = preference_dim
        self.layout = layout
        self.pooling = pooling
        self.encoder_sample = encoder_sample
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
        # `transformers.pipeline` writes into it, so every configuration has its own.
        self.custom_pipelines = self.pipelines_type({BLENDING[0]: dict(BLENDING[1])})

    @property
    def markers(self) -> tuple[Any, Any, Any]:
        """Ids of the special tokens in front of the prompt and the two candidates."""
        return self.source_token_id, self.candidate1_token_id, self.candidate2_token_id

    @property
    def is_separate(self) -> bool:
        """Whether each candidate is read by itself, and encodings are compared."""
        return self.candidate_encoding == "separate"

    @property
    def is_chat(self) -> bool:
        """Whether rows are written by a chat template; then they have no markers, but `token_type_ids`."""
        return self.layout == "chat"

    @property
    def row_markers(self) -> tuple[Any, ...]:
        """The markers of one row that the model reads: of a prompt and two candidates, or of a prompt and one."""
        return self.markers[:2] if self.is_separate else self.markers

    def longest_row(self, lengths: Any) -> int:
        """Return the maximum tokens of a row under the lengths of a processor, or of a configuration such as this."""
        n_candidates = len(self.row_markers) - 1
        return min(lengths.max_pair_length, lengths.max_source_length + n_candidates * lengths.max_candidate_length)

    @property
    def n_positions(self) -> int | None:
        """Maximum tokens that the encoder has positions for; None if there is no limit, or it is unknown."""
        encoder = self.backbone_config
        # DeBERTa-v3 has relative positions only.
        has_table = encoder.model_type in ABSOLUTE_POSITIONS and getattr(encoder, "position_biased_input", True)
        return n_positions(encoder) if has_table else None

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: Any, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read the dictionary of a configuration, converting those of the original authors' checkpoints."""
        config, rest = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        found = format_of(config)
        if found is not None and found.settings is not None:
            config = {"model_type": cls.model_type, **found.settings(config, pretrained_model_name_or_path, kwargs)}
        return config, rest

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> "PairRankerConfig":
        """Create a configuration from its dictionary; ValueError if that belongs to another kind of model."""
        kind = config_dict.get("model_type", cls.model_type)
        if kind != cls.model_type:
            raise ValueError(
                f"this is a checkpoint of model_type {kind!r}, not a PairRanker; to train a ranker on top of such an "
                "encoder, use PairRanker.from_backbone"
            )
        return super().from_dict(config_dict, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as a dictionary, without the encoder's original location and precision."""
        output = super().to_dict()
        for name in ("_name_or_path", "dtype", "torch_dtype"):
            output["backbone_config"].pop(name, None)
        return output

    def _check(self) -> None:
        check_truncation(vars(self))
        kind = self.backbone_config.model_type
        if self.backbone_config.is_encoder_decoder and kind not in DECODING_ENCODERS:
            raise ValueError(
                f"the backbone is a {kind}, whose decoder wants a text of its own; use an encoder, such as BERT, or a "
                "decoder, such as Llama"
            )
        if getattr(self.backbone_config, "hidden_size", None) is None:
            raise ValueError(
                f"the backbone is a {kind}, whose configuration states no hidden_size: use an encoder or a decoder of "
                "texts"
            )
        if not self.logit_temperature > 0:
            raise ValueError(f"logit_temperature={self.logit_temperature}; it divides logits, so it is above 0")
        if not math.isfinite(self.distinct_token_weight):
            raise ValueError(f"distinct_token_weight={self.distinct_token_weight}; it is a number, 0 for none")
        if self.pooling not in POOLINGS:
            raise ValueError(f"pooling={self.pooling!r}; use one of {', '.join(POOLINGS)}")
        if self.pooling == "marker" and is_causal(self.backbone_config):
            raise ValueError(
                f"pooling='marker' with a {self.backbone_config.model_type}, which reads from left to right: at the "
                "marker in front of a candidate it has not read that candidate; use pooling='last' or 'mean'"
            )
        self._check_encoding()
        if self.symmetric and self.backbone_config.model_type not in SYMMETRIC_BACKBONES:
            raise ValueError(
                f"symmetric=True with an encoder of type {self.backbone_config.model_type!r}; it works with "
                f"{', '.join(SYMMETRIC_BACKBONES)}, whose positions are absolute"
            )
        if not isinstance(self.head_dropout, int | float) or not 0 <= self.head_dropout < 1:
            raise ValueError(f"head_dropout={self.head_dropout!r}; use a number from 0 up to 1 (PairRM: drop_out)")
        if self.n_tasks < 1:
            raise ValueError(f"n_tasks={self.n_tasks}; a ranker has at least one")

    def _check_encoding(self) -> None:
        if self.candidate_encoding not in CANDIDATE_ENCODINGS:
            raise ValueError(
                f"candidate_encoding={self.candidate_encoding!r}; this release knows {', '.join(CANDIDATE_ENCODINGS)}: "
                "correct the name, or upgrade blender-hf if the checkpoint is from a newer release"
            )
        if not isinstance(self.preference_dim, int) or self.preference_dim < 0 or self.preference_dim % 2:
            raise ValueError(f"preference_dim={self.preference_dim!r}; use an even number, 0 for none")
        self._check_layout()
        kind = self.backbone_config.model_type
        if self.shared_prompt and not is_causal(self.backbone_config) and kind not in SHARING_ENCODERS:
            raise ValueError(
                f"shared_prompt=True with {kind!r}, whose prompts can't be read apart; it works with "
                f"{', '.join(SHARING_ENCODERS)} and causal backbones"
            )
        foreign = OF_JOINT if self.is_separate else OF_SEPARATE
        wrong = [f"{name}={value}" for name in foreign if (value := getattr(self, name))]
        if wrong:
            other = CANDIDATE_ENCODINGS[0 if self.is_separate else 1]
            raise ValueError(f"{wrong[0]} is for candidate_encoding={other!r}, not {self.candidate_encoding!r}")

    def _check_layout(self) -> None:
        if self.layout not in LAYOUTS:
            raise ValueError(
                f"layout={self.layout!r}; this release knows {', '.join(LAYOUTS)}: correct the name, or upgrade "
                "blender-hf if the checkpoint is from a newer release"
            )
        if not self.is_chat:
            return
        if not self.is_separate:
            raise ValueError(
                "layout='chat' is for candidate_encoding='separate': a template has one place for an answer"
            )
        if not is_causal(self.backbone_config):
            raise ValueError(
                f"layout='chat' with a {self.backbone_config.model_type}, which does not read from left to right; use "
                "a chat model, such as Llama, or layout='markers'"
            )
        if stated := [name for name in TOKEN_IDS if getattr(self, name) is not None]:
            raise ValueError(
                f"{stated[0]}={getattr(self, stated[0])} with layout='chat', which has no markers: leave it out"
            )


def is_causal(config: PretrainedConfig) -> bool:
    """Return whether a token of a model attends only to those before it."""
    kind = config.model_type
    if not getattr(config, "is_causal", True) or getattr(config, "use_bidirectional_attention", False):
        return False
    by_type = kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    decodes = by_type and kind not in BOTH_WAYS and not config.is_encoder_decoder
    return decodes or getattr(config, "is_decoder", False)


def check_truncation(settings: Mapping[str, Any]) -> None:
    """Raise ValueError if a length or a side, a value for each name of `TRUNCATION`, can't work."""
    for name in LENGTHS:
        value = settings[name]
        if not isinstance(value, int):
            raise ValueError(f"{name}={value!r}; use a whole number of tokens")
        # An empty part is its special tokens alone, three at most: below this there is no room for text.
        if value < 8:
            raise ValueError(f"{name}={value} leaves no room for text; use 8 or more")
    if settings["max_pair_length"] - settings["max_source_length"] < 16:
        raise ValueError(
            f"max_source_length={settings['max_source_length']} leaves fewer than 8 tokens per candidate of "
            f"max_pair_length={settings['max_pair_length']}"
        )
    for name in SIDES:
        if settings[name] not in TRUNCATION_SIDES:
            raise ValueError(f"{name}={settings[name]!r}; use one of {', '.join(TRUNCATION_SIDES)}")


def _as_config(config: PretrainedConfig | dict[str, Any] | None) -> PretrainedConfig:
    if isinstance(config, PretrainedConfig):
        return config
    # transformers builds a configuration without arguments to find out the defaults.
    settings = {"model_type": "deberta-v2"} if config is None else dict(config)
    if "model_type" not in settings:
        raise ValueError("the configuration of the encoder states no model_type: add it to config.json")
    kind = settings.pop("model_type")
    return read_alike(AutoConfig.for_model(kind, **settings), settings)


@dataclass(frozen=True)
class CheckpointFormat:
    """A format of ranker checkpoints; `config` is always the dictionary of its config.json."""

    name: str  # what its authors call it
    matches: Callable[[Mapping[str, Any]], bool]  # whether a configuration is in this format
    # maps (config, Hub id or folder, loading options) to the settings of a `PairRankerConfig`; None if they are the
    # configuration itself
    settings: Callable[[dict[str, Any], Any, dict[str, Any]], dict[str, Any]] | None = None
    # maps the same to the tokenizer and the truncation settings of a checkpoint that has no files of a processor;
    # None if it always has them
    processor: Callable[[dict[str, Any], Any, dict[str, Any]], tuple[Any, dict[str, Any]]] | None = None


def format_of(config: Mapping[str, Any]) -> CheckpointFormat | None:
    """Return the format of a ranker checkpoint, or None if the configuration is not that of a pairwise ranker.

    Raises:
        ValueError: If it is an old `RankerConfig` of a ranker that does not compare pairs.
    """
    return next((known for known in FORMATS if known.matches(config)), None)


# How the names of the original weights begin, and ours.
WEIGHT_PREFIXES = {"pretrained_model.": "backbone.", "head_layer.1.": "head.dense.", "head_layer.4.": "head.out_proj."}
# The same as transformers expects it: regular expressions.
WEIGHT_NAMES = {f"^{re.escape(theirs)}": ours for theirs, ours in WEIGHT_PREFIXES.items()}
# Settings of the original configurations, and ours.
RENAMED_SETTINGS = {
    "n_tasks": "n_tasks",
    "drop_out": "head_dropout",
    "source_prefix_id": "source_token_id",
    "cand1_prefix_id": "candidate1_token_id",
    "cand2_prefix_id": "candidate2_token_id",
}
NOT_OF_THE_ENCODER = {
    *RENAMED_SETTINGS,
    *("cand_prefix_id", "architectures", "dtype", "torch_dtype", "transformers_version"),
}
ENCODER_OPTIONS = ("cache_dir", "force_download", "local_files_only", "token")
# Checkpoints in the format of PairRM-hf that were trained with other lengths. Only their cards state them, so the name
# of the repository is all there is to go by.
BETTER_PAIRRM = {
    "max_pair_length": 2030 + 2 * 670,
    "max_source_length": 2030,
    # As on the card, what a short prompt leaves is the candidates'.
    "max_candidate_length": (2030 + 2 * 670) // 2,
    "source_truncation_side": "left",
}
# The second is the name that its card and many scripts use.
LENGTHS_OF_CARDS = {"mightbe/Better-PairRM": BETTER_PAIRRM, "maywell/Better-PairRM": BETTER_PAIRRM}


def _is_pairrm(config: Mapping[str, Any]) -> bool:
    return {"source_prefix_id", "cand1_prefix_id", "cand2_prefix_id"} <= config.keys()


def _pairrm_settings(config: dict[str, Any], where: Any, hub: dict[str, Any]) -> dict[str, Any]:
    encoder = {name: value for name, value in config.items() if name not in NOT_OF_THE_ENCODER}
    return {"backbone_config": encoder, **_renamed(config), **_lengths_of_card(where)}


def _pairrm_processor(config: dict[str, Any], where: Any, hub: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    tokenizer = load_tokenizer(where, **hub)
    return tokenizer, {"source_truncation_side": tokenizer.truncation_side, **_lengths_of_card(where)}


def _lengths_of_card(where: Any) -> dict[str, Any]:
    """Return the truncation settings that only the card of a repository states, unless they are our defaults.

    The repository may be given as a Hub id, a folder that ends with that id, or a snapshot in the Hub's cache.
    """
    parts = Path(str(where)).parts
    for repository, lengths in LENGTHS_OF_CARDS.items():
        if parts[-2:] == tuple(repository.split("/")) or f"models--{repository.replace('/', '--')}" in parts:
            return dict(lengths)
    return {}


def _is_ranker_config(config: Mapping[str, Any]) -> bool:
    if not {"ranker_type", "model_name", "source_maxlength", "candidate_maxlength"} <= config.keys():
        return False
    if config["ranker_type"] != "pairranker":
        raise ValueError(f"this is a ranker of type {config['ranker_type']!r}; only 'pairranker' compares pairs")
    return True


def _ranker_config_settings(config: dict[str, Any], where: Any, hub: dict[str, Any]) -> dict[str, Any]:
    tokenizer, lengths = _ranker_config_processor(config, where, hub)
    encoder = load_config(config["model_name"], **_encoder_options(hub)).to_dict()
    ids = dict(zip(TOKEN_IDS, tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS[:3])), strict=True))
    # The authors resized the embeddings to the length of the tokenizer.
    return {"backbone_config": {**encoder, "vocab_size": len(tokenizer)}, **_renamed(config), **ids, **lengths}


def _ranker_config_processor(config: dict[str, Any], where: Any, hub: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the encoder's tokenizer with the authors' tokens, and lengths for a prompt and two candidates."""
    tokenizer = load_tokenizer(config["model_name"], **_encoder_options(hub))
    add_special_tokens(tokenizer)
    source, candidate = config["source_maxlength"], config["candidate_maxlength"]
    total = source + 2 * candidate
    lengths = {"max_pair_length": total, "max_source_length": source, "max_candidate_length": total // 2}
    return tokenizer, lengths


def add_special_tokens(tokenizer: Any) -> None:
    """Add the special tokens of a ranker that a tokenizer lacks."""
    known = tokenizer.get_vocab()
    tokenizer.add_tokens([token for token in SPECIAL_TOKENS if token not in known], special_tokens=True)


def _encoder_options(hub: dict[str, Any]) -> dict[str, Any]:
    """Keep the loading options of a ranker that also hold for the repository of its encoder."""
    return {name: hub[name] for name in ENCODER_OPTIONS if name in hub}


def _renamed(config: dict[str, Any]) -> dict[str, Any]:
    return {ours: config[theirs] for theirs, ours in RENAMED_SETTINGS.items() if theirs in config}


def _is_ours(config: Mapping[str, Any]) -> bool:
    return config.get("model_type", PairRankerConfig.model_type) == PairRankerConfig.model_type


FORMATS = (
    CheckpointFormat("PairRM-hf", _is_pairrm, _pairrm_settings, _pairrm_processor),
    CheckpointFormat("RankerConfig", _is_ranker_config, _ranker_config_settings, _ranker_config_processor),
    CheckpointFormat("PairRanker", _is_ours),
)
