import pytest

from blender_hf import InputError, InputTypeError
from blender_hf.generation.sampling import Sampling, as_sampling


def test_a_mapping_goes_over_the_default() -> None:
    default = Sampling(max_new_tokens=7, temperature=0)
    assert as_sampling({"top_p": 0.5}, default) == Sampling(max_new_tokens=7, temperature=0, top_p=0.5)
    assert as_sampling({"temperature": None}, default).temperature is None
    assert as_sampling(None, default) == default
    assert as_sampling(default, Sampling()) is default


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n=0"),
        ({"n": True}, "n=True"),
        ({"max_new_tokens": 1.5}, "max_new_tokens=1.5"),
        ({"temperature": -1}, "temperature=-1"),
        ({"temperature": float("inf")}, "temperature=inf"),
        ({"top_p": 0}, "top_p=0"),
        ({"seed": -1}, "seed=-1"),
        ({"n": 2, "temperature": 0}, "are all the same"),
        ({"num_beams": 4}, "no option num_beams; it has n, max_new_tokens"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_sampling(options)


def test_it_is_a_mapping() -> None:
    with pytest.raises(InputTypeError, match="not int"):
        as_sampling(3)  # type: ignore[arg-type]
