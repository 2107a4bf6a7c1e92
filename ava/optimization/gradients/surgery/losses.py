"""The losses as a method that learns from them needs them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
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


def values_of(losses: Sequence[float | Tensor]) -> Tensor:
    """(T,) float64 on the CPU.

    Args:
        losses: numbers, or tensors of one element, with or without a graph.

    Raises:
        InputError: one is no number.
    """
    found = [loss.detach() if isinstance(loss, Tensor) else loss for loss in losses]
    try:
        return torch.tensor([float(loss) for loss in found], dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError("needs one number for each loss.", hint="Give a list of numbers or 0-dim tensors.") from error


def refuse_another_number(objectives: int, losses: Tensor, method: str) -> None:
    """Refuse losses of more or fewer objectives than the method has learnt about.

    Raises:
        InputError: there are more or fewer.
    """
    if len(losses) != objectives:
        problem = f"{method} has seen {objectives} objectives, and is told {len(losses)} losses."
        raise InputError(problem, hint="Give all objectives in every step, in one order, or begin with a new surgeon.")


def refuse_below(losses: Tensor, least: Sequence[float], method: str, remedy: str) -> None:
    """Refuse losses that the method's logarithms and quotients do not bear.

    Raises:
        InputError: a loss is below its least; one that is not finite passes.
    """
    for index, (value, bound) in enumerate(zip(losses.tolist(), least, strict=True)):
        if value < bound:
            problem = f"{method} needs losses of {bound:g} or more, and objective {index} has {value:g}."
            raise InputError(problem, hint=remedy)
