"""Layers of a ranker that are not trained: their states are computed once, kept on disk, and read in every step.

So a backbone of a hundred million weights trains on a CPU: only the upper layers run, forwards and backwards.
"""

import hashlib
import logging
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from blender_hf.engine.model_state import evaluating
from blender_hf.engine.scorer import pack_by_tokens
from blender_hf.errors import InputError
from blender_hf.modeling import CandidateEncoding, PairRanker, PairRankerProcessor
from blender_hf.modeling.packed_rows import read_packs
from blender_hf.modeling.separate_encoding import read_rows

from .prompt_rows import Arrangement, Group, arrangement_of, packed_rows, packs_of, whole_rows
from .state_cache import StateCache

logger = logging.getLogger(__name__)
# As a number of layers: all of the encoder, so that only the head is trained.
WHOLE = -1
# Of a batch whose states are computed: its tokens, and how many of them may be padding.
MAX_BATCH_TOKENS, MAX_PADDING = 4096, 512


class FrozenLayers:
    """The lower layers of a ranker with separate encodings, or its whole encoder, without gradients and dropout.

    While `states` are set, the model takes them for what these layers give, and does not run them; else it runs them,
    as in an evaluation.

    Args:
        model: The ranker; its frozen weights no longer require gradients.
        n_layers: How many layers from the lowest on, with the embeddings and all else that their states depend on;
            `WHOLE` for the whole encoder.

    Raises:
        InputError: If the encoder has fewer layers, or they are not one list.
    """

    def __init__(self, model: PairRanker, n_layers: int) -> None:
        self.model = model
        self.n_layers = n_layers
        #: How prompts and candidates are put into rows: packed, where the model reads them so, else whole.
        self.arrangement: Arrangement = (
            packed_rows if n_layers != WHOLE and arrangement_of(model) is packed_rows else whole_rows
        )
        #: (batch, length, hidden), the states of the rows of a step; of a whole encoder (batch, 2, hidden), the
        #: representations of the prompts and the candidates. None runs the layers.
        self.states: torch.Tensor | None = None
        self._layers = [] if n_layers == WHOLE else _layers_of(model.backbone, n_layers)
        self._cache: StateCache | None = None
        # How many values a layer gives, if they are a tuple; transformers 5 has layers that give the states alone.
        self._width = 0
        if n_layers == WHOLE:
            model.encode_rows = partial(self._encode, model.encode_rows)  # type: ignore[method-assign]
        for layer in self._layers:
            layer.forward = partial(self._run, layer.forward, layer is self._layers[-1])
        frozen = self._freeze()
        self._identity = {
            "weights": _digest(frozen),
            "layers": n_layers,
            "packed": self.arrangement is packed_rows,
            "shared_prompt": model.config.shared_prompt,
            "pooling": model.config.pooling if n_layers == WHOLE else None,
        }

    def compute(
        self, rows: Sequence[CandidateEncoding], processor: PairRankerProcessor, folder: Path, *, bf16: bool
    ) -> None:
        """Compute the states of rows that the cache in a folder does not have yet; an interrupted call goes on.

        Raises:
            InputError: If the cache was made with another encoder, or the disk is too small.
        """
        dtype = torch.bfloat16 if bf16 else torch.float16
        self._cache = StateCache(folder, self._identity, self.model.config.backbone_config.hidden_size, dtype)
        missing = self._cache.missing([ids for pack in self._packs_of_all(rows) for ids, _ in self._parts_of(pack)])
        if not missing:
            return
        unknown = set(missing)
        packs = self._packs_of_all([row for row in rows if row.input_ids in unknown])
        logger.info(
            "computing the states of frozen layers for %d rows: %s in %s",
            len(packs),
            self._cache.reserve(sum(n for parts in map(self._parts_of, packs) for ids, n in parts if ids in unknown)),
            folder,
        )
        with self._cache.writing() as write:
            for batch in pack_by_tokens([_n_tokens(pack) for pack in packs], MAX_BATCH_TOKENS, MAX_PADDING):
                chosen = [packs[index] for index in batch]
                found = self._computed(self.arrangement(chosen, processor), bf16=bf16)
                fresh: dict[tuple[int, ...], torch.Tensor] = {}
                for pack, states in zip(chosen, found, strict=True):
                    sizes = [n for _, n in self._parts_of(pack)]
                    own = states[: sum(sizes)].split(sizes)
                    fresh |= {ids: part for (ids, _), part in zip(self._parts_of(pack), own, strict=True)}
                fresh = {ids: part for ids, part in fresh.items() if ids in unknown}
                write(list(fresh), list(fresh.values()))
                unknown.difference_update(fresh)

    def states_of(self, groups: Sequence[Group]) -> torch.Tensor:
        """Return the states of the rows of prompts from the cache, padded to the longest with zeros; see `states`."""
        if self._cache is None:
            raise RuntimeError("compute the states before they are read")
        read = self._cache.read
        packs = [pack for group in groups for pack in self._packs_of(group)]
        found = [torch.cat([read(ids) for ids, _ in self._parts_of(pack)]) for pack in packs]
        return nn.utils.rnn.pad_sequence(found, batch_first=True)

    def check_trained(self) -> None:
        """Raise `InputError` if adapters were put where the states would no longer be those of the cache."""
        parts: list[nn.Module] = self._layers or [self.model.backbone]
        if any(weight.requires_grad for part in parts for weight in part.parameters()):
            raise InputError(
                f"lora_target_modules names layers that frozen_layers={self.n_layers} freezes: name others, or none to "
                "take all linear layers above"
            )

    def restore(self) -> None:
        """Give the model its own forward functions back."""
        self.states = None
        for part in self._layers:
            part.__dict__.pop("forward", None)
        self.model.__dict__.pop("encode_rows", None)

    def _freeze(self) -> dict[str, nn.Parameter]:
        """Freeze all that the states depend on, and return it: layers may share weights with what is above them."""
        backbone = self.model.backbone
        weights = {name: weight for name, weight in backbone.named_parameters() if weight.requires_grad}
        if self.n_layers != WHOLE:
            # A prompt of one token and a candidate of one: where there are markers, these.
            row = torch.tensor([[marker or 0 for marker in self.model.config.markers[:2]]], device=self.model.device)
            types = torch.tensor([[0, 1]], device=self.model.device)
            inputs = {"input_ids": row, "attention_mask": torch.ones_like(row)}
            with torch.enable_grad(), evaluating(self.model):
                states = self._captured(inputs | ({"token_type_ids": types} if self.model.config.is_chat else {}))
            grads = torch.autograd.grad(states.sum(), list(weights.values()), allow_unused=True)
            # Of the layers all, whether these two tokens reach them or not.
            within = {id(weight) for layer in self._layers for weight in layer.parameters()}
            weights = {
                name: weight
                for (name, weight), grad in zip(weights.items(), grads, strict=True)
                if grad is not None or id(weight) in within
            }
        for weight in weights.values():
            weight.requires_grad = False
        return weights

    def _packs_of(self, group: Group) -> Sequence[Group]:
        """Return what the rows of a prompt consist of."""
        return packs_of(group) if self.arrangement is packed_rows else [[row] for row in group]

    def _packs_of_all(self, rows: Sequence[CandidateEncoding]) -> list[Group]:
        """Return the same of different rows of any prompts."""
        groups: dict[tuple[int, ...], list[CandidateEncoding]] = defaultdict(list)
        for row in {row.input_ids: row for row in rows}.values():
            groups[row.prompt_ids].append(row)
        return [pack for group in groups.values() for pack in self._packs_of(group)]

    def _parts_of(self, pack: Group) -> list[tuple[tuple[int, ...], int]]:
        """Return the parts of a row that have states of their own: the tokens that these depend on, and their number.

        In packed rows a prompt has states of its own, whichever candidates it is packed with.
        """
        if self.arrangement is packed_rows:
            prompt = pack[0].prompt_ids
            return [(prompt, len(prompt)), *((row.input_ids, len(row.candidate_ids)) for row in pack)]
        ids = pack[0].input_ids
        return [(ids, 2 if self.n_layers == WHOLE else len(ids))]

    @torch.no_grad()
    def _computed(self, batch: Any, *, bf16: bool) -> torch.Tensor:
        device = self.model.device
        inputs = {name: tensor.to(device) for name, tensor in batch.items()}
        with evaluating(self.model), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            found = torch.stack(self._read(inputs), dim=1) if self.n_layers == WHOLE else self._captured(inputs)
        return found.float().cpu()

    def _read(self, inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        backbone, config = self.model.backbone, self.model.config
        if "segments" in inputs:
            return read_packs(backbone, config, inputs["input_ids"], inputs["segments"])
        real = inputs["attention_mask"].bool()
        return read_rows(backbone, config, inputs["input_ids"], real, inputs.get("token_type_ids"))

    def _captured(self, inputs: Any) -> torch.Tensor:
        """Return what the last frozen layer gives, without running those above it."""

        def stop(layer: nn.Module, args: Any, output: Any) -> None:
            raise _ReachedError(_hidden(output))

        hook = self._layers[-1].register_forward_hook(stop)
        try:
            self._read(inputs)
        except _ReachedError as reached:
            return reached.states
        finally:
            hook.remove()
        raise InputError(f"frozen_layers can't be used with a {self.model.config.backbone_config.model_type}")

    def _run(self, forward: Any, is_last: bool, *args: Any, **kwargs: Any) -> Any:
        """Run a layer, or pass the states through it; what it gives besides them, such as attentions, is None."""
        if self.states is None:
            output = forward(*args, **kwargs)
            self._width = len(output) if isinstance(output, tuple) else 0
            return output
        hidden = args[0] if args else kwargs["hidden_states"]
        states = self.states.to(hidden.dtype) if is_last else hidden
        return (states, *[None] * (self._width - 1)) if self._width else states

    def _encode(self, encode_rows: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.states is None:
            return encode_rows(*args, **kwargs)
        head = self.model.head
        return head.encode(*self.states.to(head.dense.weight.dtype).unbind(1))


class _ReachedError(Exception):
    """Ends a forward pass where its states are known."""

    def __init__(self, states: torch.Tensor) -> None:
        self.states = states


def _layers_of(backbone: Any, n_layers: int) -> list[nn.Module]:
    """Return the lowest layers of a backbone whose layers are one list."""
    kind, n_known = backbone.config.model_type, backbone.config.num_hidden_layers
    if n_layers > n_known:
        raise InputError(f"frozen_layers={n_layers}, and the {kind} has {n_known} layers; use {WHOLE} for all")
    lists = [
        (name.count("."), list(part))
        for name, part in backbone.named_modules()
        if isinstance(part, nn.ModuleList) and len(part) == n_known
    ]
    if not lists:
        raise InputError(f"frozen_layers can't be used with a {kind}, whose layers are not one list")
    return min(lists, key=lambda entry: entry[0])[1][:n_layers]


def _n_tokens(pack: Group) -> int:
    return len(pack[0].prompt_ids) + sum(len(row.candidate_ids) for row in pack)


def _hidden(output: Any) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output


def _digest(weights: dict[str, nn.Parameter]) -> str:
    digest = hashlib.sha256()
    for name, weight in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
