"""Fusing through the facade: what is asked of `generate`, and what can't be."""

import asyncio
from typing import Any

import pytest
from transformers import GenerationConfig, pipeline

from blender_hf import Blender, InputError, InputTypeError

CANDIDATES = ["It is 4. Yes.", "Four! I am sure."]
SEVERAL = [
    ({"num_return_sequences": 2, "num_beams": 2}, "num_return_sequences=2"),
    ({"return_dict_in_generate": True}, "return_dict_in_generate=True"),
    ({"generation_config": GenerationConfig(num_beams=2, num_return_sequences=2)}, "num_return_sequences=2"),
]


@pytest.mark.parametrize(("generation", "named"), SEVERAL, ids=[named for _, named in SEVERAL[:2]] + ["in a config"])
def test_a_fusion_is_one_text(generation: dict[str, Any], named: str, blender: Blender) -> None:
    """Several texts for an item were given to the next items, or zip complained of its arguments."""
    with pytest.raises(InputError, match=f"generation option {named}: a fusion is one text.*leave it out"):
        blender.fuse("2 + 2?", CANDIDATES, generation=generation)
    with pytest.raises(InputError, match=f"generation option {named}"):
        asyncio.run(blender.afuse("2 + 2?", CANDIDATES, generation=generation))


def test_what_says_the_same_as_the_default_is_no_error(blender: Blender) -> None:
    generation = {"num_return_sequences": 1, "return_dict_in_generate": False, "max_new_tokens": 40}
    expected = blender.fuse("2 + 2?", CANDIDATES, generation={"max_new_tokens": 40})
    assert blender.fuse("2 + 2?", CANDIDATES, generation=generation) == expected


def test_options_of_generation_are_a_mapping(blender: Blender) -> None:
    message = "generation must be a mapping of options.*not str"
    with pytest.raises(InputTypeError, match=message):
        blender.fuse("2 + 2?", CANDIDATES, generation="x")  # type: ignore[arg-type]
    for method in (blender.afuse, blender.ablend):
        with pytest.raises(InputTypeError, match=message):
            asyncio.run(method("2 + 2?", CANDIDATES, generation="x"))
    with pytest.raises(InputTypeError, match=message):
        pipeline("llm-blending")({"prompt": "2 + 2?", "candidates": CANDIDATES}, generation="x")


def test_a_generation_config_is_heeded(blender: Blender) -> None:
    generation = {"num_beams": 2, "max_new_tokens": 30}
    given = blender.fuse("2 + 2?", CANDIDATES, generation={"generation_config": GenerationConfig(**generation)})
    assert given == blender.fuse("2 + 2?", CANDIDATES, generation=generation)
