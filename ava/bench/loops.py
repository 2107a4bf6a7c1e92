"""The loops that are compared, by name."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import torch

from ava.bench.arms import ava_loop, bare
from ava.bench.turns import Gate
from ava.bench.workloads import Workload
from ava.tasks.task import Task

LOOPS = ("bare", "ava", "ava-silent", "lightning", "transformers")
"""`ava` logs as a default run does; `ava-silent` and the others log nothing."""

OWN = ("ava", "ava-silent")


def loop_named(name: str, workload: Workload, task: Task, model: torch.nn.Module) -> Callable[[Gate[Any]], None]:
    """The loop called `name`, ready to train `model` on a gate's batches; others' packages are imported here."""
    if name in OWN:
        return functools.partial(ava_loop.train, workload, task, model, name == "ava")
    if name == "lightning":
        from ava.bench.arms import lightning_loop

        return functools.partial(lightning_loop.train, workload, model)
    if name == "transformers":
        from ava.bench.arms import transformers_loop

        return functools.partial(transformers_loop.train, workload, model)
    return functools.partial(bare.train, workload, model)


def is_installed(name: str) -> bool:
    """Whether the package of a loop is at hand."""
    return name in ("bare", *OWN) or importlib.util.find_spec(name) is not None
