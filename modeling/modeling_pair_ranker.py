"""PairRanker: reads a prompt and two candidates together and says which candidate is better.

Section 3 of LLM-Blender (Jiang, Ren, Lin, ACL 2023, arXiv 2306.02561); the head and the input layout are those of the
PairRM-hf card.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional
from transformers import AutoModel, PreTrainedModel
from transformers.utils import ModelOutput

from .configuration_pair_ranker import PairRankerConfig
from .deberta_states import can_read_places, reads_places, states_at
from .distinct_tokens import lead_in_distinct_tokens
from .fast_deberta import use_fast_attention
from .fast_products import use_fast_products
from .loading import StrictLoadingMixin
from .original_formats import WEIGHT_NAMES
from .publishing import PublishingMixin
from .symmetry import encode_symmetrically, spans_of

if TYPE_CHECKING:
    # The pipeline that `config.custom_pipelines` names. transformers lets a file travel that is imported here, and what
    # it imports; from a local folder, transformers 4 takes only what this very file names, so all are named.
    from .chat import render_prompt  # noqa: F401
    from .configuration_gen_fuser import GenFuserConfig  # noqa: F401
    from .flash_deberta import lengths_of  # noqa: F401
    from .generation_gen_fuser import PassageLogitsProcessor  # noqa: F401
    from .modeling_gen_fuser import GenFuser  # noqa: F401
    from .padding import pad_right  # noqa: F401
    from .passages import Passage  # noqa: F401
    from .pipeline_llm_blending import LlmBlendingPipeline  # noqa: F401
    from .plain_text import PlainTextEncoder  # noqa: F401
    from .processing_gen_fuser import GenFuserProcessor  # noqa: F401


@dataclass
class PairRankerOutput(ModelOutput):
    """What a PairRanker says of one presentation of each pair.

    Args:
        loss: Scalar, when labels were given.
        logits: (batch,). Positive: the candidate that is read first is the better one. The mean over the tasks.
        task_logits: (batch, n_tasks). The same for each quality function.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    task_logits: torch.FloatTensor | None = None


class PairRankerHead(nn.Module):
    """Scores a candidate from its representation and the prompt's: two layers with a tanh between them."""

    def __init__(self, config: PairRankerConfig) -> None:
        super().__init__()
        hidden = config.backbone_config.hidden_size
        self.dropout = nn.Dropout(config.head_dropout)
        self.dense = nn.Linear(2 * hidden, hidden)
        self.out_proj = nn.Linear(hidden, config.n_tasks)

    def forward(self, source: torch.Tensor, candidate: torch.Tensor) -> torch.Tensor:
        """Map two (batch, hidden) representations to (batch, n_tasks) scores."""
        features = self.dropout(torch.cat([source, candidate], dim=-1))
        return self.out_proj(self.dropout(torch.tanh(self.dense(features))))


class PairRanker(StrictLoadingMixin, PublishingMixin, PreTrainedModel):
    """A cross-encoder over (prompt, candidate, candidate) on top of any encoder.

    The representation of a part is the last hidden state at the special token in front of it, as in PairRM, or the mean
    over the part (`config.pooling`). `forward` scores one order of presentation; average both orders,
    (l(a, b) - l(b, a)) / 2, for a logit that does not depend on it.
    """

    config_class = PairRankerConfig
    # None: with one, transformers 4 takes a checkpoint whose weights have other names for that of the encoder alone.
    base_model_prefix = ""
    supports_gradient_checkpointing = True
    # A buffer that old releases of transformers saved with the weights, and what this model leaves out on purpose.
    _keys_to_ignore_on_load_unexpected = [r"embeddings\.position_ids$", r"^backbone\.pooler\."]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flash_attn_2 = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: PairRankerConfig) -> None:
        super().__init__(config)
        # In the precision of the whole, whatever the encoder was once saved in.
        self.backbone = AutoModel.from_config(config.backbone_config, dtype=torch.get_default_dtype())
        if config.backbone_config.model_type == "deberta-v2":
            use_fast_attention(self.backbone)
        if getattr(self.backbone, "pooler", None) is not None:
            self.backbone.pooler = None  # reads the first token, which is not where our parts begin
        self.head = PairRankerHead(config)
        use_fast_products(self)
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
        """Load our checkpoints, and `llm-blender/PairRM-hf` as it is; see `StrictLoadingMixin.from_pretrained`."""
        loaded = super().from_pretrained(pretrained_model_name_or_path, *model_args, key_mapping=WEIGHT_NAMES, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        # transformers 5 would undo the renaming when the model is saved; what we save is in our format.
        model._weight_conversions = None
        return loaded

    @classmethod
    def from_backbone(
        cls,
        backbone: str,
        *,
        n_added_tokens: int = 0,
        n_positions: int = 0,
        backbone_options: dict[str, Any] | None = None,
        **config: Any,
    ) -> "PairRanker":
        """Make an untrained ranker whose encoder is pretrained and whose head is new, for training.

        Args:
            backbone: Hub id or folder of an encoder.
            n_added_tokens: By how many tokens the vocabulary grows for the special tokens of the processor.
            n_positions: How many positions the encoder must reach: a shorter table of absolute positions is repeated.
            backbone_options: Options of the encoder's configuration, such as its dropout.
            **config: Options of `PairRankerConfig`.

        Returns:
            The ranker in training mode.
        """
        encoder = AutoModel.from_pretrained(backbone, **(backbone_options or {}))
        if n_added_tokens:
            encoder.resize_token_embeddings(encoder.config.vocab_size + n_added_tokens)
        if getattr(encoder, "pooler", None) is not None:
            encoder.pooler = None
        weights = _repeat_positions(encoder, n_positions)
        ranker = cls(PairRankerConfig(backbone_config=encoder.config, **config))
        ranker.backbone.load_state_dict(weights)
        return ranker.train()

    @property
    def skips_padding(self) -> bool:
        """Whether padding costs nothing, so that sequences of any length go well together."""
        return self.device.type == "cpu" and self.config.pooling == "marker" and can_read_places(self.backbone)

    def get_input_embeddings(self) -> nn.Module:
        """Return the encoder's embeddings of tokens."""
        return self.backbone.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the encoder's embeddings of tokens."""
        self.backbone.set_input_embeddings(value)

    def forward(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.LongTensor | None = None,
        labels: torch.Tensor | None = None,
        return_dict: bool | None = None,
    ) -> PairRankerOutput | tuple[torch.Tensor, ...]:
        """Score one order of presentation of each pair.

        Args:
            input_ids: (batch, length). Pairs as `PairRankerProcessor` lays them out.
            attention_mask: (batch, length). 1 for tokens, 0 for padding.
            token_type_ids: (batch, length). For backbones that have segments.
            labels: (batch,) or (batch, n_tasks), each in [0, 1]: the probability that the candidate that is read
                **first** is the better one. 1: the first is better, 0: the second is, 0.5: a tie; soft labels between.
            return_dict: Whether to return a `PairRankerOutput` (default) or a tuple.

        Returns:
            Logits, and with labels the multi-task binary cross-entropy of the paper (section 3.3), the mean over the
            batch and the tasks of -[y log sigmoid(l) + (1 - y) log sigmoid(-l)].
        """
        source, first, second = self._parts(input_ids, attention_mask, token_type_ids)  # (batch, hidden) each
        task_logits = self.head(source, first) - self.head(source, second)  # (batch, n_tasks)
        if self.config.distinct_token_weight:
            lead = lead_in_distinct_tokens(input_ids, _real(input_ids, attention_mask), self.config.markers)  # (batch,)
            task_logits = task_logits + (self.config.distinct_token_weight * lead[:, None]).to(task_logits.dtype)
        logits = task_logits.mean(dim=-1)  # (batch,)
        loss = None if labels is None else self._loss(task_logits, labels)
        output = PairRankerOutput(loss=loss, logits=logits, task_logits=task_logits)
        return output.to_tuple() if return_dict is False else output

    def _hidden(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, token_type_ids: torch.Tensor | None
    ) -> torch.Tensor:
        config = self.config
        if config.symmetric:
            real = _real(input_ids, attention_mask)
            return encode_symmetrically(self.backbone, input_ids, real, config.markers, config.cross_candidate_bias)
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        given = {name: value for name, value in inputs.items() if value is not None}
        return self.backbone(**given, return_dict=True).last_hidden_state

    def _parts(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, token_type_ids: torch.Tensor | None
    ) -> list[torch.Tensor]:
        """Return what represents the prompt and the two candidates, without a branch on the data."""
        real = _real(input_ids, attention_mask)
        starts = torch.stack([(input_ids == marker).int().argmax(dim=1) for marker in self.config.markers], dim=1)
        if self.config.pooling == "marker" and reads_places(self.backbone):
            return list(states_at(self.backbone, starts, input_ids, real.long(), token_type_ids).unbind(1))
        hidden = self._hidden(input_ids, attention_mask, token_type_ids)  # (batch, length, hidden)
        if self.config.pooling == "marker":
            return list(hidden.gather(1, starts[:, :, None].expand(-1, -1, hidden.shape[-1])).unbind(1))
        if self.config.symmetric:
            spans = spans_of(input_ids, real, self.config.markers)
        else:
            places = torch.arange(input_ids.shape[1], device=input_ids.device)[None, :]  # (1, length)
            begun = [(places >= start[:, None]) & real for start in starts.unbind(1)]  # (batch, length) each
            spans = [begun[0] & ~begun[1], begun[1] & ~begun[2], begun[2]]
        return [_mean_over(hidden, span.to(hidden.dtype)) for span in spans]

    @staticmethod
    def _loss(task_logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        targets = labels.to(task_logits.dtype)
        targets = targets if targets.dim() == 2 else targets[:, None]
        return functional.binary_cross_entropy_with_logits(task_logits, targets.expand_as(task_logits))


def _real(input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """Return which tokens are no padding, (batch, length), boolean."""
    return torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()


def _mean_over(hidden: torch.Tensor, span: torch.Tensor) -> torch.Tensor:
    """Return the (batch, hidden) mean of the states (batch, length, hidden) where a span (batch, length) is 1."""
    return (hidden * span[:, :, None]).sum(dim=1) / span.sum(dim=1, keepdim=True)


def _repeat_positions(encoder: PreTrainedModel, n_positions: int) -> dict[str, torch.Tensor]:
    """Return the weights of an encoder whose table of absolute positions is repeated until it reaches far enough.

    Near positions keep their relation, which is most of what a table knows; training mends the seams.
    """
    weights = encoder.state_dict()
    table = getattr(getattr(encoder, "embeddings", None), "position_embeddings", None)
    if isinstance(table, nn.Embedding) and table.num_embeddings < n_positions:
        unused = 0 if table.padding_idx is None else table.padding_idx + 1  # RoBERTa counts from behind its padding
        rows = table.weight[unused:]
        repeated = rows.repeat(-(-n_positions // len(rows)), 1)[:n_positions]
        weights["embeddings.position_embeddings.weight"] = torch.cat([table.weight[:unused], repeated])
        encoder.config.max_position_embeddings = unused + n_positions
    return weights
