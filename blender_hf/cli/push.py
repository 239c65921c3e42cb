"""The command `push`: a checkpoint as a complete repository on the Hub."""

import sys

from blender_hf.logs import quieten_libraries

from .command import Command, Options, Parser
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


def _options(parser: Parser) -> None:
    parser.add_argument("kind", choices=("ranker", "fuser"), help="kind of model")
    parser.add_argument("source", metavar="DIR", help="folder of the checkpoint, or the name of a bundled one")
    parser.add_argument("repo_id", metavar="ORG/NAME", help="repository, created if it does not exist")
    parser.add_argument("--fuser", metavar="ORG/NAME", help="the fuser that goes with a ranker")
    parser.add_argument("--fuser-revision", help="branch, tag or commit of that fuser")
    parser.add_argument("--card", metavar="FILE", help="model card (default: README.md in DIR, or a short one)")
    parser.add_argument("--revision", help="branch to write to (default: main)")
    parser.add_argument("--token", help="token with write access (default: that of `hf auth login`)")
    # None leaves it to the organisation.
    parser.add_argument("--private", action="store_true", default=None, help="make a new repository private")
    parser.add_argument("--create-pr", action="store_true", help="open a pull request instead of committing")
    parser.add_argument("--commit-message", metavar="TEXT", help="summary line of the commit")
    parser.add_argument("--dry-run", action="store_true", help="only list the files to upload")


COMMAND = Command(
    name="push",
    help="Upload a ranker or a fuser to the Hub",
    about="""Upload a ranker or a fuser to the Hub as a complete repository: weights, tokenizer, model card, and the
    code that loads it where this package is not installed.""",
    options=(_options,),
    run=run,
    epilog="Example: blender-hf push ranker runs/ranker org/pair-ranker --fuser org/gen-fuser --dry-run",
)
