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
from transformers.utils.generic import ModelOutput

from .configuration_pair_ranker import WEIGHT_NAMES, PairRankerConfig
from .configurations import load_config, use_exact_attention
from .fast_deberta import states_at, supports_states_at, use_fast_attention, uses_states_at
from .fast_kernels import use_fast_products
from .hub_mixins import PublishingMixin, StrictLoadingMixin
from .tokenizer_files import file_options

if TYPE_CHECKING:
    # The pipeline that `config.custom_pipelines` names, and all that it imports. transformers saves the files that are
    # imported here beside the weights; from a local folder, transformers 4 loads only those that this very file names.
    from .configuration_gen_fuser import GenFuserConfig  # noqa: F401
    from .conversations import render_prompt  # noqa: F401
    from .modeling_gen_fuser import GenFuser  # noqa: F401
    from .pipeline_llm_blending import LlmBlendingPipeline  # noqa: F401
    from .processing_gen_fuser import GenFuserProcessor  # noqa: F401
    from .processing_pair_ranker import PairRankerProcessor  # noqa: F401
    from .ranking_math import order_of  # noqa: F401
    from .record_fields import read_fields  # noqa: F401
    from .record_values import as_turns  # noqa: F401
    from .segmentation import split_segments  # noqa: F401
    from .tokenization import PlainTextEncoder  # noqa: F401


@dataclass
class PairRankerOutput(ModelOutput):
    """The scores of one presentation order of each pair."""

    loss: torch.Tensor | None = None  # scalar, when labels were given
    logits: torch.Tensor | None = None  # (batch,). Positive if the first candidate is better. The mean over the tasks.
    task_logits: torch.Tensor | None = None  # (batch, n_tasks). The same for each quality function.


class PairRankerHead(nn.Module):
    """Scores a candidate from its representation and the prompt's: two linear layers with a tanh in between."""

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


class PairRanker(StrictLoadingMixin, PublishingMixin, PreTrainedModel):  # type: ignore[misc] # it takes more options
    """A cross-encoder over (prompt, candidate, candidate) on top of any encoder.

    The representation of a part is the last hidden state at the special token in front of it, as in PairRM, or the mean
    over the part (`config.pooling`). `forward` scores one presentation order; average both, (l(a, b) - l(b, a)) / 2,
    for a logit without position bias.
    """

    config: PairRankerConfig
    config_class = PairRankerConfig
    # Empty: with one, transformers 4 takes a checkpoint whose weights have other names for the encoder's alone.
    base_model_prefix = ""
    supports_gradient_checkpointing = True
    # A buffer that old releases of transformers saved, and the pooler, which this model does not have.
    _keys_to_ignore_on_load_unexpected = [r"embeddings\.position_ids$", r"^backbone\.pooler\."]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flash_attn_2 = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: PairRankerConfig) -> None:
        super().__init__(config)
        # In the model's precision, whatever the encoder was once saved in.
        self.backbone = AutoModel.from_config(config.backbone_config, dtype=torch.get_default_dtype())
        use_exact_attention(self.backbone)
        if config.backbone_config.model_type == "deberta-v2":
            use_fast_attention(self.backbone)
        if getattr(self.backbone, "pooler", None) is not None:
            self.backbone.pooler = None  # it reads the first token, where none of our parts begins
        self.head = PairRankerHead(config)
        use_fast_products(self)
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
        """Load our checkpoints, and `llm-blender/PairRM-hf` as it is; see `StrictLoadingMixin.from_pretrained`."""
        loaded = super().from_pretrained(pretrained_model_name_or_path, *model_args, key_mapping=WEIGHT_NAMES, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        # transformers 5 would undo the renaming when the model is saved, but we save in our format.
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
        """Create a ranker with a pretrained encoder and a new head, for training.

        Args:
            backbone: Hub id or folder of an encoder.
            n_added_tokens: By how many tokens the vocabulary grows for the special tokens of the processor.
            n_positions: How many positions the encoder needs: a shorter table of absolute positions is repeated.
            backbone_options: Options of the encoder's configuration, such as its dropout.
            **config: Options of `PairRankerConfig`.

        Returns:
            The ranker in training mode.
        """
        options = dict(backbone_options or {})
        running: dict[str, Any] = {
            name: options.pop(name) for name in ("attn_implementation", "dtype") if name in options
        }
        loading: dict[str, Any] = {**file_options(options), **running}
        encoder = AutoModel.from_pretrained(backbone, config=load_config(backbone, **options), **loading)
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
        """Whether padding costs nothing, so that batches may mix sequences of any length."""
        return self.device.type == "cpu" and self.config.pooling == "marker" and supports_states_at(self.backbone)

    def get_input_embeddings(self) -> nn.Module:
        """Return the encoder's token embeddings."""
        return self.backbone.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the encoder's token embeddings."""
        self.backbone.set_input_embeddings(value)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        return_dict: bool | None = None,
    ) -> PairRankerOutput | tuple[torch.Tensor, ...]:
        """Score one presentation order of each pair.

        Args:
            input_ids: (batch, length). Pairs as `PairRankerProcessor` encodes them.
            attention_mask: (batch, length). 1 for tokens, 0 for padding.
            token_type_ids: (batch, length). For backbones with segment embeddings.
            labels: (batch,) or (batch, n_tasks), each in [0, 1]: the probability that the **first** candidate is
                better. 1: the first is better, 0: the second is, 0.5: a tie; soft labels in between.
            return_dict: Whether to return a `PairRankerOutput` (default) or a tuple.

        Returns:
            Logits, and with labels the multi-task binary cross-entropy of the paper (section 3.3), the mean over
            batch and tasks of -[y log sigmoid(l) + (1 - y) log sigmoid(-l)].
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
        """Return the representations of the prompt and the two candidates, without a branch on the data."""
        real = _real(input_ids, attention_mask)
        starts = torch.stack([(input_ids == marker).int().argmax(dim=1) for marker in self.config.markers], dim=1)
        if self.config.pooling == "marker" and uses_states_at(self.backbone):
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
    """Return which tokens are not padding, (batch, length), boolean."""
    return torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()


def _mean_over(hidden: torch.Tensor, span: torch.Tensor) -> torch.Tensor:
    """Return the (batch, hidden) mean of the states (batch, length, hidden) where a span (batch, length) is 1."""
    return (hidden * span[:, :, None]).sum(dim=1) / span.sum(dim=1, keepdim=True)


def _repeat_positions(encoder: PreTrainedModel, n_positions: int) -> dict[str, torch.Tensor]:
    """Return an encoder's weights, its table of absolute positions repeated up to a number of positions.

    Near positions keep their relation, which is most of what a table encodes; training repairs the seams.
    """
    weights = encoder.state_dict()
    table = getattr(getattr(encoder, "embeddings", None), "position_embeddings", None)
    if isinstance(table, nn.Embedding) and table.num_embeddings < n_positions:
        unused = 0 if table.padding_idx is None else table.padding_idx + 1  # RoBERTa's begin after it
        rows = table.weight[unused:]
        repeated = rows.repeat(-(-n_positions // len(rows)), 1)[:n_positions]
        weights["embeddings.position_embeddings.weight"] = torch.cat([table.weight[:unused], repeated])
        encoder.config.max_position_embeddings = unused + n_positions
    return weights


def encode_symmetrically(
    backbone: Any, input_ids: torch.Tensor, real: torch.Tensor, markers: tuple[int, int, int], bias: float
) -> torch.Tensor:
    """Run an encoder without position bias, so that swapping the candidates swaps their representations.

    An encoder tells the first candidate from the second by positions and markers. Here both candidates have the same
    of either, and a token attends to the other candidate with a fixed bias. So the logits of both presentation orders
    are each other's negative, up to rounding, and one order is enough: half the work.

    The pairs, `input_ids`, are padded on the right; `real` is False for padding. Both are (batch, length), the last
    hidden states that are returned (batch, length, hidden).
    """
    chosen = getattr(backbone.config, "_attn_implementation", None)
    if chosen not in (None, "eager", "sdpa"):  # flex_attention would end the process
        raise ValueError(
            f"a symmetric ranker adds a bias to its attention, which attn_implementation={chosen!r} can't; use 'sdpa'"
        )
    part, shift = _parts_of(input_ids, markers)
    # The first position that a token may have: RoBERTa's begin after the padding id.
    padding_index = backbone.embeddings.position_embeddings.padding_idx
    offset = 0 if padding_index is None else padding_index + 1
    places = torch.arange(input_ids.shape[1], device=input_ids.device)[None, :]  # (1, length)
    hidden = backbone.embeddings(
        input_ids=torch.where(input_ids == markers[2], markers[1], input_ids),
        position_ids=places - (part == 2) * shift + offset,
    )
    across = part[:, :, None] * part[:, None, :] == 2  # (batch, length, length): of different candidates
    mask = torch.where(across, bias, 0.0).to(hidden.dtype)
    mask = mask.masked_fill(~real[:, None, :], torch.finfo(hidden.dtype).min)
    return backbone.encoder(hidden, attention_mask=mask[:, None]).last_hidden_state


def spans_of(input_ids: torch.Tensor, real: torch.Tensor, markers: tuple[int, int, int]) -> list[torch.Tensor]:
    """Return masks of the prompt and of each candidate, (batch, length) each.

    A part begins at its marker, without what the tokenizer puts before it.
    """
    part, _ = _parts_of(input_ids, markers)
    starts = _starts(input_ids, markers)
    places = torch.arange(input_ids.shape[1], device=input_ids.device)[None, :]
    return [(part == k) & (places >= starts[k]) & real for k in range(3)]


def _parts_of(input_ids: torch.Tensor, markers: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the part of each token (0 the prompt, 1 and 2 the candidates), and the candidates' distance.

    A tokenizer that puts [CLS] before a text does so before each part, the prompt included; so the index of the first
    marker is the number of such tokens.
    """
    prefix, first, second = _starts(input_ids, markers)  # (batch, 1) each
    places = torch.arange(input_ids.shape[1], device=input_ids.device)[None, :]
    part = (places >= first - prefix).int() + (places >= second - prefix).int()  # (batch, length)
    return part, second - first


def _starts(input_ids: torch.Tensor, markers: tuple[int, int, int]) -> list[torch.Tensor]:
    return [(input_ids == marker).int().argmax(dim=1, keepdim=True) for marker in markers]


def lead_in_distinct_tokens(input_ids: torch.Tensor, real: torch.Tensor, markers: tuple[int, int, int]) -> torch.Tensor:
    """Return the first candidate's relative lead in distinct tokens, (n1 - n2) / (n1 + n2).

    Judges, people and models alike, prefer answers that say more. A ranker that pools by the mean hardly sees length,
    and one that was trained to ignore padding and loops has unlearned this preference. Distinct tokens grow when a
    candidate says more, not when it repeats itself. Swapping the candidates negates the result exactly.

    Of pairs (batch, length), `real` where they are not padding, the lead is (batch,), float32, in (-1, 1).
    """
    _, *candidates = spans_of(input_ids, real, markers)
    counts = [_count_distinct(input_ids, span).float() for span in candidates]
    return (counts[0] - counts[1]) / (counts[0] + counts[1])


def _count_distinct(input_ids: torch.Tensor, span: torch.Tensor) -> torch.Tensor:
    """Count the distinct ids in each row of a span, (batch,).

    Once sorted, each new id is a step up; there is always something outside the span, which sorts below all ids.
    """
    ordered = torch.where(span, input_ids, -1).sort(dim=1).values
    return (ordered[:, 1:] != ordered[:, :-1]).sum(dim=1)
