"""Adam for the few numbers that a method learns: float64 on the CPU, a state that is plain tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Adam:
    """Moves one vector against its gradient.

        m = b1 m + (1 - b1) g,    v = b2 v + (1 - b2) g^2
        x - lr * m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps)

    Args:
        lr: learning rate.
        betas: b1 and b2.
        eps: eps.

    Reference: Kingma & Ba 2015, https://arxiv.org/abs/1412.6980
    """

    def __init__(self, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        self.lr, self.betas, self.eps = lr, betas, eps
        self._steps = 0
        self._moments: tuple[Tensor, Tensor] | None = None

    def step(self, value: Tensor, gradient: Tensor) -> Tensor:
        """The vector after one step.

        Args:
            value: (T,) the vector.
            gradient: (T,) its gradient, all finite.
        """
        first, second = self._moments or (torch.zeros_like(value), torch.zeros_like(value))
        self._steps += 1
        first = self.betas[0] * first + (1 - self.betas[0]) * gradient
        second = self.betas[1] * second + (1 - self.betas[1]) * gradient.square()
        self._moments = first, second
        unbiased = [m / (1 - beta**self._steps) for m, beta in zip(self._moments, self.betas, strict=True)]
        return value - self.lr * unbiased[0] / (unbiased[1].sqrt() + self.eps)

    def state_dict(self) -> dict[str, Any]:
        """The number of steps and both moments."""
        return {"steps": self._steps, "moments": None if self._moments is None else list(self._moments)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self._steps = int(state["steps"])
        self._moments = None if state["moments"] is None else (state["moments"][0], state["moments"][1])
