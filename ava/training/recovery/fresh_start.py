"""Back to the initialisation of a young training; only the position in the data stays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ava.training.recovery.fresh_state import forget_state
from ava.training.recovery.memory import Memory
from ava.training.recovery.snapshots import Snapshots
from ava.training.state import Run

STAYS = ("position", "seconds", "best", "stale", "evaluated", "rollbacks")
"""What is true whatever the weights are."""


def start_anew(run: Run, memory: Memory, snapshots: Snapshots) -> None:
    """Make the run what it was before its first step.

    Args:
        run: changed in place.
        memory: holds the beginning, where the run was resumed.
        snapshots: hold it otherwise.
    """
    if not memory.is_resumed or memory.initial is None:
        assert snapshots.start is not None
        snapshots.start.restore()
        return
    go_to(run, memory.initial)
    if memory.initial["progress"]["step"] == 0:
        forget_state(run.optimizer)


def go_to(run: Run, sections: Mapping[str, Any]) -> None:
    """Make the run what a checkpoint's sections say, save what is true whatever the weights are.

    Args:
        run: changed in place; what recovery remembers stays.
        sections: as `Run.state` gave them.
    """
    stays = {name: getattr(run, name) for name in STAYS}
    recovery, run.recovery = run.recovery, None
    try:
        run.restore(sections)
    finally:
        run.recovery = recovery
    run.nonfinite_in_a_row = 0
    for name, value in stays.items():
        setattr(run, name, value)


def on_host(tree: Any) -> Any:
    """A checkpoint's sections with copies of their tensors, in the host's memory."""
    if isinstance(tree, torch.Tensor):
        return tree.detach().to("cpu", copy=True)
    if isinstance(tree, dict):
        return {key: on_host(value) for key, value in tree.items()}
    return type(tree)(map(on_host, tree)) if isinstance(tree, list | tuple) else tree
