"""The command `push`: a checkpoint as a whole repository on the Hub."""

import argparse
import sys

from blender_hf.logs import quieten_libraries

from .options import Commands

PUSH_ABOUT = """Upload a ranker or a fuser to the Hub as a whole repository: weights, tokenizer, card, and the code with
which it loads where this package is not installed."""


def add(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "push",
        help="Upload a ranker or a fuser to the Hub",
        description=" ".join(PUSH_ABOUT.split()),
        epilog="Example: blender-hf push ranker runs/ranker org/pair-ranker --fuser org/gen-fuser --dry-run",
        allow_abbrev=False,
    )
    parser.add_argument("kind", choices=("ranker", "fuser"), help="what it is")
    parser.add_argument("source", metavar="DIR", help="folder of the checkpoint, or the name of a bundled one")
    parser.add_argument("repo_id", metavar="ORG/NAME", help="the repository, which is made if it does not exist")
    parser.add_argument("--fuser", metavar="ORG/NAME", help="the fuser that goes with a ranker")
    parser.add_argument("--fuser-revision", help="branch, tag or commit of that fuser")
    parser.add_argument("--card", metavar="FILE", help="text of the card (default: README.md in DIR, or a short one)")
    parser.add_argument("--revision", help="branch to write to (default: main)")
    parser.add_argument("--token", help="token that may write (default: that of `hf auth login`)")
    # None leaves it to the organisation.
    parser.add_argument("--private", action="store_true", default=None, help="a new repository is private")
    parser.add_argument("--create-pr", action="store_true", help="open a pull request instead of committing")
    parser.add_argument("--commit-message", metavar="TEXT", help="summary of the commit")
    parser.add_argument("--dry-run", action="store_true", help="only list what would be uploaded")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Publish a checkpoint as the command line says, or list its files.

    Raises:
        BlenderError: If the checkpoint or the card can't be read, or the Hub refuses.
    """
    # These load torch and transformers, for which `--help` need not wait.
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
