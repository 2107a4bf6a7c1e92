"""The options of a command whose other words are overrides, and those of `ava-train`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from ava.errors import InputError, nearest


class Parser(argparse.ArgumentParser):
    """argparse, whose errors are bad input like any other.

    Args:
        prog: the command.
    """

    def __init__(self, prog: str) -> None:
        super().__init__(prog=prog, add_help=False, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Refuse the command line."""
        raise InputError(f"{message}.", hint="See --help.")

    def split(self, argv: Sequence[str]) -> argparse.Namespace:
        """Split a command line into options and `overrides`, all words that are none.

        Raises:
            InputError: an option is unknown or lacks its value; names the nearest.
        """
        options, rest = self.parse_known_args(list(argv))
        unknown = [word for word in rest if word.startswith("-")]
        if unknown:
            flags = [flag for action in self._actions for flag in action.option_strings]
            name = unknown[0].partition("=")[0]
            raise InputError(f"there is no option {name}.", hint=nearest(name, flags) or "See --help.")
        options.overrides = rest
        return options


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Split a command line into options and overrides.

    Args:
        argv: what follows the command's name.

    Returns:
        The options `help`, `version`, `cfg`, `resolve`, `config_dir`, `multirun`, `shell_completion`; `overrides`.

    Raises:
        InputError: an option is unknown or lacks its value; names the nearest.
    """
    parser = Parser("ava-train")
    add: Any = parser.add_argument
    add("--help", "-h", action="store_true")
    add("--version", action="store_true")
    add("--cfg", "-c", choices=["job"])
    add("--resolve", action="store_true")
    add("--config-dir", "-cd", action="append", default=[], metavar="DIR")
    add("--multirun", "-m", action="store_true")
    add("--shell-completion", "-sc", metavar="install=SHELL|uninstall=SHELL|query=SHELL")
    # Completion passes the words of another command line in the environment, never here.
    options = parser.split(argv)
    if options.resolve and not options.cfg:
        raise InputError("--resolve says how --cfg shows the configuration.", hint="Add --cfg job.")
    return options
