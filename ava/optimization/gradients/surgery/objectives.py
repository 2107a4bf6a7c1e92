"""What a surgery method is told in one step, and what it answers.

Most methods need only the inner products of the objectives' gradients: they are functions from the Gram matrix to
one weight an objective. All arithmetic of a few objectives is done in float64 on the CPU.

Weights are in the convention of a sum: where nothing is to be reconciled they are all 1, and the combined gradient is
that of the sum of the losses. A method whose paper speaks of a mean (weights on a simplex) multiplies them by their
number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ava.errors import InputError
from ava.optimization.optimizers.engines.random import stream_key


@dataclass(frozen=True)
class Objectives:
    """T objectives at one step.

    Attributes:
        gram: (T, T) float64 on the CPU, the inner products of their gradients, all finite; None for methods that need
            only losses.
        losses: (T,) float64 on the CPU, their values; None where they are not known.
        step: optimizer steps taken before this one.
        seed: of everything random.
    """

    gram: Tensor | None = None
    losses: Tensor | None = None
    step: int = 0
    seed: int = 0

    def generator(self) -> torch.Generator:
        """Random numbers on the CPU that depend on the seed and the step alone: nothing to save, alike on all ranks."""
        return torch.Generator().manual_seed(int(stream_key(self.seed, 0, self.step, 0)))


Weights = Tensor
"""(T,) float64 on the CPU."""

Method = Callable[[Objectives], Weights]
"""A method with its options bound. It may be an object that remembers what it saw (`Remembering`)."""


@runtime_checkable
class Remembering(Protocol):
    """A method that carries something from step to step; a checkpoint holds it."""

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and tensors."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        ...


@runtime_checkable
class Observing(Protocol):
    """A method that wants the losses of the same samples once the step is taken (FAMO)."""

    def observe(self, losses: Sequence[float]) -> None:
        """Told after the optimizer's step.

        Args:
            losses: (T,) their values with the new weights.
        """
        ...


def ask(method: Callable[..., Any], objectives: Objectives, count: int) -> Weights:
    """A method's weights, (`count`,) float64 on the CPU, whoever wrote it.

    Raises:
        InputError: it answered something else.
    """
    answer = method(objectives)
    try:
        weights = torch.as_tensor(answer, dtype=torch.float64, device="cpu").detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"the method {name_of(method)!r} gave no numbers: {type(answer).__name__}.") from error
    if weights.shape != (count,):
        problem = f"the method {name_of(method)!r} must give a weight for each of {count} objectives, and gave"
        raise InputError(f"{problem} {tuple(weights.shape)}.")
    return weights


def restore(method: Callable[..., Any], state: dict[str, Any] | None) -> None:
    """Hand a method what it remembered; nothing where it remembers nothing.

    Raises:
        InputError: another method remembered it.
    """
    if isinstance(method, Remembering):
        expected, found = sorted(method.state_dict()), sorted(state or {})
        if state is None or expected != found:
            problem = f"the method remembers {', '.join(expected)}; the saved one {', '.join(found) or 'nothing'}."
            raise InputError(problem, hint="Continue with the method that it was saved with.")
        method.load_state_dict(state)


def name_of(method: Callable[..., Any]) -> str:
    """What the function or class is called."""
    return str(getattr(getattr(method, "func", method), "__name__", type(method).__name__))
