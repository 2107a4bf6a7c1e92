"""`ava-find-lr`: the LR range test of the training that the overrides describe, without the training."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ava.cli.arguments import Parser
from ava.cli.exits import leave, run_command

if TYPE_CHECKING:
    from ava.config.schema import Config
    from ava.optimization.learning_rate.finder.findings import Findings

_HELP = """\
ava-find-lr finds a learning rate: ava-find-lr [options] [overrides]

It takes lr_finder.num_steps training steps while the rate rises from lr_finder.min_lr to lr_finder.max_lr, with the
optimizer, batches, precision and ranks of the training that the overrides describe, and reads the loss.

  ava-find-lr                                              the default training
  ava-find-lr optimizer=lion scheduler=onecycle            the one that ava-train would run with the same overrides
  ava-find-lr lr_finder.max_lr=10 lr_finder.num_steps=200  another range
  ava-find-lr lr_finder.seeds=5                            five tests, and their band
  ava-train lr_finder.enabled=true                         test, then train with what is suggested

It writes lr_finder.png, lr_finder.csv and lr_finder.json into run_dir, and leaves no run there: ava-train may follow.
Overrides are those of ava-train (`ava-train --help`); -cd, --config-dir DIR adds configuration files of your own.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: what follows the command's name; None takes it from the process.

    Returns:
        The exit code: 0 found, 2 bad input or no suggestion, 1 failed, 130 or 143 interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    return leave(run_command("ava-find-lr", lambda: _dispatch(words)))


def _dispatch(words: list[str]) -> int:
    parser = Parser("ava-find-lr")
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--config-dir", "-cd", action="append", default=[], metavar="DIR")
    options = parser.split(words)
    if options.help:
        print(_HELP, end="")
        return 0
    from ava.config.paths import check_config_dirs
    from ava.config.places import check_places
    from ava.config.resume import prepare
    from ava.config.saved import with_lr

    config, plan = prepare(options.overrides, check_config_dirs(options.config_dir))
    check_places(config, plan)
    from ava.config.search import find_lr

    found = find_lr(config, saved=plan)
    if found is not None:
        findings, folder = found
        _tell(with_lr(config, findings.chosen.lr), findings, folder, words)
    return 0


def _tell(config: Config, findings: Findings, folder: Path, words: Sequence[str]) -> None:
    """The suggestion, the others beside it, and how to use it."""
    lr, centre = findings.chosen.lr, findings.centre
    print(f"suggested learning rate {lr:.3g} ({findings.method}): {findings.chosen.reason}")
    for method, one in findings.suggestions.items():
        if method != findings.method:
            print(f"  {method} would say {one.lr:.3g}: {one.reason}")
    if len(findings.curves) > 1:
        told = ", ".join("none" if own is None else f"{own:.3g}" for own in findings.of_seeds)
        print(f"  each of the {len(findings.curves)} seeds alone: {told}")
    print(f"{len(centre.lr)} steps from {centre.lr[0]:.3g} to {centre.lr[-1]:.3g} ({centre.stopped})")
    print(f"wrote {folder / 'lr_finder.png'}, lr_finder.csv and lr_finder.json")
    changed = ("lr_finder.", "optimizer.lr=", "optimizer.groups=", "run_dir=")
    kept = [word for word in words if not word.startswith(changed)]
    groups = (
        [f"optimizer.groups={_flow(config.optimizer.options['groups'])}"] if config.optimizer.options["groups"] else []
    )
    print("train with it: " + shlex.join(["ava-train", *kept, f"optimizer.lr={lr:.3g}", *groups]))


def _flow(groups: Sequence[Mapping[str, Any]]) -> str:
    """Groups as an override spells them."""
    told = [{k: float(f"{v:.3g}") if k == "lr" and v is not None else v for k, v in group.items()} for group in groups]
    return yaml.safe_dump(told, default_flow_style=True, width=10_000, sort_keys=False).strip()


if __name__ == "__main__":
    sys.exit(main())
