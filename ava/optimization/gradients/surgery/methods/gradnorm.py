"""Gradient normalization."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ava.errors import InputError
from ava.optimization.gradients.surgery.adam import Adam
from ava.optimization.gradients.surgery.losses import losses_of, refuse_another_number
from ava.optimization.gradients.surgery.objectives import Objectives
from ava.registry import NonNegativeFloat, PositiveFloat, surgery


@surgery(needs="gram")
class GradNorm:
    """Weighted gradients of one length, longer for objectives that learn slower.

        r_i = (L_i / L_i(0)) / mean_j(L_j / L_j(0))
        minimise over w    sum_i |w_i g_i - G r_i^alpha|,    g_i = |grad_i|,  G = mean_i(w_i g_i) held constant
        d/dw_i = g_i sign(w_i g_i - G r_i^alpha);    then w = T w / sum(w)

    w follows Adam and is 1 at first. A weight that a step would make negative becomes 0. Norms are in units of the
    first step's mean, so that Adam's eps means the same whatever the gradients' scale.

    Args:
        alpha: how strongly objectives that lag are pulled up; 0 makes all gradients of one length.
        lr: learning rate of w.

    Raises:
        InputError: the losses are not known, or the first of one is not above 0.

    Reference: Chen, Badrinarayanan, Lee & Rabinovich 2018, https://arxiv.org/abs/1711.02257
    """

    def __init__(self, /, alpha: NonNegativeFloat = 1.5, lr: PositiveFloat = 0.025) -> None:
        self._alpha = alpha
        self._adam = Adam(lr)
        self._weights: Tensor | None = None
        self._first: Tensor | None = None
        self._unit = 0.0

    def __call__(self, objectives: Objectives, /) -> Tensor:
        """The weights of this step; w then takes its own. Losses that are not finite move nothing."""
        losses = losses_of(objectives, "gradnorm")
        weights = torch.ones_like(losses) if self._weights is None else self._weights
        refuse_another_number(len(weights), losses, "gradnorm")
        self._weights = weights
        if objectives.gram is None or not bool(losses.isfinite().all()):
            return weights
        if self._first is None:
            self._first = _refuse_not_positive(losses)
        norms = objectives.gram.diagonal().clamp(min=0).sqrt()
        self._unit = self._unit or float(norms.mean())
        scaled = norms / self._unit if self._unit else norms
        moved = self._adam.step(weights, self._gradient(weights, scaled, losses / self._first)).clamp(min=0)
        self._weights = moved * (len(moved) / moved.sum())
        return weights

    def state_dict(self) -> dict[str, Any]:
        """w, its optimizer's state, the first losses and the first norms' mean."""
        return {
            "weights": self._weights, "first": self._first, "unit": self._unit, "adam": self._adam.state_dict()
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self._weights, self._first, self._unit = state["weights"], state["first"], state["unit"]
        self._adam.load_state_dict(state["adam"])

    def _gradient(self, weights: Tensor, norms: Tensor, progress: Tensor) -> Tensor:
        """Of the L1 distance."""
        lengths = weights * norms
        rates = progress / progress.mean() if progress.any() else torch.ones_like(progress)
        return norms * torch.sign(lengths - lengths.mean() * rates.clamp(min=0) ** self._alpha)


def _refuse_not_positive(losses: Tensor) -> Tensor:
    for index, value in enumerate(losses.tolist()):
        if value <= 0:
            problem = f"gradnorm divides by the first losses, which must be above 0; objective {index} has {value:g}."
            raise InputError(problem, hint="Add a constant to the loss that makes it positive, or use another method.")
    return losses.clone()
