"""Direction: where the update points, made from what the moments remember."""

from __future__ import annotations

from ava.optimization.optimizers.sentence import Hyperparameters, Operands, stage


@stage()
def along_gradient(t: Operands, h: Hyperparameters) -> None:
    """Steepest descent: u = g."""
    t.u = t.g


@stage()
def along_momentum(t: Operands, h: Hyperparameters) -> None:
    """Where the momentum goes: u = b."""
    t.u = t.momentum_buffer


@stage()
def nesterov(t: Operands, h: Hyperparameters) -> None:
    """Where the momentum will have gone: u = g + mu b. Sutskever et al. 2013."""
    t.u = t.g + h.momentum * t.momentum_buffer


@stage(counts=True)
def divide(t: Operands, h: Hyperparameters) -> None:
    """Adam's signal over noise, both freed of their zero start: u = (m / bc1) / (sqrt(v) / sqrt(bc2) + eps)."""
    beta1, beta2 = h.betas
    correction1, correction2 = 1 - beta1**t.step, 1 - beta2**t.step
    t.u = t.exp_avg / ((t.exp_avg_sq.sqrt() / correction2**0.5 + h.eps) * correction1)


@stage()
def sign(t: Operands, h: Hyperparameters) -> None:
    """Every coordinate at the same pace: u becomes -1, 0 or 1."""
    t.u = t.u.sign()
