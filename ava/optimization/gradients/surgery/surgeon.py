"""Gradients of several objectives, reconciled: for any training loop.

surgeon = GradientSurgeon(method="pcgrad")
for p, g in zip(parameters, surgeon.apply([gradients_a, gradients_b])):
    p.grad = g
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ava.errors import InputError
from ava.optimization.gradients.surgery.alignment import Aligned, Gradients, align
from ava.optimization.gradients.surgery.binding import bind_within, needs
from ava.optimization.gradients.surgery.gram import combine, gram_matrix
from ava.optimization.gradients.surgery.losses import values_of
from ava.optimization.gradients.surgery.objectives import Objectives, Remembering, ask, restore
from ava.optimization.gradients.surgery.rows import Rows
from ava.optimization.options import check
from ava.registry import NonNegativeInt


class GradientSurgeon:
    """Combines the gradients of several objectives into one, by a registered method.

    Tensors that at least two objectives reach are shared, and the method decides about them; a tensor that only one
    reaches belongs to that one's head and gets its gradient, weighted only by methods that weigh whole losses (famo,
    uncertainty). Where nothing is to be reconciled the result is the gradient of the sum of the losses, or of their
    mean, heads included.

    Args:
        method: one of `list_surgery()`.
        reduction: sum or mean: the mean is the sum over T, heads included.
        seed: of what is random in a method; together with the number of calls it decides every draw.
        options: the method's own.

    Raises:
        InputError: no method has the name, or it has no such option, or the value is not allowed.
    """

    def __init__(
        self, method: str = "pcgrad", reduction: Literal["sum", "mean"] = "mean", seed: int = 0, **options: Any
    ) -> None:
        self.reduction = check("reduction", reduction, Literal["sum", "mean"])
        self.seed = check("seed", seed, NonNegativeInt)
        self._method, self._needs = bind_within(GradientSurgeon, method, options), needs(method)
        self._steps = 0

    def apply(self, gradients: Gradients, losses: Sequence[float | Tensor] | None = None) -> list[Tensor | None]:
        """Combine the gradients of one step.

        Args:
            gradients: T sequences of N tensors, as `torch.autograd.grad(loss, parameters, allow_unused=True)` gives
                them; None where an objective does not reach a parameter. They may be DTensors.
            losses: (T,) the values of the losses, for methods that learn from them.

        Returns:
            N tensors, None where no objective reaches one. Where a gradient is not finite, the sum of the rows is
            given: not finite either, for a guard to see.

        Raises:
            InputError: the gradients do not fit together, or the method needs losses.
        """
        aligned = align(gradients)
        known = None if losses is None else values_of(losses)
        if known is not None and len(known) != len(aligned.rows):
            problem = f"there are the gradients of {len(aligned.rows)} objectives, and {len(known)} losses."
            raise InputError(problem, hint="Give one loss for each objective, in the same order.")
        scale = 1 / len(aligned.rows) if self.reduction == "mean" else 1.0
        if self._needs == "rows":
            rows = Rows(aligned.rows, step=self._steps, seed=self.seed)
            shared: list[Tensor | None] = [g * scale for g in self._method(rows)]
            of_heads = [scale] * len(aligned.rows)
        else:
            weights = self._weights(aligned, known)
            shared = combine(aligned.rows, weights * scale)
            of_heads = (weights * scale).tolist() if self._needs == "losses" else [scale] * len(aligned.rows)
        self._steps += 1
        return aligned.in_order(shared, of_heads)

    def state_dict(self) -> dict[str, Any]:
        """The number of calls, and what the method remembers."""
        remembered = self._method.state_dict() if isinstance(self._method, Remembering) else None
        return {"steps": self._steps, "method": remembered}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave.

        Raises:
            InputError: another method remembered it.
        """
        restore(self._method, state["method"])
        self._steps = int(state["steps"])

    def _weights(self, aligned: Aligned, losses: Tensor | None) -> Tensor:
        """(T,) in the convention of a sum; all 1 where there is nothing to reconcile or a gradient is not finite."""
        gram = None
        if self._needs == "gram":
            equal = torch.ones(len(aligned.rows), dtype=torch.float64)
            if not aligned.shared:
                return equal
            gram = gram_matrix(aligned.rows)
            if not bool(gram.isfinite().all()):
                return equal
        return ask(self._method, Objectives(gram, losses, self._steps, self.seed), len(aligned.rows))
