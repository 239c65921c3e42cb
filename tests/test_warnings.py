"""The filters of pyproject.toml: warnings that are errors, and those of other packages that are not."""

import warnings

import pytest

REMOVED = "`gradient_checkpointing` is deprecated and will be removed in v6. Use `activation_checkpointing` instead."
METHOD = "`gradient_checkpointing_enable` is deprecated and will be removed in v6."


@pytest.mark.once
@pytest.mark.parametrize("module", ["transformers.training_args", "transformers", "blender_hf.training.settings"])
def test_what_the_next_transformers_removes_is_an_error(module: str) -> None:
    """A warning is attributed to the module of the line that warns, or, by `stacklevel`, to that of its caller."""
    with pytest.raises(FutureWarning, match="removed in v6"):
        warnings.warn_explicit(REMOVED, FutureWarning, "file.py", 1, module=module)


@pytest.mark.once
@pytest.mark.parametrize(
    ("message", "module"), [(METHOD, "transformers.modeling_utils"), (REMOVED, "another.package.transformers")]
)
def test_what_other_packages_call_is_none(message: str, module: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.warn_explicit(message, FutureWarning, "file.py", 1, module=module)
    assert all("removed in v6" in str(warning.message) for warning in caught)
