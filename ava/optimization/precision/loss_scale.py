"""The loss scale of float16: small gradients would be zero there, so the loss is multiplied before the backward pass.

    gradients of   scale * loss   in float16, then divided by scale in float32

An overflow makes a gradient infinite: that step is skipped and the scale shrinks; after `growth_interval` steps without
one it grows. All of it stays on the device, and is the same on all ranks if the gradients that it is told of are.
Micikevicius et al. 2018, Mixed Precision Training, https://arxiv.org/abs/1710.03740
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Gt, Le, Lt
from torch import Tensor

from ava.optimization.options import check

SMALLEST_NORMAL = torch.finfo(torch.float16).smallest_normal
"""2^-14; below it float16 loses digits, and below 2^-24 everything."""

_Scale = Annotated[float, Gt(0), Le(2.0**127)]
_Growth = Annotated[float, Gt(1), Le(65536.0)]
_Interval = Annotated[int, Gt(0), Lt(2**31)]
_Share = Annotated[float, Gt(0), Lt(1)]


@dataclass(frozen=True)
class Reading:
    """What the scale was in a step, on the device, not yet read.

    Attributes:
        scale: 0-dim float32, what that step's loss was multiplied with.
        at_floor: 0-dim, whether it could not have been less.
        overflows: 0-dim int64, steps skipped for an overflow so far, this one included.
        underflow: 0-dim, the share of this rank's gradient elements other than 0 that were below float16's smallest
            normal number, 0 to 1; None where it was not looked at.
    """

    scale: Tensor
    at_floor: Tensor
    overflows: Tensor
    underflow: Tensor | None = None


class LossScale:
    """A dynamic loss scale.

    Args:
        device: where the gradients are.
        init_scale: the first scale. Powers of two change no digit of a gradient.
        growth_factor: what it is multiplied with after `growth_interval` steps without overflow, > 1.
        backoff_factor: what it is multiplied with after an overflow, between 0 and 1. It does not fall below 1, or
            `init_scale` where that is less: what is not finite then is no overflow of a scaled gradient.
        growth_interval: in optimizer steps.

    Raises:
        InputError: a value is out of its range.
    """

    def __init__(
        self, device: torch.device | str = "cpu", *, init_scale: float = 65536.0, growth_factor: float = 2.0,
        backoff_factor: float = 0.5, growth_interval: int = 2000,
    ) -> None:  # fmt: skip
        self.growth_factor = check("growth_factor", growth_factor, _Growth)
        self.backoff_factor = check("backoff_factor", backoff_factor, _Share)
        self.growth_interval = check("growth_interval", growth_interval, _Interval)
        self.floor = min(1.0, check("init_scale", init_scale, _Scale))
        self.scale = torch.full((), init_scale, dtype=torch.float32, device=device)
        self._steps = torch.zeros((), dtype=torch.int32, device=device)
        self._overflows = torch.zeros((), dtype=torch.int64, device=device)
        self._underflow: Tensor | None = None

    @torch.no_grad()
    def unscale_(self, parameters: Iterable[Tensor], *, count_underflow: bool = False) -> None:
        """Divide the gradients by the scale, in place; once a backward pass, before anything decides by them.

        Args:
            parameters: whose `.grad`; shards (DTensor) each on their rank.
            count_underflow: look for elements too small for float16 on the way, which costs a pass more.
        """
        gradients = [_local(p.grad) for p in parameters if p.grad is not None]
        self._underflow = self._share_too_small(gradients) if count_underflow else None
        by_kind: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
        for gradient in gradients:
            by_kind.setdefault((gradient.device, gradient.dtype), []).append(gradient)
        for (device, _), some in by_kind.items():
            torch._foreach_mul_(some, self.scale.to(device).reciprocal())

    @torch.no_grad()
    def update(self, found_inf: Tensor) -> None:
        """End the step: the next one has another scale if this one overflowed, or enough did not.

        Args:
            found_inf: 0-dim, 1 where a gradient of any rank was not finite.
        """
        found = found_inf.to(self.scale.device).reshape(())
        self._overflows += (found != 0) & (self.scale > self.floor)
        options = self.growth_factor, self.backoff_factor, self.growth_interval
        torch._amp_update_scale_(self.scale, self._steps, found.float(), *options)
        self.scale.clamp_(min=self.floor)

    def reading(self, found_inf: Tensor) -> Reading:
        """What to tell of the step that is about to end: called before `update`."""
        at_floor = self.scale <= self.floor
        overflowed = (found_inf.to(self.scale.device).reshape(()) != 0) & ~at_floor
        return Reading(self.scale.clone(), at_floor, self._overflows + overflowed, self._underflow)

    def state_dict(self) -> dict[str, Any]:
        """The scale, the steps since it last changed, and the overflows so far."""
        return {
            "scale": self.scale.clone(),
            "steps": self._steps.clone(),
            "overflows": self._overflows.clone(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        device = self.scale.device
        self.scale = torch.as_tensor(state["scale"], dtype=torch.float32).to(device).clone()
        self._steps = torch.as_tensor(state["steps"], dtype=torch.int32).to(device).clone()
        self._overflows = torch.as_tensor(state["overflows"], dtype=torch.int64).to(device).clone()

    def _share_too_small(self, gradients: list[Tensor]) -> Tensor:
        """Of the elements that are not 0; exact zeros are not counted: they may be meant."""
        small = torch.zeros((), dtype=torch.int64, device=self.scale.device)
        nonzero = small.clone()
        for gradient in gradients:
            size = gradient.abs()
            is_any = size > 0
            nonzero += is_any.sum().to(nonzero.device)
            small += (is_any & (size < SMALLEST_NORMAL)).sum().to(small.device)
        return small / nonzero.clamp(min=1)


def _local(gradient: Tensor) -> Tensor:
    """The part of a sharded gradient (DTensor) that is on this rank."""
    return gradient.to_local() if hasattr(gradient, "to_local") else gradient
