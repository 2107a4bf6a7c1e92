"""The health of a model's gradients in plain numbers, for training loops of one's own.

    monitor = GradientHealthMonitor(max_norm=10.0)
    loss.backward()
    health = monitor.check_gradients(model)
    if health["has_nan"] or health["has_inf"]:
        continue
    optimizer.step()

The trainer takes the same measurement (`measure`) without waiting for its numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypedDict

import torch
from torch import Tensor, nn

from ava.optimization.gradients.health.measure import measure
from ava.optimization.gradients.health.measurement import Measurement
from ava.optimization.gradients.health.scale import scale_
from ava.optimization.options import check
from ava.registry import PositiveFloat

_EPSILON = 1e-6
"""As in torch's `clip_grad_norm_`."""


class GradientHealth(TypedDict):
    """Of all elements of all gradients together, before clipping.

    Where a check is switched off, `has_nan` and `has_inf` are False, and what describes the distribution, from `mean`
    on, is nan, which prints as any number does.
    """

    has_nan: bool
    has_inf: bool
    norm: float
    mean: float
    std: float
    max: float
    min: float
    num_zeros: int | float
    sparsity: float


class GradientHealthMonitor:
    """Measures gradients and clips them where their norm is too large.

        g <- g * min(1, max_norm / (||g|| + 1e-6)),   where every element is finite

    Args:
        max_norm: the largest global norm that is left as it is; None never clips.
        nan_check: whether to look for elements that are not a number.
        inf_check: whether to look for infinite ones.
        distribution_check: whether to report mean, deviation, extremes and zeros.

    Raises:
        InputError: `max_norm` is not above 0, or a check is neither on nor off.

    Reference: Pascanu et al. 2013, https://arxiv.org/abs/1211.5063
    """

    def __init__(
        self,
        max_norm: float | None = None,
        nan_check: bool = True,
        inf_check: bool = True,
        distribution_check: bool = True,
    ) -> None:
        self.max_norm: float | None = check("max_norm", max_norm, PositiveFloat | None)
        self.nan_check: bool = check("nan_check", nan_check, bool)
        self.inf_check: bool = check("inf_check", inf_check, bool)
        self.distribution_check: bool = check("distribution_check", distribution_check, bool)

    @torch.no_grad()
    def check_gradients(
        self, model: nn.Module | Iterable[Tensor], *, grad_scale: Tensor | float | None = None
    ) -> GradientHealth:
        """Measure the gradients, clip them in place where that is due, and wait once for the numbers.

        Gradients that are not finite are reported and left as they are, for the step is to be skipped.

        Args:
            model: whose parameters; or the parameters. Those without a gradient are left out; a model without any
                gradient gives zeros. Shards (DTensor) are measured whole, so every rank has to call.
            grad_scale: what a loss scale still multiplies the gradients with. None where they are as they should be: in
                full precision, or after `scaler.unscale_(optimizer)`. With a scale, `max_norm` and what is reported are
                meant of the unscaled gradients, and the gradients stay scaled.

        Raises:
            InputError: a gradient is sparse or complex, `model` is neither a module nor parameters, or `grad_scale` is
                not above 0.
        """
        parameters = model.parameters() if isinstance(model, nn.Module) else model
        measured = measure(parameters, statistics=self.nan_check or self.inf_check or self.distribution_check)
        scale: Tensor | float = 1.0
        if isinstance(grad_scale, Tensor):
            scale = grad_scale.reshape(()).to(measured.norm)
        elif grad_scale is not None:
            scale = check("grad_scale", grad_scale, PositiveFloat)
        norm = measured.norm / scale
        if self.max_norm is not None:
            scale_(measured, self.max_norm / (norm + _EPSILON))
        return self._read(measured, norm, scale)

    def _read(self, measured: Measurement, norm: Tensor, scale: Tensor | float) -> GradientHealth:
        """The numbers, in one transfer."""
        values = [norm]
        if (found := measured.statistics) is not None:
            unscaled = [value / scale for value in (found.mean, found.std, found.max, found.min)]
            values += [found.has_nan, found.has_inf, *unscaled, found.num_zeros, found.sparsity]
        read: list[float] = torch.stack(values).tolist()
        has_nan, has_inf, mean, std, largest, smallest, zeros, sparsity = read[1:] or [0.0] * 8
        if not self.distribution_check:
            mean = std = largest = smallest = sparsity = math.nan
        return {
            "has_nan": self.nan_check and has_nan > 0, "has_inf": self.inf_check and has_inf > 0, "norm": read[0],
            "mean": mean, "std": std, "max": largest, "min": smallest,
            "num_zeros": int(zeros) if self.distribution_check else math.nan, "sparsity": sparsity,
        }  # fmt: skip
