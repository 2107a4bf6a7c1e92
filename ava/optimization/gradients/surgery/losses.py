"""The losses as a method that learns from them needs them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ava.errors import InputError
from ava.optimization.gradients.surgery.objectives import Objectives


def losses_of(objectives: Objectives, method: str) -> Tensor:
    """(T,) the values of the losses.

    Raises:
        InputError: they are not known.
    """
    if objectives.losses is None:
        problem = f"{method} learns from the values of the losses, and they are not given."
        raise InputError(problem, hint="Give them beside the gradients: `surgeon.apply(gradients, losses)`.")
    return objectives.losses


def refuse_below(losses: Tensor, least: Sequence[float], method: str, remedy: str) -> None:
    """Refuse losses that the method's logarithms and quotients do not bear.

    Raises:
        InputError: a loss is below its least; one that is not finite passes.
    """
    for index, (value, bound) in enumerate(zip(losses.tolist(), least, strict=True)):
        if value < bound:
            problem = f"{method} needs losses of {bound:g} or more, and objective {index} has {value:g}."
            raise InputError(problem, hint=remedy)
