"""How the candidates of a batch of prompts are put into rows: whole rows, candidates behind prompts, or packed rows."""

from collections.abc import Callable, Sequence

import torch

from blender_hf.modeling import CandidateEncoding, PairRanker, PairRankerProcessor
from blender_hf.modeling.packed_rows import packs_prompts

Tensors = dict[str, torch.Tensor]
# Candidates of one prompt.
Group = Sequence[CandidateEncoding]
# Puts the candidates of each prompt into the tensors of `PairRanker.forward`, which numbers them in the order given.
Arrangement = Callable[[Sequence[Group], PairRankerProcessor], Tensors]

# Of a packed row; a prompt whose candidates are more is repeated in several. Attention costs the square of it.
MAX_PACK_TOKENS = 1600


def whole_rows(groups: Sequence[Group], processor: PairRankerProcessor) -> Tensors:
    """Return rows of a prompt and a candidate each."""
    return dict(processor.pad_candidates([row for group in groups for row in group]))


def behind_prompts(groups: Sequence[Group], processor: PairRankerProcessor) -> Tensors:
    """Return prompts, and candidates apart from them."""
    prompts = processor.pad([group[0].prompt_ids for group in groups])
    candidates = processor.pad([row.candidate_ids for group in groups for row in group])
    return {
        **candidates,
        "prompt_ids": prompts["input_ids"],
        "prompt_mask": prompts["attention_mask"],
        "prompt_index": torch.tensor([number for number, group in enumerate(groups) for _ in group]),
    }


def packed_rows(groups: Sequence[Group], processor: PairRankerProcessor) -> Tensors:
    """Return rows of a prompt and as many of its candidates as `packs_of` puts into one.

    `segments`, (rows, length), numbers the parts of each row: 0 is the prompt, -1 padding.
    """
    packs = [pack for group in groups for pack in packs_of(group)]
    ids = processor.pad([[*pack[0].prompt_ids, *(i for row in pack for i in row.candidate_ids)] for pack in packs])
    numbers = [
        torch.tensor([0] * len(pack[0].prompt_ids) + [n for n, row in enumerate(pack, 1) for _ in row.candidate_ids])
        for pack in packs
    ]
    segments = torch.nn.utils.rnn.pad_sequence(numbers, batch_first=True, padding_value=-1)
    return {"input_ids": ids["input_ids"], "segments": segments}


def packs_of(group: Group) -> list[list[CandidateEncoding]]:
    """Split the candidates of a prompt into packs of at most `MAX_PACK_TOKENS`, or of one candidate."""
    packs: list[list[CandidateEncoding]] = []
    size = 0
    for row in group:
        if not packs or size + len(row.candidate_ids) > MAX_PACK_TOKENS:
            packs.append([])
            size = len(row.prompt_ids)
        packs[-1].append(row)
        size += len(row.candidate_ids)
    return packs


def n_tokens(group: Group, arrangement: Arrangement) -> int:
    """Return how many tokens of a prompt and its candidates are read, without padding."""
    repeats: dict[Arrangement, int]
    repeats = {whole_rows: len(group), packed_rows: len(packs_of(group)), behind_prompts: 1}  # of the prompt
    return sum(len(row.candidate_ids) for row in group) + repeats[arrangement] * len(group[0].prompt_ids)


def arrangement_of(model: PairRanker, *, checkpoints: bool = False) -> Arrangement:
    """Return the arrangement that costs least of those that give the encodings of whole rows.

    Args:
        model: A ranker with separate encodings.
        checkpoints: Whether its layers are checkpointed, which makes no difference to packed rows. The encoders that
            read prompts apart do it layer by layer, and checkpointing is in the encoder's own forward; and a cache of
            keys and values is not kept.
    """
    if packs_prompts(model.backbone, model.config):
        return packed_rows
    return behind_prompts if model.shares_prompts and not checkpoints else whole_rows
