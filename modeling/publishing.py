"""Publishing a model as a repository that is whole: its processor and its card go up in the same commit."""

import json
from pathlib import Path
from typing import Any

# What transformers 5 writes in a form that transformers 4 can't read (both find the special tokens in tokenizer.json),
# or about the machine on which the tokenizer was loaded.
NOT_PORTABLE = ("backend", "extra_special_tokens", "is_local", "local_files_only")


class PublishingMixin:
    """Lets `push_to_hub` upload what belongs to a model together with it."""

    _beside: tuple[Any, str | None] = (None, None)

    def push_to_hub(
        self, repo_id: str, *args: Any, processor: Any = None, card: str | None = None, **kwargs: Any
    ) -> Any:
        """Upload the model with its code, as in transformers, and what belongs to it.

        Args:
            repo_id: The repository on the Hub, `org/name`; it is made if it does not exist.
            *args: Passed on to transformers.
            processor: The processor. Without one the repository has only the model, and can't read texts.
            card: Text of README.md. None keeps the one of the repository, or lets transformers write a short one.
            **kwargs: The options of `transformers.PreTrainedModel.push_to_hub`: `private`, `token`, `revision`,
                `create_pr`, `commit_message` and more.

        Returns:
            What transformers returns: the commit.
        """
        self._beside = (processor, card)
        try:
            return super().push_to_hub(repo_id, *args, **kwargs)  # type: ignore[misc]
        finally:
            self._beside = (None, None)

    def _upload_modified_files(self, working_dir: Any, *args: Any, **kwargs: Any) -> Any:
        # The one step between saving and uploading that transformers 4 and 5 have in common.
        processor, card = self._beside
        if processor is not None:
            processor.save_pretrained(working_dir)
            make_portable(working_dir)
        if card is not None:
            Path(working_dir, "README.md").write_text(card, encoding="utf-8")
        return super()._upload_modified_files(working_dir, *args, **kwargs)  # type: ignore[misc]


def make_portable(folder: str | Path) -> None:
    """Let the tokenizer that transformers 5 saved in a folder load on transformers 4 too."""
    path = Path(folder) / "tokenizer_config.json"
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    portable = {name: value for name, value in settings.items() if name not in NOT_PORTABLE}
    if portable["tokenizer_class"] == "TokenizersBackend":  # its name before transformers 5, which both know
        portable["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(portable, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
