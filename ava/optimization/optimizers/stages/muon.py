"""Muon: a running mean of gradients, and its orthogonal part."""

from __future__ import annotations

from ava.optimization.optimizers.arithmetic import maximum, sqrt
from ava.optimization.optimizers.sentence import Hyperparameters, Operands, Slot, stage


@stage("moments", Slot("momentum_buffer"))
def running_mean(t: Operands, h: Hyperparameters) -> None:
    """The mean of past gradients: u = m <- mu m + (1 - mu) g."""
    t.momentum_buffer = h.momentum * t.momentum_buffer + (1 - h.momentum) * t.g
    t.u = t.momentum_buffer


@stage("moments")
def nesterov_mean(t: Operands, h: Hyperparameters) -> None:
    """Where the mean will have gone: u = mu m + (1 - mu) g."""
    t.u = h.momentum * t.momentum_buffer + (1 - h.momentum) * t.g


@stage("direction")
def orthogonal(t: Operands, h: Hyperparameters) -> None:
    """All of a matrix's directions at the same pace: u <- sqrt(max(1, R / C)) newton_schulz(u).

    The factor keeps the outputs' pace where there are more of them than inputs.
    """
    # Here, so that knowing the sentence costs no torch.
    from ava.optimization.optimizers.matrices.newton_schulz import newton_schulz

    t.u = sqrt(maximum(1.0, t.rows / t.cols)) * t.apply(newton_schulz, t.u, h.ns_steps)
