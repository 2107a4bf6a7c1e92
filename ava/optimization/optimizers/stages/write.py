"""Write: puts the update into the parameter."""

from __future__ import annotations

from ava.optimization.optimizers.sentence import Hyperparameters, Operands, stage


@stage("write")
def descend(t: Operands, h: Hyperparameters) -> None:
    """One step down: p <- p - lr u."""
    t.p = t.p - t.lr * t.u
