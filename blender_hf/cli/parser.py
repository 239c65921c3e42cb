"""The parser of the command line: errors of one line, with a suggestion for what is misspelt."""

import argparse
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

# A name is close enough to be meant if so much of both is the same.
LIKENESS = 0.6


class Parser(argparse.ArgumentParser):
    """Parses the arguments of the program, or of one command."""

    def error(self, message: str) -> NoReturn:
        """Exit with an error of one line: the usage of a command with thirty options would hide it."""
        self.exit(2, f"blender-hf: error: {message} (see `{self.prog} --help`)\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse the arguments; the unknown ones are an error here, where it is known which options there are."""
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(self._about_unknown(unknown))
        return options, unknown

    def _about_unknown(self, arguments: Sequence[str]) -> str:
        flags = [argument.partition("=")[0] for argument in arguments if argument.startswith("-")]
        if not flags:
            return f"unexpected argument {arguments[0]!r}"
        known = [flag for action in self._actions for flag in action.option_strings]
        return f"unknown option {flags[0]}{did_you_mean(flags[0], known)}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a suggestion to put behind an unknown name; nothing if no known one is like it.

    >>> did_you_mean("--ouptut", ["--output", "--json"])
    '; did you mean --output?'
    """
    close = get_close_matches(name.lower().replace("_", "-"), list(known), n=1, cutoff=LIKENESS)
    return f"; did you mean {close[0]}?" if close else ""
