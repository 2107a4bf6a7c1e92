"""`ava find-batch-size`: the largest batch that fits the training that the overrides describe, without the training."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ava.cli.arguments import Parser
from ava.cli.exits import leave, run_command
from ava.errors import InputError

if TYPE_CHECKING:
    from ava.training.batch_size import FoundBatch

_HELP = """\
ava find-batch-size finds the largest batch that fits: ava find-batch-size [options] [overrides]

It takes real training steps with batches of growing size, with the model, optimizer, precision and micro-batches of the
training that the overrides describe, and measures their memory. A step that it expects to exceed a host's limit is not
tried.

  ava find-batch-size                                    the default training
  ava find-batch-size task=stdlib_lm precision=bf16      the one that ava-train would run with the same overrides
  ava find-batch-size trainer.accumulate=4               the largest batch in 4 micro-batches per rank
  ava find-batch-size --memory-limit 2GiB                within so much (B, KB, MB, GB, KiB, MiB, GiB) on each rank
  ava-train trainer.accumulate=auto                      keep trainer.batch_size, and find the fewest micro-batches

Without a limit it is nine tenths of a host's free memory, and all of a GPU's. It writes batch_size.json into run_dir,
and leaves no run there: ava-train may follow.
Overrides are those of ava-train (`ava-train --help`); -cd, --config-dir DIR adds configuration files of your own.
"""
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def main(argv: Sequence[str]) -> int:
    """Run the command.

    Args:
        argv: what follows the command's name.

    Returns:
        The exit code: 0 found, 2 bad input or nothing fits, 1 failed, 130 or 143 interrupted.
    """
    words = list(argv)
    return leave(run_command("ava find-batch-size", lambda: _dispatch(words)))


def _dispatch(words: list[str]) -> int:
    parser = Parser("ava find-batch-size")
    parser.add_argument("--help", "-h", action="store_true")
    parser.add_argument("--memory-limit", metavar="SIZE")
    parser.add_argument("--config-dir", "-cd", action="append", default=[], metavar="DIR")
    options = parser.split(words)
    if options.help:
        print(_HELP, end="")
        return 0
    limit = None if options.memory_limit is None else read_bytes(options.memory_limit)
    from ava.config.paths import check_config_dirs
    from ava.config.places import check_places
    from ava.config.resume import prepare

    config, plan = prepare(options.overrides, check_config_dirs(options.config_dir))
    check_places(config, plan)
    from ava.config.fitting import find_batch_size

    found = find_batch_size(config, saved=plan, limit=limit)
    if found is not None:
        batch, folder = found
        _tell(batch)
        print(f"wrote {folder / 'batch_size.json'}")
        launch = ["ava-train"]
        if batch.ranks > 1:
            launch = ["torchrun", "--nproc-per-node", str(batch.ranks), "-m", "ava.cli.train"]
        print("train with it: " + shlex.join([*launch, *_follow(batch, options.overrides, options.config_dir)]))
    return 0


def read_bytes(text: str) -> int:
    """A size as people write it, such as 2GiB, in bytes.

    Raises:
        InputError: it is none.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    if match is None or match[2].upper() not in _UNITS or float(match[1]) == 0:
        raise InputError(
            "must be a size with B, KB, MB, GB, KiB, MiB or GiB.", key="--memory-limit", value=text,
            hint="Write 2GiB, for example.",
        )  # fmt: skip
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _tell(found: FoundBatch) -> None:
    shares = [f"{found.micro_batch} a micro-batch"]
    shares += [f"{found.accumulate} micro-batches"] if found.accumulate > 1 else []
    shares += [f"{found.ranks} ranks"] if found.ranks > 1 else []
    peak = "" if found.peak is None else f", {found.peak / 2**20:,.0f} MiB"
    print(f"largest batch that fits: {found.batch_size} samples ({' x '.join(shares)}{peak})")
    if found.ended == "data":
        print("the whole training split fits: it is the data that sets the limit")
    elif found.limit is not None:
        print(f"the limit is {found.limit / 2**20:,.0f} MiB; {len(found.trials)} steps were tried")


def _follow(found: FoundBatch, overrides: Sequence[str], config_dirs: Sequence[str]) -> list[str]:
    kept = [word for word in overrides if not word.startswith(("trainer.batch_size=", "run_dir="))]
    return [*kept, f"trainer.batch_size={found.batch_size}", *(f"--config-dir={folder}" for folder in config_dirs)]
