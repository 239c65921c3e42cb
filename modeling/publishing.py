"""Publishing a model as a repository that is whole: its processor and its card go up in the same commit."""

import json
import os
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard import REGEX_YAML_BLOCK

# Where the Hub lists a model, by its `model_type`: the task, and the tags by which it is found.
TASKS = {"pair_ranker": "text-ranking", "gen_fuser": "text-generation"}
TAGS = {
    "pair_ranker": ("llm-blending", "reward-model", "preference"),
    "gen_fuser": ("llm-blending", "fusion"),
}
# What transformers 5 writes in a form that transformers 4 can't read (both find the special tokens in tokenizer.json),
# or about the machine on which the tokenizer was loaded.
NOT_PORTABLE = ("backend", "extra_special_tokens", "is_local", "local_files_only")


class PublishingMixin:
    """Lets `push_to_hub` upload what belongs to a model together with it."""

    _beside: tuple[Any, str | None] = (None, None)

    def save_pretrained(self, save_directory: Any, *args: Any, processor: Any = None, **kwargs: Any) -> Any:
        """Save the model with its code, as in transformers, and its processor if it is given.

        Args:
            save_directory: The folder.
            *args: Passed on to transformers.
            processor: The processor. With `push_to_hub=True` it goes up in the commit of the model.
            **kwargs: The options of `transformers.PreTrainedModel.save_pretrained`.
        """
        save_directory = os.fspath(save_directory)  # transformers 4 uploads from nothing else
        if processor is None:
            return super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]
        self._beside = (processor, None)
        try:
            saved = super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]
        finally:
            self._beside = (None, None)
        if not kwargs.get("push_to_hub"):  # or it was saved before it went up
            processor.save_pretrained(save_directory)
        return saved

    def push_to_hub(
        self, repo_id: str, *args: Any, processor: Any = None, card: str | None = None, **kwargs: Any
    ) -> Any:
        """Upload the model with its code, as in transformers, and what belongs to it.

        Args:
            repo_id: The repository on the Hub, `org/name`; it is made if it does not exist.
            *args: Passed on to transformers.
            processor: The processor. Without one the repository has only the model, and can't read texts.
            card: Text of README.md. None keeps the one of the repository, or lets transformers write a short one. Its
                metadata are completed, see `completed_card`.
            **kwargs: The options of `transformers.PreTrainedModel.push_to_hub`: `private`, `token`, `revision`,
                `create_pr`, `commit_message` and more.

        Returns:
            What transformers returns: the commit.

        Raises:
            ValueError: If the metadata of the card are no valid YAML.
        """
        # Before anything is made on the Hub, for it may be wrong.
        text = None if card is None else str(completed_card(card, self.config.model_type))  # type: ignore[attr-defined]
        self._beside = (processor, text)
        try:
            return super().push_to_hub(repo_id, *args, **kwargs)  # type: ignore[misc]
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
            card = str(completed_card(written, self.config.model_type))  # type: ignore[attr-defined]
        path.write_text(card, encoding="utf-8")
        return super()._upload_modified_files(working_dir, *args, **kwargs)  # type: ignore[misc]


class PortableProcessorMixin:
    """Lets a processor be saved in a form that transformers 4 and 5 both load."""

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
        """Save the processor, as in transformers, in a form that transformers 4 and 5 both load."""
        saved = super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]
        make_portable(save_directory)
        return saved

    def _upload_modified_files(self, working_dir: Any, *args: Any, **kwargs: Any) -> Any:
        # With `push_to_hub=True` the files go up before `save_pretrained` returns.
        make_portable(working_dir)
        return super()._upload_modified_files(working_dir, *args, **kwargs)  # type: ignore[misc]


def completed_card(text: str, model_type: str) -> ModelCard:
    """Return a card with the metadata by which the Hub lists a model of ours; what the card states stays.

    Args:
        text: The text of README.md, with or without metadata.
        model_type: As in the model's configuration.

    Returns:
        The card.

    Raises:
        ValueError: If the metadata are no valid YAML.
    """
    # Behind the mark with which some editors begin a file, metadata would be text.
    text = text.removeprefix("\ufeff")
    block = REGEX_YAML_BLOCK.search(text)
    # A card without metadata gets a block of none, for huggingface_hub warns of a card that has no block.
    card = ModelCard(text if block else f"---\n\n---\n{text}", ignore_metadata_errors=False)
    stated = card.data.tags or []
    written = (yaml.safe_load(block[2]) or {}).get("tags") if block else None
    if isinstance(written, str):  # a single tag, which ModelCard takes for a list of its letters
        stated = [written]
    card.data.library_name = card.data.library_name or "transformers"
    card.data.pipeline_tag = card.data.pipeline_tag or TASKS[model_type]
    card.data.tags = list(dict.fromkeys([*stated, *TAGS[model_type]]))
    return card


def make_portable(folder: str | Path) -> None:
    """Let the tokenizer that transformers 5 saved in a folder load on transformers 4 too."""
    path = Path(folder) / "tokenizer_config.json"
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    portable = {name: value for name, value in settings.items() if name not in NOT_PORTABLE}
    if portable["tokenizer_class"] == "TokenizersBackend":  # its name before transformers 5, which both know
        portable["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(portable, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
