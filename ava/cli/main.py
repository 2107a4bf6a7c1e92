"""`ava`: the registry, the measurements, and the same training as `ava-train`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence

import ava
from ava.cli.exits import run_command
from ava.errors import InputError, nearest
from ava.registry import REGISTRIES

_HELP = f"""\
ava COMMAND

  ava train [overrides]      train; the same as ava-train
  ava find-lr [overrides]    a learning rate for that training; the same as ava-find-lr
  ava find-batch-size [overrides]  the largest batch that fits that training
  ava schedule [overrides]   the schedule that a training would follow, drawn; nothing is trained
  ava export RUN --format F  a run's weights, as they are or in int8, int4 or int2, checked against the trained model
  ava list [SORT]            what can be chosen, with every option; SORT: {", ".join(REGISTRIES)}
  ava bench loop             what the training loop costs beside a bare PyTorch loop
  ava bench optimizers       what a step of each optimizer costs over torch's fused AdamW, beside other libraries
  ava bench agmohd           what AGMOHD's step and state cost beside torch's fused AdamW, with and without clipping
  ava bench convergence      what every optimizer's defaults reach, over what AdamW's do
  ava bench learning_rate    what the ways to a learning rate reach, and what they cost
  ava bench finders          what learning-rate finders leave behind, refuse, suggest and cost, beside others'
  ava bench plateaus         how often noise is taken for a plateau, and how long a real one goes unseen
  ava bench stability        how often trainings fail, what heals them, what that costs; faults on purpose
  ava bench snapshots        what keeping sound states in memory costs a training, and comparing ranks
  ava bench false_alarms     how often sound trainings alarm the hindrance detector, and what faults it sees
  ava bench advice           how often a sound training is given advice, and whether following it helps a bad one
  ava bench health           what measuring, guarding and clipping gradients costs over torch's clip_grad_norm_
  ava bench surgery          what reconciling gradients costs over the plain sum of losses, and what its gate misses
  ava bench multitask        what surgery gains over plainly summing losses, on objectives that conflict
  ava bench landscapes       where surgery methods end on the toy problems of their papers
  ava bench precision        what each precision costs and keeps, and bf16 beside the same loop by hand
  ava bench gpu              what has to be measured on an accelerator: MFU, fp8, idle time, synchronisations
  ava bench compiled         what compiling model and loss gains over plain steps, and what it costs to start
  ava bench quantization     what int8 and int4 save in time and size, and what training for them gains
  ava bench cross_entropy    memory and time of the loss over a large vocabulary, by chunks and at once
  ava bench packing          documents packed whole, beside one stream and beside a row for each
  ava bench activations      what activation checkpointing saves, and what it costs
  ava --version              the version
"""
_COMMANDS = ("train", "find-lr", "find-batch-size", "schedule", "export", "list", "bench")
_MEASUREMENTS = (
    "loop",
    "optimizers",
    "agmohd",
    "convergence",
    "learning_rate",
    "stability",
    "snapshots",
    "finders",
    "plateaus",
    "false_alarms",
    "health",
    "advice",
    "surgery",
    "multitask",
    "landscapes",
    "compiled",
    "activations",
    "cross_entropy",
    "packing",
    "quantization",
    "precision",
    "gpu",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: what follows the command's name; None takes it from the process.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["train"]:
        from ava.cli import train

        return train.main(words[1:])
    if words[:1] == ["find-lr"]:
        from ava.cli import find_lr

        return find_lr.main(words[1:])
    if words[:1] == ["find-batch-size"]:
        from ava.cli import find_batch_size

        return find_batch_size.main(words[1:])
    return run_command("ava", lambda: _dispatch(words))


def _dispatch(words: list[str]) -> int:
    command, rest = (words[0], words[1:]) if words else ("--help", [])
    if command == "schedule":
        from ava.cli.schedule import schedule

        return schedule(rest)
    if command == "export":
        from ava.cli.export import export

        return export(rest)
    if command in ("--help", "-h") or rest[:1] in (["--help"], ["-h"]):
        print(_HELP, end="")
        return 0
    if command == "--version":
        print(f"ava {ava.__version__}")
        return 0
    if command == "list":
        from ava.cli.listing import list_parts

        return list_parts(rest)
    if command == "bench":
        return _bench(rest)
    raise InputError(
        f"there is no command {command!r}; there are: {', '.join(_COMMANDS)}.", hint=nearest(command, _COMMANDS)
    )


def _bench(words: list[str]) -> int:
    measurement, rest = (words[0], words[1:]) if words else (None, [])
    if measurement not in _MEASUREMENTS:
        problem = "a measurement has to be named"
        if measurement is not None:
            problem = f"there is no measurement {measurement!r}"
        hint = nearest(measurement, _MEASUREMENTS, "ava bench {}") if measurement is not None else None
        raise InputError(
            f"{problem}; there are: {', '.join(_MEASUREMENTS)}.", hint=hint or "Write `ava bench loop`, for example."
        )
    measure: Callable[[list[str]], int] = importlib.import_module(f"ava.bench.{measurement}").main
    return measure(rest)


if __name__ == "__main__":
    sys.exit(main())
