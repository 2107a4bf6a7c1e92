"""Fast adaptive multitask optimization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ava.errors import InputError
from ava.optimization.gradients.surgery.adam import Adam
from ava.optimization.gradients.surgery.losses import losses_of, refuse_another_number, refuse_below
from ava.optimization.gradients.surgery.objectives import Objectives
from ava.registry import NonNegativeFloat, PositiveFloat, surgery

_SHIFT = 1e-8
"""Added to the losses, as the authors' code does: a loss may be exactly at its minimum."""


@surgery(needs="losses")
class Famo:
    """All losses fall at the same relative rate, from the losses alone.

        D_i = L_i - min_loss + 1e-8,    z = softmax(xi)
        w_i = T c z_i / D_i,            c = 1 / sum_j z_j / D_j
        delta = J_softmax(xi)^T (log D(before the step) - log D(after it))
        xi follows Adam on delta + gamma xi

    The losses after the step are those of the same samples: `observe`. Where nobody observes, the losses of the next
    step take their place, and the noise between two batches goes into xi.

    Args:
        lr: learning rate of xi.
        gamma: decay of xi to 0, that is, to equal relative rates.
        min_loss: what the losses cannot fall below; one number, or one of each objective.

    Raises:
        InputError: the losses are not known, or one is below `min_loss`, or that has another number of them.

    Reference: Liu, Feng, Stone & Liu 2023, https://arxiv.org/abs/2306.03792
    """

    def __init__(
        self, /, lr: PositiveFloat = 0.025, gamma: NonNegativeFloat = 0.001, min_loss: float | tuple[float, ...] = 0.0
    ) -> None:  # fmt: skip
        self._gamma, self._min_loss = gamma, min_loss
        self._adam = Adam(lr)
        self._xi: Tensor | None = None
        self._before: Tensor | None = None

    def __call__(self, objectives: Objectives, /) -> Tensor:
        """The weights of this step; all 1 where a loss is not finite, and xi then learns nothing from the step."""
        losses = losses_of(objectives, "famo")
        if self._xi is None:
            self._xi = torch.zeros_like(losses)
        self._learn(losses)
        if not bool(losses.isfinite().all()):
            return torch.ones_like(losses)
        gaps = self._gaps(losses)
        self._before = gaps.log()
        ratios = torch.softmax(self._xi, 0) / gaps
        return ratios * (len(losses) / ratios.sum())

    def observe(self, losses: Sequence[float]) -> None:
        """Learn from the losses of the same samples after the step.

        Args:
            losses: (T,) their values with the new weights.

        Raises:
            InputError: there are more or fewer than before, or one is below `min_loss`.
        """
        self._learn(torch.tensor(losses, dtype=torch.float64))

    def state_dict(self) -> dict[str, Any]:
        """xi, its optimizer's state, and the losses of a step that nobody observed yet."""
        return {"xi": self._xi, "before": self._before, "adam": self._adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self._xi, self._before = state["xi"], state["before"]
        self._adam.load_state_dict(state["adam"])

    def _learn(self, losses: Tensor) -> None:
        if self._xi is None or self._before is None:
            return
        refuse_another_number(len(self._xi), losses, "famo")
        before, self._before = self._before, None
        if not bool(losses.isfinite().all()):
            return
        fall = before - self._gaps(losses).log()
        z = torch.softmax(self._xi, 0)
        delta = z * (fall - z @ fall)
        self._xi = self._adam.step(self._xi, delta + self._gamma * self._xi)

    def _gaps(self, losses: Tensor) -> Tensor:
        least = self._min_loss if isinstance(self._min_loss, tuple) else (self._min_loss,) * len(losses)
        if len(least) != len(losses):
            problem = f"famo needs one least loss, or one of each of the {len(losses)} objectives."
            raise InputError(problem, key="min_loss", value=self._min_loss)
        refuse_below(losses, least, "famo", "Set min_loss to what the losses cannot fall below.")
        return losses - torch.tensor(least, dtype=losses.dtype) + _SHIFT
