"""Loading that fails loudly: a model whose weights are not all there would answer with random numbers."""

from typing import Any

KINDS = {
    "missing_keys": "missing from the checkpoint (they would be random)",
    "unexpected_keys": "in the checkpoint but not in the model",
    "mismatched_keys": "of another shape in the checkpoint",
    "error_msgs": "unreadable",
}
# Options that hold for what is loaded after a model too, whatever its repository and revision.
ACCESS_OPTIONS = ("token", "cache_dir", "local_files_only")


class HubAccess:
    """How a model was reached, for what is loaded after it: its processor and its fuser.

    `transformers.pipeline` keeps these options to itself, so a pipeline can have them only from the model. One of them
    may be a secret: it is in no configuration and no representation, and neither a copy nor a pickle has it.

    Args:
        subfolder: Where in its repository the model is, for what lies beside it.
        **options: Any of `ACCESS_OPTIONS`; what is None is left out.
    """

    def __init__(self, subfolder: str | None = None, **options: Any) -> None:
        self._subfolder = {"subfolder": subfolder} if subfolder else {}
        self._options = {name: options[name] for name in ACCESS_OPTIONS if options.get(name) is not None}

    def options(self, token: str | bool | None = None, local_files_only: bool = False) -> dict[str, Any]:
        """Return the options for `from_pretrained`; what is given here overrules what is kept."""
        given = {"token": token, "local_files_only": local_files_only or None}
        return {**self._options, **{name: value for name, value in given.items() if value is not None}}

    def options_beside(self, token: str | bool | None = None, local_files_only: bool = False) -> dict[str, Any]:
        """Return as `options` does, and where in the model's repository its processor is."""
        return {**self.options(token, local_files_only), **self._subfolder}

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return type(self), ()


def access_of(model: Any) -> HubAccess:
    """Return how a model was reached; of one that was not loaded, as anybody reaches the Hub."""
    return getattr(model, "hub_access", None) or HubAccess()


class StrictLoadingMixin:
    """Makes `from_pretrained` raise where transformers only logs that weights are missing, unexpected or mismatched.

    The model remembers how it was reached, see `HubAccess`.
    """

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Any, *model_args: Any, output_loading_info: bool = False, **kwargs: Any
    ) -> Any:
        """Load a checkpoint, as in transformers, and check that every weight came from it.

        Args:
            pretrained_model_name_or_path: A Hub id or a folder.
            *model_args: Passed on to transformers.
            output_loading_info: Whether to return `(model, loading_info)`.
            **kwargs: The options of `transformers.PreTrainedModel.from_pretrained`.

        Returns:
            The model in evaluation mode, or a tuple of it and the loading information.

        Raises:
            OSError: If weights are missing, unexpected or of another shape; the message names them.
        """
        # Mismatches are collected, not ignored: transformers would name only the first, and not by its name.
        kwargs["ignore_mismatched_sizes"] = True
        model, info = super().from_pretrained(  # type: ignore[misc]
            pretrained_model_name_or_path, *model_args, output_loading_info=True, **kwargs
        )
        raise_if_incomplete(info, pretrained_model_name_or_path, cls.__name__)
        model.hub_access = HubAccess(**kwargs)
        return (model, info) if output_loading_info else model


def raise_if_incomplete(info: dict[str, Any], source: Any, model_name: str) -> None:
    """Raise OSError when the loading information of transformers names any weight that was not loaded as it is."""
    problems = [_describe(sorted(map(str, info[key])), what) for key, what in KINDS.items() if info.get(key)]
    if problems:
        raise OSError(
            f"{source!s} is not a complete {model_name} checkpoint: {'; '.join(problems)}. "
            f"Check that this is a {model_name} and that its files are whole."
        )


def _describe(names: list[str], what: str) -> str:
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"{len(names)} {what}: {shown}"
