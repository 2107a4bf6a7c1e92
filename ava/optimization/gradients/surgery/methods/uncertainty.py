"""Weights from learned uncertainties."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ava.optimization.gradients.surgery.adam import Adam
from ava.optimization.gradients.surgery.losses import losses_of, refuse_another_number
from ava.optimization.gradients.surgery.objectives import Objectives
from ava.registry import PositiveFloat, surgery


@surgery(needs="losses")
class Uncertainty:
    """Each loss over its learned variance, with the logarithm of the variance as the price of a large one.

        minimise over s    sum_i exp(-s_i) L_i + s_i,    so w_i = exp(-s_i)
        d/ds_i = 1 - exp(-s_i) L_i

    s_i is log sigma_i^2, and the objective twice the paper's of a regression, L_i / (2 sigma_i^2) + log sigma_i: both
    have the same minimum, w_i = 1 / L_i. All weights are 1 at first. s follows Adam in steps of about `lr`, so a weight
    needs some 1 / lr optimizer steps to change by the factor e. Losses may be negative (likelihoods of densities), but
    the weight of one that stays so grows without end.

    Args:
        lr: learning rate of s.

    Raises:
        InputError: the losses are not known.

    Reference: Kendall, Gal & Cipolla 2018, https://arxiv.org/abs/1705.07115
    """

    def __init__(self, /, lr: PositiveFloat = 0.01) -> None:
        self._log_variances: Tensor | None = None
        self._adam = Adam(lr)

    def __call__(self, objectives: Objectives, /) -> Tensor:
        """The weights of this step; s then takes its own. Losses that are not finite move nothing."""
        losses = losses_of(objectives, "uncertainty")
        s = torch.zeros_like(losses) if self._log_variances is None else self._log_variances
        refuse_another_number(len(s), losses, "uncertainty")
        weights = torch.exp(-s)
        if bool(losses.isfinite().all()):
            s = self._adam.step(s, 1 - weights * losses)
        self._log_variances = s
        return weights

    def state_dict(self) -> dict[str, Any]:
        """The logarithms of the variances, and their optimizer's state."""
        return {"log_variances": self._log_variances, "adam": self._adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self._log_variances = state["log_variances"]
        self._adam.load_state_dict(state["adam"])
