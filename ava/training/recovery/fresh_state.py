"""An optimizer that begins anew with the weights that are there."""

from __future__ import annotations

from torch import Tensor

from ava.optimization.optimizers.composed import ComposedOptimizer


def forget_state(optimizer: ComposedOptimizer) -> None:
    """Let the optimizer have the state of a new one: its next step makes it.

    Moments, counters of steps and what parameters share (Prodigy's rate) go; options and learning rates stay.
    """
    optimizer.state.clear()
    for group in optimizer.param_groups:
        for name in [name for name, value in group.items() if _is_state(optimizer, name, value)]:
            del group[name]
    optimizer.judged = optimizer.training_weights = None
    if optimizer.unguided is not None:
        optimizer.unguided = 0


def _is_state(optimizer: ComposedOptimizer, name: str, value: object) -> bool:
    return isinstance(value, Tensor) and name not in optimizer.defaults and not name.startswith("initial_")
