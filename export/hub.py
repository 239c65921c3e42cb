"""Publishing a checkpoint on the Hub as a complete repository that loads without this package."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers import PreTrainedModel

from blender_hf.errors import CheckpointError, HubError, InputError, chosen, first_line
from blender_hf.loading.checkpoints import check_processor, locate, save_portable
from blender_hf.loading.load_errors import reason_for
from blender_hf.modeling import CausalGenFuser, GenFuser, GenFuserProcessor, PairRanker, PairRankerProcessor

from .cards import CAUSAL_FUSER, card_text, find_card
from .graph import FLOAT16_FILE, FUSER_GRAPHS, INT8_FILE, MODEL_FILE, WEIGHTS_SUFFIX
from .provenance import WEIGHTS, outdated, require_metadata, statement_of

CLASSES: dict[str, tuple[type[PairRanker] | type[GenFuser], type[PairRankerProcessor] | type[GenFuserProcessor]]] = {
    "ranker": (PairRanker, PairRankerProcessor),
    "fuser": (GenFuser, GenFuserProcessor),
}
# Files of an earlier state of a repository that would be loaded instead of what is published, or beside it.
SUPERSEDED = (
    "onnx/*",
    *(name + end for name in (MODEL_FILE, INT8_FILE, FLOAT16_FILE, *FUSER_GRAPHS) for end in ("", WEIGHTS_SUFFIX)),
    "model.safetensors",
    "model-?????-of-?????.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model-?????-of-?????.bin",
    "pytorch_model.bin.index.json",
)
HINTS = {
    401: "log in with `hf auth login`, or give a token that may write",
    403: "the token may not write there",
    404: "there is no such repository, or the token may not see it",
    409: "somebody else has changed it meanwhile; try again",
}


@dataclass(frozen=True)
class Publication:
    """A checkpoint to publish, and its repository.

    Args:
        kind: "ranker" or "fuser".
        source: Folder of the checkpoint, in any supported format, or the name of a bundled one.
        repo_id: The repository, `org/name`.
        fuser: For a ranker the Hub id of the fuser that goes with it; None keeps that of its configuration.
        fuser_revision: Branch, tag or commit of that fuser.
        card: File with the text of the card; None takes README.md of the source, or writes a short one.
    """

    kind: str
    source: str | Path
    repo_id: str
    fuser: str | None = None
    fuser_revision: str | None = None
    card: str | Path | None = None

    def __post_init__(self) -> None:
        chosen(CLASSES, self.kind, "kind of model")
        if self.fuser is None and self.fuser_revision is not None:
            raise InputError("fuser_revision is given without a fuser")
        if self.fuser is not None and self.kind != "ranker":
            raise InputError("only a ranker names the fuser that goes with it")
        for name in filter(None, (self.repo_id, self.fuser)):
            check_repo_id(name)


@contextmanager
def prepared(publication: Publication) -> Iterator[Path]:
    """Create the repository in a temporary folder, which is yielded and removed afterwards.

    The checkpoint is loaded first, so that one that lacks weights is never published.

    Raises:
        CheckpointError: If the source is an incomplete checkpoint, or has ONNX files that are damaged or of other
            weights.
        InputError: If the source or the card can't be read, or a ranker names a fuser that is not on the Hub.
    """
    folder = Path(locate(publication.source))
    if not folder.is_dir():
        raise InputError(f"there is no folder {str(publication.source)!r}; give the folder of a checkpoint")
    model_class, processor_class = CLASSES[publication.kind]
    try:
        model = model_class.from_pretrained(folder, dtype="auto")
        processor = processor_class.from_pretrained(folder)
        if isinstance(processor, PairRankerProcessor):
            check_processor(model.config, processor)
    # Loading calls into four libraries, each with its own errors; the user needs one line in every case.
    except Exception as error:
        reason = reason_for(error, str(folder)) or first_line(error)
        raise CheckpointError(f"{folder} is not a whole {publication.kind}: {reason}") from error
    if publication.fuser is not None:
        model.config.fuser, model.config.fuser_revision = publication.fuser, publication.fuser_revision
    elif publication.kind == "ranker" and model.config.fuser is not None:
        _check_fuser(model.config.fuser)
    _check_onnx(folder, model)
    card = _card(CAUSAL_FUSER if isinstance(model, CausalGenFuser) else publication.kind, publication, folder)
    with TemporaryDirectory() as made:
        save_portable(model, processor, made)
        Path(made, "README.md").write_text(card, encoding="utf-8")
        if (folder / "onnx").is_dir():
            shutil.copytree(folder / "onnx", Path(made, "onnx"))
        yield Path(made)


def files_of(folder: Path) -> dict[str, int]:
    """Return the relative names of all files of a repository with their sizes in bytes."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}


def upload(
    folder: Path,
    repo_id: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    private: bool | None = None,
    create_pr: bool = False,
    commit_message: str | None = None,
    repo_type: str = "model",
    delete_patterns: Sequence[str] | None = None,
) -> str:
    """Upload a folder in one commit: all of it, or nothing.

    Args:
        folder: The whole repository, as from `prepared`, or its new files.
        repo_id: The repository; created if it does not exist.
        revision: The branch, created if it does not exist; None is `main`.
        token: A token with write access; None is that of `hf auth login`.
        private: Whether a new repository is private; None leaves it to the organisation.
        create_pr: Open a pull request instead of committing.
        commit_message: Summary of the commit.
        repo_type: "model" or "dataset".
        delete_patterns: Which other files of the repository the same commit removes, such as `SUPERSEDED`.

    Returns:
        The URL of the commit, or of the pull request.

    Raises:
        InputError: If both a pull request and a branch are requested.
        HubError: If the Hub can't be reached or refuses.
    """
    check_target(revision, create_pr)
    api = HfApi(token=token, library_name="blender-hf")
    message = commit_message or f"Upload {repo_id.split('/')[-1]}"
    try:
        api.create_repo(repo_id, private=private, repo_type=repo_type, exist_ok=True)
        if revision is not None and not revision.startswith("refs/pr"):
            api.create_branch(repo_id, branch=revision, repo_type=repo_type, exist_ok=True)
        made = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            repo_type=repo_type,
            revision=revision,
            create_pr=create_pr,
            commit_message=message,
            delete_patterns=None if delete_patterns is None else list(delete_patterns),
        )
    # The supported releases of huggingface_hub use different HTTP libraries.
    except Exception as error:
        raise HubError(f"can't publish {repo_id}: {_explained(error)}") from error
    return str(made.pr_url or made.commit_url)


def _card(kind: str, publication: Publication, folder: Path) -> str:
    try:
        return card_text(kind, publication.repo_id, find_card(folder, publication.card))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"can't read the card {publication.card or folder / 'README.md'}: {error}") from None
    # Errors of YAML have many lines.
    except Exception as error:
        raise InputError(f"the metadata of the card can't be read: {first_line(error)}") from error


def _check_fuser(fuser: str) -> None:
    try:
        check_repo_id(fuser)
    except InputError as error:
        raise InputError(
            f"the ranker's configuration names its fuser, which others can't load: {error}. Name one with --fuser"
        ) from None


def _check_onnx(folder: Path, model: PreTrainedModel) -> None:
    weights = statement_of(model)[WEIGHTS]
    for path in sorted((folder / "onnx").rglob("*.onnx")):
        # Files of other exporters don't state their weights.
        if require_metadata(path).get(WEIGHTS, weights) != weights:
            raise CheckpointError(outdated(path, folder))


def check_target(revision: str | None, create_pr: bool) -> None:
    """Raise InputError if both a pull request and a branch are requested: the Hub opens them only against `main`."""
    if create_pr and revision not in (None, "main"):
        raise InputError(f"a pull request is opened against main, not {revision!r}; leave out one of the two")


def check_repo_id(repo_id: str) -> None:
    """Raise InputError if a name is not that of a repository, `org/name`."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise InputError(f"{repo_id!r} is no name of a repository: {first_line(error)}") from None
    if repo_id.count("/") != 1:
        raise InputError(f"{repo_id!r} is no full name of a repository; write it as org/name")


def _explained(error: Exception) -> str:
    status = error.response.status_code if isinstance(error, HfHubHTTPError) and error.response is not None else None
    hint = "it was the Hub's fault, so try again" if status is not None and status >= 500 else HINTS.get(status or 0)
    return first_line(error) + (f" ({hint})" if hint else "")
