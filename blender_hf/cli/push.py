"""The command `push`: a checkpoint as a complete repository on the Hub."""

import sys

from blender_hf.logs import quieten_libraries

from .command import Command, Options, option
from .output import check_readable


def run(options: Options) -> None:
    """Publish a checkpoint, or list its files."""
    if options.card is not None:
        check_readable(options.card)
    from blender_hf.export.hub import SUPERSEDED, Publication, check_target, files_of, prepared, upload

    quieten_libraries()
    check_target(options.revision, options.create_pr)
    publication = Publication(
        options.kind, options.source, options.repo_id, options.fuser, options.fuser_revision, options.card
    )
    with prepared(publication) as folder:
        if options.dry_run:
            sys.stdout.writelines(f"{size:>12}  {name}\n" for name, size in files_of(folder).items())
            return
        url = upload(
            folder,
            options.repo_id,
            revision=options.revision,
            token=options.token,
            private=options.private,
            create_pr=options.create_pr,
            commit_message=options.commit_message,
            delete_patterns=SUPERSEDED,
        )
    sys.stdout.write(f"{url}\n")


COMMAND = Command(
    name="push",
    help="Upload a ranker or a fuser to the Hub",
    about="""Upload a ranker or a fuser to the Hub as a complete repository: weights, tokenizer, model card, and the
    code that loads it where this package is not installed.""",
    options=(
        option("kind", "kind of model", choices=("ranker", "fuser")),
        option("source", "folder of the checkpoint, or the name of a bundled one", metavar="DIR"),
        option("repo_id", "repository, created if it does not exist", metavar="ORG/NAME"),
        option("--fuser ORG/NAME", "the fuser that goes with a ranker"),
        option("--fuser-revision REVISION", "branch, tag or commit of that fuser"),
        option("--card FILE", "model card (default: README.md in DIR, or a short one)"),
        option("--revision BRANCH", "branch to write to (default: main)"),
        option("--token TOKEN", "token with write access (default: that of `hf auth login`)"),
        # None leaves it to the organisation.
        option("--private", "make a new repository private", action="store_true", default=None),
        option("--create-pr", "open a pull request instead of committing"),
        option("--commit-message TEXT", "summary line of the commit"),
        option("--dry-run", "only list the files to upload"),
    ),
    run=run,
    epilog="Example: blender-hf push ranker runs/ranker org/pair-ranker --fuser org/gen-fuser --dry-run",
)
