"""What a method decided, when, and what it saw: the part of a reconciler that outlives a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ava.errors import InputError
from ava.optimization.gradients.surgery.cosines import cosines
from ava.optimization.gradients.surgery.objectives import Objectives, Observing, Remembering, ask, restore
from ava.optimization.gradients.surgery.rows import Rows


class Decisions:
    """Asks a method for weights when they are due, and never about what is not finite.

    Args:
        method: with its options bound.
        needs: what it works from: "gram", "losses" or "rows".
        every: steps between two times that it is asked.
        seed: of what is random in it.

    Attributes:
        weights: (T,) float64 on the CPU, those last worked out; None before, and of methods that need rows.
        gram: (T, T) float64 on the CPU, the last that was finite; None before, and of methods that need losses.
        step: optimizer steps taken before the present one.

    Raises:
        InputError: a method that decides element by element cannot use old weights.
    """

    def __init__(self, method: Callable[..., Any], needs: str, every: int, seed: int) -> None:
        if needs == "rows" and every > 1:
            problem = "the method decides element by element in every step, and has no weights to keep."
            raise InputError(problem, key="every", value=every, hint="Use every=1.")
        self.method, self._needs, self._every, self._seed = method, needs, every, seed
        self.weights: Tensor | None = None
        self.gram: Tensor | None = None
        self.step = 0
        self._worked_out_at: int | None = None

    @property
    def are_due(self) -> bool:
        """Whether new weights are to be worked out in the present step."""
        last = self._worked_out_at
        return self._every == 1 or last is None or not last <= self.step < last + self._every

    @property
    def cosines(self) -> Tensor | None:
        """(T, T) between the gradients last seen; 0 beside one that is 0."""
        return None if self.gram is None else cosines(self.gram)

    def weigh(self, gram: Tensor | None, losses: Tensor) -> Tensor:
        """New weights, (T,); all 1 where something is not finite, and the method then hears nothing.

        Weights that are not finite themselves are answered, so that the step is seen to be wrong, and not kept.
        """
        if not bool((losses if gram is None else gram).isfinite().all()):
            return torch.ones(len(losses), dtype=torch.float64)
        weights = ask(self.method, Objectives(gram, losses, self.step, self._seed), len(losses))
        if bool(weights.isfinite().all()):
            self.weights, self.gram, self._worked_out_at = weights, gram, self.step
        return weights

    def mix(
        self, gram: Tensor, rows: list[list[Tensor]], features: list[Tensor] | None, sums: Callable[[Tensor], Tensor]
    ) -> Sequence[Tensor]:
        """What a method that needs rows makes of them; they must be finite.

        Args:
            gram: of the rows, to be remembered.
            rows: T lists of K tensors.
            features: the values of the K features that they are gradients of; None for parameters.
            sums: over the ranks that share the batch.
        """
        gradients: Sequence[Tensor] = self.method(Rows(rows, features, self.step, self._seed, sums))
        self.gram, self._worked_out_at = gram, self.step
        return gradients

    @property
    def wants_hindsight(self) -> bool:
        """Whether the method was asked in the step before the present one, and wants to know what came of it."""
        return isinstance(self.method, Observing) and self._worked_out_at == self.step - 1

    def state_dict(self) -> dict[str, Any]:
        """The weights in use and since when, and what the method remembers."""
        return {
            "weights": self.weights, "gram": self.gram, "step": self.step, "worked_out_at": self._worked_out_at,
            "method": self.method.state_dict() if isinstance(self.method, Remembering) else None,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave.

        Raises:
            InputError: another method remembered it.
        """
        restore(self.method, state["method"])
        self.weights, self.gram = state["weights"], state["gram"]
        self.step, self._worked_out_at = state["step"], state["worked_out_at"]
