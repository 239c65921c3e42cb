"""Proof that an exported model computes the same as the one in torch."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from blender_hf.errors import ModelOutputError
from blender_hf.modeling import CausalGenFuser, GenFuser, PairRanker, PairRankerConfig
from blender_hf.modeling.ranking_math import compare_encodings
from blender_hf.modeling.tokenization import n_positions, pad_left, pad_right

from .graph import output_of

# Maximum difference of a logit from torch's float32, in units of the largest logit (at least 1), and likewise of the
# numbers of encodings. Eight bits are another model.
TOLERANCES = {"float32": 3e-4, "float16": 2e-2, "int8": 0.15}
FRACTIONS = (0.0, 0.03, 0.3, 0.6, 1.0)  # of the way from the shortest input to the longest
MIN_LENGTH = 8
BATCHES = (1, 3)
N_TOKENS = 24  # written by a fuser for each input


@dataclass(frozen=True)
class Parity:
    """How far an exported model is from the one in torch."""

    difference: float  # the largest difference of a logit
    tolerance: float  # the maximum that is accepted
    n_logits: int  # how many were compared, of pairs or of steps of generation
    longest: int  # tokens of the longest input
    what: str = "logit"  # what was compared

    def __str__(self) -> str:
        return (
            f"largest difference of {'an' if self.what[0] in 'aeiou' else 'a'} {self.what} {self.difference:.1e} "
            f"(accepted: {self.tolerance:.1e}), {self.n_logits} compared, inputs of up to {self.longest} tokens"
        )


def check_ranker(model: PairRanker, exported: Callable[..., Any], tolerance: float) -> Parity:
    """Compare the logits of rankers at several lengths, up to the longest row, and batch sizes, with padding.

    With separate encodings these are compared first, and then the logits of all pairs of them.
    """
    output = output_of(model.config)
    wanted, found, longest = [], [], 0
    for inputs in ranker_inputs(model.config):
        longest = max(longest, inputs["input_ids"].shape[1])
        with torch.inference_mode():
            wanted.append(model(**inputs)[output])
            found.append(exported(**inputs)[output])
    both = torch.cat(wanted), torch.cat(found)
    if model.config.is_separate:
        _judged(*both, tolerance, longest, "number of an encoding")
        both = _all_pairs(both[0]), _all_pairs(both[1])
    return _judged(*both, tolerance, longest)


def check_fuser(model: GenFuser | CausalGenFuser, exported: Any, tolerance: float, max_source_length: int) -> Parity:
    """Compare the logits of every token that both fusers generate greedily with their caches.

    The inputs are of all lengths up to `max_source_length`, and to what the positions of a decoder leave for it.
    """
    wanted, found, longest = [], [], 0
    config = model.config
    ends = model.end_ids({})
    positions = None if config.is_encoder_decoder else n_positions(config)
    room = max_source_length if positions is None else min(max_source_length, positions - N_TOKENS)
    padding = config.pad_token_id if config.pad_token_id is not None else next(iter(ends), 0)
    pad = pad_right if config.is_encoder_decoder else pad_left
    for ids in _random_rows(config.vocab_size, room, *ends):
        longest = max(longest, len(ids[0]))
        inputs = pad(ids, padding)
        ours, theirs = _steps(model, inputs), _steps(exported, inputs)
        # After a tie that rounding decides, they write different texts.
        n_same = next((i for i, (a, b) in enumerate(zip(ours[1], theirs[1], strict=True)) if a != b), len(ours[1]) - 1)
        wanted.append(ours[0][: n_same + 1].flatten(0, 1))
        found.append(theirs[0][: n_same + 1].flatten(0, 1))
    return _judged(torch.cat(wanted), torch.cat(found), tolerance, longest)


def ranker_inputs(config: PairRankerConfig) -> Iterator[dict[str, torch.Tensor]]:
    """Yield batches of random rows with the markers or types of their parts; the last row is shorter than the first."""
    markers = [] if config.is_chat else list(config.row_markers)
    backbone = config.backbone_config
    padding: int | None = backbone.pad_token_id
    for rows in _random_rows(backbone.vocab_size, config.longest_row(config), *config.markers, padding):
        for row in rows:
            for place, marker in enumerate(markers):
                row[place * len(row) // len(markers)] = marker
        types = [[int(place >= len(row) // 2) for place in range(len(row))] for row in rows]
        parts = {"token_type_ids": pad_right(types, 0)["input_ids"]} if config.is_chat else {}
        yield {**pad_right(rows, padding or 0), **parts}


def _random_rows(vocab_size: int, longest: int, *reserved: int | None) -> Iterator[list[list[int]]]:
    """Yield batches of rows of random token ids of several lengths, without reserved ids."""
    generator = torch.Generator().manual_seed(0)
    usable = torch.tensor(sorted(set(range(vocab_size)) - {id for id in reserved if id is not None}))
    for fraction in FRACTIONS:
        length = round(MIN_LENGTH + fraction * (longest - MIN_LENGTH))
        for batch in BATCHES:
            lengths = [max(3, length - i * length // 4) for i in range(batch)]
            yield [usable[torch.randint(len(usable), (n,), generator=generator)].tolist() for n in lengths]


def _steps(model: Any, inputs: Any) -> tuple[torch.Tensor, list[list[int]]]:
    """Return the logits (steps, batch, vocabulary) of greedy generation, and the tokens of each step."""
    options = {"max_new_tokens": N_TOKENS, "min_new_tokens": N_TOKENS, "num_beams": 1, "do_sample": False}
    with torch.inference_mode():
        written = model.generate(**inputs, **options, return_dict_in_generate=True, output_logits=True)
    return torch.stack(written.logits), written.sequences[:, -len(written.logits) :].T.tolist()


def _all_pairs(encodings: torch.Tensor) -> torch.Tensor:
    """Return the logits of all pairs of rows, (pairs,)."""
    first, second = torch.combinations(torch.arange(len(encodings))).unbind(1)
    return compare_encodings(encodings[first].float(), encodings[second].float()).mean(dim=-1)


def _judged(wanted: torch.Tensor, found: torch.Tensor, tolerance: float, longest: int, what: str = "logit") -> Parity:
    scale = max(1.0, wanted.abs().max().item())
    difference = (wanted - found.float()).abs().max().item()
    parity = Parity(difference, tolerance * scale, len(wanted), longest, what)
    if not difference <= parity.tolerance:  # written so that NaN fails
        raise ModelOutputError(f"the exported model is not the model in torch: {parity}")
    return parity
