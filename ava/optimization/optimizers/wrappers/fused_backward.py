"""Fused backward: each parameter is updated as soon as its gradient is complete, and the gradient is freed.

So no more than a few gradients are ever alive. What needs all gradients at once (a norm to clip by, several
micro-batches, several ranks, a loss scale) cannot be done with it.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from ava.errors import InputError
from ava.optimization.gradients.health.measurement import Measurement
from ava.optimization.optimizers.sentence import common_slots
from ava.optimization.optimizers.wrappers.sum_of_squares import sum_of_squares

if TYPE_CHECKING:
    from ava.optimization.optimizers.composed import ComposedOptimizer


class FusedBackward:
    """Hooks on an optimizer's parameters; they live as long as the optimizer, and its copies get their own.

    Args:
        optimizer: whose parameters are updated.
    """

    def __init__(self, optimizer: ComposedOptimizer) -> None:
        self._optimizer = weakref.ref(optimizer)
        self._handles: list[RemovableHandle] = []
        self._groups: dict[Tensor, int] = {}
        self._squares: dict[Tensor, Tensor] = {}
        self.attach()

    def attach(self) -> None:
        """Watch the parameters that are not watched yet.

        Raises:
            InputError: the optimizer needs sums over all parameters.
        """
        optimizer = self._optimizer()
        assert optimizer is not None
        for index, group in enumerate(optimizer.param_groups):
            _refuse_sums(optimizer, group)
            for parameter in group["params"]:
                if parameter not in self._groups and parameter.requires_grad:
                    self._handles.append(parameter.register_post_accumulate_grad_hook(self._update))
                self._groups[parameter] = index

    def detach(self) -> None:
        """Watch nothing any more."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._groups = [], {}

    def measurement(self) -> Measurement:
        """The norms of the gradients used since the last step, on the device."""
        parameters, squares = list(self._squares), list(self._squares.values())
        stacked = torch.stack([s.to(squares[0].device) for s in squares]) if squares else torch.zeros(0)
        norm = stacked.sum().sqrt()
        return Measurement(parameters, [], stacked.sqrt().float(), norm, (~torch.isfinite(norm)).float())

    def step(self) -> None:
        """End the step: the next backward pass is the next step's.

        Raises:
            InputError: the gradients were scaled, and used before they could be unscaled.
        """
        used, self._squares = bool(self._squares), {}
        optimizer = self._optimizer()
        if used and optimizer is not None and getattr(optimizer, "grad_scale", None) is not None:
            raise InputError(
                "used the gradients before GradScaler could unscale them.", key="fused_backward", value=True,
                hint="Train in bf16, which needs no loss scale, or with fused_backward=False.",
            )  # fmt: skip

    @torch.no_grad()
    def _update(self, parameter: Tensor) -> None:
        optimizer = self._optimizer()
        if optimizer is None or parameter.grad is None:
            return  # the optimizer is gone, and its hooks with it
        if parameter in self._squares:
            raise InputError(
                "used this gradient in the backward pass before; a second one has to wait for step().",
                key="fused_backward", value=True,
                hint="Call step() after every backward pass; gradients cannot be accumulated.",
            )  # fmt: skip
        square = sum_of_squares([parameter], [parameter.grad])
        self._squares[parameter] = square
        with optimizer.judging(square):
            optimizer.update([(optimizer.param_groups[self._groups[parameter]], [(parameter, parameter.grad)])])
        parameter.grad = None


def _refuse_sums(optimizer: ComposedOptimizer, group: dict[str, object]) -> None:
    for sentence in optimizer.sentences(group):
        if common_slots(sentence) or any(word.totals for word in sentence):
            raise InputError(
                f"updates parameters one by one, but this {optimizer.name} needs sums over all of them.",
                key="fused_backward", value=True, hint="Leave it out.",
            )  # fmt: skip
