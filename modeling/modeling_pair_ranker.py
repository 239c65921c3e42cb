"""PairRanker: says which of two candidates for a prompt is better. It reads them together, or each by itself.

Section 3 of LLM-Blender (Jiang, Ren, Lin, ACL 2023, arXiv 2306.02561); the head and the input layout are those of the
PairRM-hf card.
"""

import os
from collections.abc import Sequence
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
from .fast_kernels import FastLinear, is_traced, use_fast_products
from .hub_mixins import PublishingMixin, StrictLoadingMixin
from .packed_rows import read_packs
from .ranking_math import compare_encodings
from .separate_encoding import (
    PromptStates,
    groups_by_length,
    is_sampled_from,
    part_of,
    read_candidates,
    read_prompts,
    read_rows,
    require_masks,
    sample_of,
    shares_prompts,
    start_of,
)
from .tokenizer_files import file_options

if TYPE_CHECKING:
    # The pipeline that `config.custom_pipelines` names, and all that it imports. transformers saves the files that are
    # imported here beside the weights; from a local folder, transformers 4 loads only those that this very file names.
    from .chat_templates import PromptEncoder  # noqa: F401
    from .configuration_gen_fuser import GenFuserConfig  # noqa: F401
    from .conversations import render_prompt  # noqa: F401
    from .fusion_encoding import FusionProcessor  # noqa: F401
    from .fusion_generation import ExtractiveGenerationMixin  # noqa: F401
    from .modeling_causal_gen_fuser import CausalGenFuser  # noqa: F401
    from .modeling_gen_fuser import GenFuser  # noqa: F401
    from .pipeline_llm_blending import LlmBlendingPipeline  # noqa: F401
    from .processing_causal_gen_fuser import CausalGenFuserProcessor  # noqa: F401
    from .processing_gen_fuser import GenFuserProcessor  # noqa: F401
    from .processing_pair_ranker import PairRankerProcessor  # noqa: F401
    from .record_fields import read_fields  # noqa: F401
    from .record_values import as_turns  # noqa: F401
    from .row_layouts import ChatLayout  # noqa: F401
    from .segmentation import split_segments  # noqa: F401
    from .tokenization import PlainTextEncoder  # noqa: F401


@dataclass
class PairRankerOutput(ModelOutput):
    """The logits of pairs, in one order of presentation, or the encodings that they are computed from."""

    loss: torch.Tensor | None = None  # scalar, when labels were given
    logits: torch.Tensor | None = None  # (batch,). Positive if the first candidate is better. The mean over the tasks.
    task_logits: torch.Tensor | None = None  # (batch, n_tasks). The same for each quality function.
    # (candidates, n_tasks, 1 + preference_dim). Of a ranker with separate encodings, for `compare_encodings`.
    encodings: torch.Tensor | None = None


class PairRankerHead(nn.Module):
    """Scores a candidate from its representation and the prompt's: two linear layers with a tanh in between.

    A third layer gives it a preference embedding, where `config.preference_dim` is not 0.
    """

    def __init__(self, config: PairRankerConfig) -> None:
        super().__init__()
        hidden = config.backbone_config.hidden_size
        self.dropout = nn.Dropout(config.head_dropout)
        self.dense = nn.Linear(2 * hidden, hidden)
        self.out_proj = nn.Linear(hidden, config.n_tasks)
        n_coordinates = config.n_tasks * config.preference_dim
        self.preference = nn.Linear(hidden, n_coordinates) if n_coordinates else None

    def forward(self, source: torch.Tensor, candidate: torch.Tensor) -> torch.Tensor:
        """Map two (batch, hidden) representations to (batch, n_tasks) scores."""
        features = self.dropout(torch.cat([source, candidate], dim=-1))
        return self.out_proj(self.dropout(torch.tanh(self.dense(features))))

    def encode(self, source: torch.Tensor, candidate: torch.Tensor) -> torch.Tensor:
        """Map the same to encodings, (batch, n_tasks, 1 + preference_dim): a score, then the preference embedding.

        In float32 whatever the precision: encodings are compared with any others, and small differences count.
        """
        features = self.dropout(torch.cat([source, candidate], dim=-1).float())
        features = self.dropout(torch.tanh(_in_float32(self.dense, features)))
        scores = _in_float32(self.out_proj, features)[..., None]
        if self.preference is None:
            return scores
        coordinates = _in_float32(self.preference, features).unflatten(-1, (scores.shape[-2], -1))
        return torch.cat([scores, coordinates], dim=-1)


class PairRanker(StrictLoadingMixin, PublishingMixin, PreTrainedModel):  # type: ignore[misc] # it takes more options
    """A cross-encoder over (prompt, candidate, candidate), or over (prompt, candidate), on top of any encoder.

    The representation of a part is the last hidden state at the special token in front of it, as in PairRM, or another
    of `config.pooling`. `forward` scores one presentation order of pairs that are read together; average both,
    (l(a, b) - l(b, a)) / 2, for a logit without position bias.

    With `config.candidate_encoding="separate"` it reads each candidate once, and `forward` gives encodings;
    `compare_encodings` of any two is the logit of the pair. Where the prompt does not read the candidates
    (`shares_prompts`), `read_prompts` and `encode_after` read it once for all of them.
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
        """Load our checkpoints, and `llm-blender/PairRM-hf` as it is; see `StrictLoadingMixin.from_pretrained`.

        Raises:
            OSError: If the encoder is another revision than the one that the head was saved with.
        """
        loaded = super().from_pretrained(pretrained_model_name_or_path, *model_args, key_mapping=WEIGHT_NAMES, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        # transformers 5 would undo the renaming when the model is saved, but we save in our format.
        model._weight_conversions = None
        stated = model.config.encoder_sample
        # Weights that are given are not those of the checkpoint.
        if stated is not None and kwargs.get("state_dict") is None and not is_sampled_from(stated, model.backbone):
            raise OSError(
                f"{pretrained_model_name_or_path!s} has another revision of the encoder than the one that its head was "
                "saved with (config.json states a sample of that one's weights, encoder_sample): take the encoder, the "
                "head and config.json from one checkpoint"
            )
        return loaded

    def save_pretrained(
        self,
        save_directory: Any,
        is_main_process: bool = True,
        state_dict: dict[str, torch.Tensor] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Save the ranker, see `PublishingMixin.save_pretrained`; its configuration states a sample of the encoder.

        Args:
            save_directory: The folder.
            is_main_process: Whether this is the process that writes.
            state_dict: The weights to save, where they are not the model's own or not all here; None takes its own.
            *args: Passed on to transformers.
            **kwargs: The options of `PublishingMixin.save_pretrained`.
        """
        if self.config.is_separate:
            weights = self.named_parameters() if state_dict is None else state_dict.items()
            encoder = ((name, weight) for name, weight in weights if name.startswith("backbone."))
            self.config.encoder_sample = sample_of(encoder) or None
        return super().save_pretrained(save_directory, is_main_process, state_dict, *args, **kwargs)

    @classmethod
    def from_backbone(
        cls,
        backbone: str | os.PathLike[str] | PreTrainedModel,
        *,
        n_added_tokens: int = 0,
        n_positions: int = 0,
        backbone_options: dict[str, Any] | None = None,
        **config: Any,
    ) -> "PairRanker":
        """Create a ranker with a pretrained encoder and a new head, for training.

        Args:
            backbone: Hub id or folder of an encoder; or the encoder, whose weights are copied.
            n_added_tokens: By how many tokens the vocabulary grows for the special tokens of the processor.
            n_positions: How many positions the encoder needs: a shorter table of absolute positions is repeated.
            backbone_options: Options of the encoder's configuration, such as its dropout, where it is loaded here.
            **config: Options of `PairRankerConfig`.

        Returns:
            The ranker in training mode.
        """
        options = dict(backbone_options or {})
        running: dict[str, Any] = {
            name: options.pop(name) for name in ("attn_implementation", "dtype") if name in options
        }
        loading: dict[str, Any] = {**file_options(options), **running}
        encoder: Any = backbone
        if not isinstance(backbone, PreTrainedModel):
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

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """Resize the token embeddings, as in transformers; the encoder's configuration states their number."""
        table = super().resize_token_embeddings(*args, **kwargs)
        self.config.backbone_config.vocab_size = self.backbone.config.vocab_size = table.num_embeddings
        return table

    @property
    def shares_prompts(self) -> bool:
        """Whether `read_prompts` and `encode_after` give the encodings of whole rows, for less work."""
        return self.config.is_separate and shares_prompts(self.backbone, self.config)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        return_dict: bool | None = None,
        pairs: torch.Tensor | None = None,
        prompt_ids: torch.Tensor | None = None,
        prompt_mask: torch.Tensor | None = None,
        prompt_index: torch.Tensor | None = None,
        segments: torch.Tensor | None = None,
    ) -> PairRankerOutput | tuple[torch.Tensor, ...]:
        """Score one presentation order of each pair, or encode each candidate.

        Args:
            input_ids: (batch, length). Rows as `PairRankerProcessor` encodes them: each a pair or, with separate
                encodings, a candidate.
            attention_mask: (batch, length). 1 for tokens, 0 for padding.
            token_type_ids: (batch, length). For backbones with segment embeddings; with layout "chat", 0 for the tokens
                of the prompt and 1 for those of the candidate.
            labels: (pairs,) or (pairs, n_tasks), each in [0, 1]: the probability that the **first** candidate is
                better. 1: the first is better, 0: the second is, 0.5: a tie; soft labels in between.
            return_dict: Whether to return a `PairRankerOutput` (default) or a tuple.
            pairs: (pairs, 2). With separate encodings, the rows of the candidates to compare; None only encodes.
            prompt_ids: (prompts, length). Prompts that are read once for all of their candidates, where
                `shares_prompts`: the rows of `input_ids` are the candidates' parts then, as of `encode_after`.
            prompt_mask: (prompts, length). 1 for their tokens, 0 for padding.
            prompt_index: (candidates,). Which of the prompts each candidate belongs to.
            segments: (batch, length). Where rows are packed, a prompt and several of its candidates each: the part that
                a token belongs to, 0 for the prompt, then 1, 2, ..., and -1 for padding; see `read_packs`. Candidates
                are numbered row by row.

        Returns:
            Logits or encodings or both, and with labels the multi-task binary cross-entropy of the paper (section 3.3),
            the mean over pairs and tasks of -[y log sigmoid(l) + (1 - y) log sigmoid(-l)].

        Raises:
            ValueError: If `pairs` are given to a ranker that reads pairs, or labels without `pairs` to one that does
                not; on a CPU also if the rows are those of the other kind of ranker.
        """
        _check_rows(input_ids, self.config)
        if self.config.is_separate:
            if segments is not None:
                encodings = self.head.encode(*read_packs(self.backbone, self.config, input_ids, segments))
            elif prompt_ids is None or prompt_index is None:
                encodings = self.encode_rows(input_ids, attention_mask, token_type_ids)
            else:
                encodings = self._encode_apart(
                    prompt_ids,
                    _real(prompt_ids, prompt_mask),
                    prompt_index,
                    input_ids,
                    _real(input_ids, attention_mask),
                )
            output = self.compared(encodings, pairs, labels)
        else:
            if pairs is not None:
                raise ValueError("this ranker reads pairs together: each row of input_ids is one, so give no pairs")
            output = self._scored(self._joint_logits(input_ids, attention_mask, token_type_ids), labels)
        return output.to_tuple() if return_dict is False else output

    def encode_rows(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, token_type_ids: torch.Tensor | None
    ) -> torch.Tensor:
        """Encode whole rows, each a prompt and a candidate, (batch, n_tasks, 1 + preference_dim); see `forward`."""
        real = _real(input_ids, attention_mask)
        if self.config.pooling == "marker" and uses_states_at(self.backbone):
            parts = self._states_at_markers(input_ids, real, token_type_ids, self.config.markers[:2])
        else:
            parts = list(read_rows(self.backbone, self.config, input_ids, real, token_type_ids))
        return self.head.encode(*parts)

    def read_prompts(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> PromptStates:
        """Read prompts, (prompts, length), for their candidates to go on from, where `shares_prompts`."""
        return read_prompts(self.backbone, self.config, input_ids, _real(input_ids, attention_mask))

    def encode_after(
        self,
        prompts: PromptStates,
        prompt_index: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Encode candidates behind prompts that were read.

        Args:
            prompts: What `read_prompts` gave.
            prompt_index: (candidates,). Which of the prompts each candidate belongs to.
            input_ids: (candidates, length). The tokens of the candidates' parts alone.
            attention_mask: (candidates, length). 1 for tokens, 0 for padding.

        Returns:
            (candidates, n_tasks, 1 + preference_dim), as of whole rows.
        """
        real = _real(input_ids, attention_mask)
        candidates = read_candidates(self.backbone, self.config, prompts, input_ids, real, prompt_index)
        return self.head.encode(prompts.parts[prompt_index], candidates)

    def compared(
        self, encodings: torch.Tensor, pairs: torch.Tensor | None = None, labels: torch.Tensor | None = None
    ) -> PairRankerOutput:
        """Return encodings with the logits of pairs of them, and the loss where labels are given; see `forward`."""
        if pairs is None:
            if labels is not None:
                raise ValueError("labels are of pairs of candidates: say with pairs which rows each compares")
            return PairRankerOutput(encodings=encodings)
        output = self._scored(compare_encodings(encodings[pairs[:, 0]], encodings[pairs[:, 1]]), labels)
        output.encodings = encodings
        return output

    def _encode_apart(
        self,
        prompt_ids: torch.Tensor,
        prompt_real: torch.Tensor,
        prompt_index: torch.Tensor,
        input_ids: torch.Tensor,
        real: torch.Tensor,
    ) -> torch.Tensor:
        """Read prompts, and encode candidates behind them."""
        if not self.training or self.device.type != "cpu" or is_traced():
            return self.encode_after(self.read_prompts(prompt_ids, prompt_real), prompt_index, input_ids, real)
        # In training on a CPU, where each token of padding costs, the candidates of a prompt are of any length.
        encodings, places = [], []
        for chosen in groups_by_length(prompt_real):
            prompts = self.read_prompts(*_cut(prompt_ids, prompt_real, chosen))
            numbers = torch.full_like(prompt_real[:, 0], -1, dtype=torch.long)
            numbers[chosen] = torch.arange(len(chosen))
            own = (numbers[prompt_index] >= 0).nonzero()[:, 0]
            for group in groups_by_length(real[own]):
                rows = own[group]
                encodings.append(self.encode_after(prompts, numbers[prompt_index[rows]], *_cut(input_ids, real, rows)))
                places.append(rows)
        return torch.cat(encodings)[torch.cat(places).argsort()]

    def _joint_logits(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, token_type_ids: torch.Tensor | None
    ) -> torch.Tensor:
        source, first, second = self._parts(input_ids, attention_mask, token_type_ids)  # (batch, hidden) each
        task_logits = self.head(source, first) - self.head(source, second)  # (batch, n_tasks)
        if self.config.distinct_token_weight:
            lead = lead_in_distinct_tokens(input_ids, _real(input_ids, attention_mask), self.config.markers)  # (batch,)
            task_logits = task_logits + (self.config.distinct_token_weight * lead[:, None]).to(task_logits.dtype)
        return task_logits

    def _scored(self, task_logits: torch.Tensor, labels: torch.Tensor | None) -> PairRankerOutput:
        logits = task_logits.mean(dim=-1)  # (batch,)
        loss = None if labels is None else self._loss(task_logits, labels)
        return PairRankerOutput(loss=loss, logits=logits, task_logits=task_logits)

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
        config = self.config
        real = _real(input_ids, attention_mask)
        if config.pooling == "marker" and uses_states_at(self.backbone):
            return self._states_at_markers(input_ids, real, token_type_ids, config.markers)
        hidden = self._hidden(input_ids, attention_mask, token_type_ids)  # (batch, length, hidden)
        if config.symmetric or config.pooling == "last":
            spans = spans_of(input_ids, real, config.markers)
        else:
            # As rankers were trained: with what the tokenizer puts before the next part.
            starts = [start_of(input_ids, marker)[:, None] for marker in config.markers]
            places = torch.arange(input_ids.shape[1], device=input_ids.device)[None, :]  # (1, length)
            begun = [(places >= start) & real for start in starts]  # (batch, length) each
            spans = [begun[0] & ~begun[1], begun[1] & ~begun[2], begun[2]]
        parts = zip(spans, config.markers, strict=True)
        return [part_of(hidden, input_ids, span, marker, config.pooling) for span, marker in parts]

    def _states_at_markers(
        self,
        input_ids: torch.Tensor,
        real: torch.Tensor,
        token_type_ids: torch.Tensor | None,
        markers: Sequence[Any],
    ) -> list[torch.Tensor]:
        starts = torch.stack([start_of(input_ids, marker) for marker in markers], dim=1)
        return list(states_at(self.backbone, starts, input_ids, real.long(), token_type_ids).unbind(1))

    @staticmethod
    def _loss(task_logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        targets = labels.to(task_logits.dtype)
        targets = targets if targets.dim() == 2 else targets[:, None]
        return functional.binary_cross_entropy_with_logits(task_logits, targets.expand_as(task_logits))


def _in_float32(layer: nn.Linear, states: torch.Tensor) -> torch.Tensor:
    if type(layer) not in (nn.Linear, FastLinear):  # an adapter or quantised: its weight is not all that it computes
        dtype = getattr(layer.weight, "dtype", torch.float32)
        return layer(states.to(dtype) if dtype.is_floating_point else states).float()
    return functional.linear(states, layer.weight.float(), layer.bias.float())


def _cut(input_ids: torch.Tensor, real: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return some rows, which are padded on the right, and which of their tokens are real, without common padding."""
    length = int(real[rows].sum(dim=1).max())
    return input_ids[rows, :length], real[rows, :length]


def _check_rows(input_ids: torch.Tensor, config: PairRankerConfig) -> None:
    """Check that rows are pairs or single candidates, as the ranker reads them, where looking at them costs nothing.

    A GPU would have to be waited for, and a graph has no branch on its data.
    """
    if not input_ids.is_cpu or is_traced() or config.is_chat:
        return
    is_pair = torch.eq(input_ids, config.candidate2_token_id).any(dim=1)  # type: ignore[arg-type] # None fails below
    if config.is_separate and is_pair.any():
        raise ValueError(
            "input_ids has rows with two candidates, and this ranker encodes each by itself: call its processor with "
            "one candidate for each prompt"
        )
    if not config.is_separate and not is_pair.all():
        raise ValueError(
            "input_ids has rows without a second candidate, and this ranker reads pairs: call its processor with "
            "candidates_a and candidates_b"
        )


def _real(input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """Return which tokens are not padding, (batch, length), boolean."""
    return torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()


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
    require_masks(backbone, "symmetric ranker")
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
    return [start_of(input_ids, marker)[:, None] for marker in markers]


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
