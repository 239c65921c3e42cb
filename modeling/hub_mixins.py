"""Loading and publishing of both models: complete weights or an error, and a repository that is complete."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.repocard import REGEX_YAML_BLOCK

from .configurations import MAJOR_VERSION
from .tokenizer_files import load_tokenizer

PROBLEMS = {
    "missing_keys": "missing from the checkpoint (they would be random)",
    "unexpected_keys": "in the checkpoint but not in the model",
    "mismatched_keys": "of another shape in the checkpoint",
    "error_msgs": "unreadable",
}
# Loading options that also hold for what is loaded after a model, from whatever repository and revision.
ACCESS_OPTIONS = ("token", "cache_dir", "local_files_only")
# How the Hub lists a model, by its `model_type`: the task, and the tags.
TASKS = {"pair_ranker": "text-ranking", "gen_fuser": "text-generation"}
TAGS = {
    "pair_ranker": ("llm-blending", "reward-model", "preference"),
    "gen_fuser": ("llm-blending", "fusion"),
}
# Settings of a tokenizer that transformers 5 writes in a form that 4 can't read (both find the special tokens in
# tokenizer.json), or that describe the machine on which it was loaded.
NOT_PORTABLE = ("backend", "extra_special_tokens", "is_local", "local_files_only")


class HubAccess:
    """How a model was reached, for what is loaded after it: its processor and its fuser.

    `transformers.pipeline` does not pass these options on, so a pipeline can only get them from the model. One of them
    may be a secret: no configuration and no representation contains it, and neither do copies and pickles.

    Besides the options of `ACCESS_OPTIONS` it keeps the model's subfolder, for what lies beside it.
    """

    def __init__(self, subfolder: str | None = None, **options: Any) -> None:
        self._subfolder = {"subfolder": subfolder} if subfolder else {}
        self._options = {name: options[name] for name in ACCESS_OPTIONS if options.get(name) is not None}

    def options(self, token: str | bool | None = None, local_files_only: bool = False) -> dict[str, Any]:
        """Return the options for `from_pretrained`; arguments take precedence over what is kept."""
        given = {"token": token, "local_files_only": local_files_only or None}
        return {**self._options, **{name: value for name, value in given.items() if value is not None}}

    def options_beside(self, token: str | bool | None = None, local_files_only: bool = False) -> dict[str, Any]:
        """Return the same, and the subfolder, for what lies beside the model."""
        return {**self.options(token, local_files_only), **self._subfolder}

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return type(self), ()


def access_of(model: Any) -> HubAccess:
    """Return how a model was reached; for one that was not loaded, the default access."""
    return getattr(model, "hub_access", None) or HubAccess()


class StrictLoadingMixin:
    """Makes `from_pretrained` raise where transformers only logs that weights are missing, unexpected or mismatched.

    The model remembers how it was reached, see `HubAccess`.
    """

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Any, *model_args: Any, output_loading_info: bool = False, **kwargs: Any
    ) -> Any:
        """Load a checkpoint, as in transformers, with its options, and check that every weight came from it.

        Raises:
            OSError: If weights are missing, unexpected or of another shape; the message names them.
        """
        # Mismatches are collected, not ignored: transformers would name only the first, and not by its name.
        kwargs["ignore_mismatched_sizes"] = True
        model, info = super().from_pretrained(  # type: ignore[misc] # of the class that is mixed with
            pretrained_model_name_or_path, *model_args, output_loading_info=True, **kwargs
        )
        raise_if_incomplete(info, pretrained_model_name_or_path, cls.__name__, _absent(model, info))
        model.hub_access = HubAccess(**kwargs)
        return (model, info) if output_loading_info else model


def raise_if_incomplete(info: dict[str, Any], source: Any, model_name: str, absent: Sequence[str] = ()) -> None:
    """Raise OSError if the loading information of transformers names any weight that was not loaded unchanged.

    `absent` are the parts of the model, such as its encoder, of which the checkpoint has no weight at all.
    """
    problems = [_listed(sorted(map(str, info[key])), what) for key, what in PROBLEMS.items() if info.get(key)]
    if problems:
        raise OSError(
            f"{source!s} is not a complete {model_name} checkpoint"
            f"{''.join(f', it has nothing of the {part}' for part in absent)}: {'; '.join(problems)}. "
            f"Check that this is a {model_name} and that its files are whole.{_hint(info)}"
        )


def _absent(model: Any, info: dict[str, Any]) -> list[str]:
    """Return the names of the parts of a model all of whose weights are missing."""
    missing = set(map(str, info.get("missing_keys", ())))
    parts = {name: {f"{name}.{key}" for key in part.state_dict()} for name, part in model.named_children()}
    return [name for name, keys in parts.items() if keys and keys <= missing]


def _hint(info: dict[str, Any]) -> str:
    if MAJOR_VERSION >= 5 or "lm_head.weight" not in info.get("missing_keys", ()):
        return ""
    return " A model that transformers 5 made may have no output layer of its own: load it with transformers 5."


def _listed(names: list[str], what: str) -> str:
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"{len(names)} {what}: {shown}"


class PublishingMixin:
    """Lets `push_to_hub` upload a model's processor and card in the same commit."""

    _beside: tuple[Any, str | None] = (None, None)

    def save_pretrained(self, save_directory: Any, *args: Any, processor: Any = None, **kwargs: Any) -> Any:
        """Save the model with its code, as in transformers, and its processor if it is given.

        Args:
            save_directory: The folder.
            *args: Passed on to transformers.
            processor: The processor. With `push_to_hub=True` it is uploaded in the model's commit.
            **kwargs: The options of `transformers.PreTrainedModel.save_pretrained`.
        """
        save_directory = os.fspath(save_directory)  # transformers 4 uploads from nothing else
        if processor is None:
            return super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc] # as above
        self._beside = (processor, None)
        try:
            saved = super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc] # as above
        finally:
            self._beside = (None, None)
        if not kwargs.get("push_to_hub"):  # or it was saved before the upload
            processor.save_pretrained(save_directory)
        return saved

    def push_to_hub(
        self, repo_id: str, *args: Any, processor: Any = None, card: str | None = None, **kwargs: Any
    ) -> Any:
        """Upload the model with its code, as in transformers, and with its processor and card.

        Args:
            repo_id: The repository on the Hub, `org/name`; created if it does not exist.
            *args: Passed on to transformers.
            processor: The processor. Without one the repository has only the model, and can't read texts.
            card: Text of README.md. None keeps the one of the repository, or lets transformers write a short one. Its
                metadata are completed, see `completed_card`.
            **kwargs: The options of `transformers.PreTrainedModel.push_to_hub`: `private`, `token`, `revision`,
                `create_pr`, `commit_message` and more.

        Returns:
            What transformers returns: the commit.

        Raises:
            ValueError: If the metadata of the card are not valid YAML.
        """
        # Before anything is created on the Hub, since it may be invalid.
        text = None if card is None else str(completed_card(card, self._model_type))
        self._beside = (processor, text)
        try:
            return super().push_to_hub(repo_id, *args, **kwargs)  # type: ignore[misc] # as above
        finally:
            self._beside = (None, None)

    def _upload_modified_files(self, working_dir: Any, *args: Any, **kwargs: Any) -> Any:
        # The one step between saving and uploading that transformers 4 and 5 have in common.
        processor, card = self._beside
        path = Path(working_dir, "README.md")
        if processor is not None:
            processor.save_pretrained(working_dir)
        if card is None:
            written = path.read_text(encoding="utf-8")  # by transformers
            card = str(completed_card(written, self._model_type))
        path.write_text(card, encoding="utf-8")
        return super()._upload_modified_files(working_dir, *args, **kwargs)  # type: ignore[misc] # as above

    @property
    def _model_type(self) -> str:
        return self.config.model_type  # type: ignore[attr-defined] # as above


class PortableProcessorMixin:
    """Loads and saves the processor of a tokenizer alike on transformers 4 and 5."""

    @classmethod
    def _get_arguments_from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> list[Any]:
        # The one step of `from_pretrained` that both versions have for what a processor is made of.
        return [load_tokenizer(pretrained_model_name_or_path, **kwargs)]

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
        """Save the processor, as in transformers, in a form that transformers 4 and 5 both load."""
        saved = super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc] # as above
        make_portable(save_directory)
        return saved

    def _upload_modified_files(self, working_dir: Any, *args: Any, **kwargs: Any) -> Any:
        # With `push_to_hub=True` the files are uploaded before `save_pretrained` returns.
        make_portable(working_dir)
        return super()._upload_modified_files(working_dir, *args, **kwargs)  # type: ignore[misc] # as above


def make_portable(folder: str | Path) -> None:
    """Let the tokenizer that transformers 5 saved in a folder load on transformers 4 too."""
    path = Path(folder) / "tokenizer_config.json"
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    portable = {name: value for name, value in settings.items() if name not in NOT_PORTABLE}
    if portable["tokenizer_class"] == "TokenizersBackend":  # the older name, which both know
        portable["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(portable, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def completed_card(text: str, model_type: str) -> ModelCard:
    """Return a card with the metadata by which the Hub lists our models; what it states stays.

    Raises:
        ValueError: If the metadata are not valid YAML.
    """
    # After the byte order mark that some editors write, metadata would be text.
    text = text.removeprefix("\ufeff")
    block = REGEX_YAML_BLOCK.search(text)
    # A card without metadata gets an empty block, since huggingface_hub warns of a card that has none.
    card = ModelCard(text if block else f"---\n\n---\n{text}", ignore_metadata_errors=False)
    data = cast(ModelCardData, card.data)
    stated = data.tags or []
    written = (yaml.safe_load(block[2]) or {}).get("tags") if block else None
    if isinstance(written, str):  # a single tag, which ModelCard takes for a list of its letters
        stated = [written]
    data.library_name = data.library_name or "transformers"
    data.pipeline_tag = data.pipeline_tag or TASKS[model_type]
    data.tags = list(dict.fromkeys([*stated, *TAGS[model_type]]))
    return card
