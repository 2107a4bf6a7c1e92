"""`ava-train`: one run, or with -m a sweep of them. Also `python -m ava.cli.train`, which torchrun starts."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from ava.cli.arguments import parse_arguments
from ava.cli.exits import leave, run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: what follows the command's name; None takes it from the process.

    Returns:
        The exit code: 0 done, 2 bad input, 1 failed, 130 or 143 interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    return leave(run_command("ava-train", lambda: _dispatch(words)))


def _dispatch(words: list[str]) -> int:
    options = parse_arguments(words)
    if options.version:
        import ava

        print(f"ava {ava.__version__}")
        return 0
    from ava.config.paths import check_config_dirs

    config_dirs = check_config_dirs(options.config_dir)
    if options.help:
        from ava.cli.help import help_text

        print(help_text(config_dirs), end="")
        return 0
    if options.shell_completion:
        from ava.cli.completion import complete

        return complete(options.shell_completion, config_dirs)
    if options.multirun:
        return _sweep(options, config_dirs)
    if options.cfg:
        return _show(options, config_dirs)
    return _train(options, config_dirs)


def _train(options: Namespace, config_dirs: Sequence[Path]) -> int:
    from ava.config.places import check_places
    from ava.config.resume import prepare

    config, plan = prepare(options.overrides, config_dirs)
    check_places(config, plan)
    if config.resume == "auto" and plan is None and os.environ.get("RANK", "0") == "0":
        print("resume=auto: no earlier run to continue, a new one starts", flush=True)
    from ava.config.build import run

    run(config, saved=plan)
    return 0


def _show(options: Namespace, config_dirs: Sequence[Path]) -> int:
    """Print the configuration that the overrides make, once it has been checked."""
    from ava.config.compose import compose_raw
    from ava.config.resume import prepare
    from ava.config.saved import plain_yaml, to_yaml

    config, plan = prepare(options.overrides, config_dirs)
    if options.resolve or plan is not None:
        print(to_yaml(config), end="")
    else:
        print(plain_yaml(compose_raw(options.overrides, config_dirs).unresolved), end="")
    return 0


def _sweep(options: Namespace, config_dirs: Sequence[Path]) -> int:
    from ava.cli.sweep import sweep
    from ava.errors import InputError

    if options.cfg:
        raise InputError("--cfg shows one run; -m makes many.", hint="Leave one of them out.")
    return sweep(options.overrides, config_dirs)


if __name__ == "__main__":
    sys.exit(main())
