"""The gradients of several objectives side by side: what they share, and what only one of them reaches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ava.errors import InputError

Gradients = Sequence[Sequence[Tensor | None]]
"""T objectives' gradients of the same N tensors; None where an objective does not reach a tensor."""


@dataclass(frozen=True)
class Aligned:
    """T objectives' gradients of N tensors.

    Attributes:
        rows: T lists of the gradients of shared tensors; None where an objective does not reach one.
        shared: which of the N tensors at least two objectives reach, in order.
        heads: tensor -> (the one objective that reaches it, its gradient).
        num_tensors: N.
    """

    rows: list[list[Tensor | None]]
    shared: list[int]
    heads: dict[int, tuple[int, Tensor]]
    num_tensors: int

    def in_order(self, shared: Sequence[Tensor | None], of_heads: Sequence[float]) -> list[Tensor | None]:
        """N gradients.

        Args:
            shared: what the shared tensors get.
            of_heads: T numbers; what each objective's own gradients are multiplied with.
        """
        combined: list[Tensor | None] = [None] * self.num_tensors
        for place, gradient in zip(self.shared, shared, strict=True):
            combined[place] = gradient
        for place, (owner, own) in self.heads.items():
            combined[place] = own if of_heads[owner] == 1 else own * of_heads[owner]
        return combined


def align(gradients: Gradients) -> Aligned:
    """Put the gradients of several objectives side by side.

    Args:
        gradients: T sequences of N tensors, or None where an objective does not reach a tensor.

    Raises:
        InputError: there are none, or their numbers or shapes differ, or one is no dense tensor of real numbers.
    """
    rows = [list(row) for row in gradients]
    if not rows:
        raise InputError("needs the gradients of at least one objective, and there are none.")
    _refuse_uneven(rows)
    columns = enumerate(zip(*rows, strict=True))
    reached = {place: [i for i, g in enumerate(column) if g is not None] for place, column in columns}
    shared = [place for place, owners in reached.items() if len(owners) > 1]
    owned = {place: owners[0] for place, owners in reached.items() if len(owners) == 1}
    heads = {place: (owner, _given(rows[owner][place])) for place, owner in owned.items()}
    rows_of_shared = [[row[place] for place in shared] for row in rows]
    return Aligned(rows_of_shared, shared, heads, len(rows[0]))


def _refuse_uneven(rows: list[list[Tensor | None]]) -> None:
    for objective, row in enumerate(rows):
        if len(row) != len(rows[0]):
            problem = f"objective {objective} has gradients of {len(row)} tensors, and objective 0 of {len(rows[0])}."
            raise InputError(problem, hint="Take all of the same parameters, with `allow_unused=True`.")
        for place, gradient in enumerate(row):
            _refuse_strange(gradient, place, objective)
            others = [other[place] for other in rows[:objective]]
            known = next((other for other in others if other is not None), None)
            if gradient is not None and known is not None and gradient.shape != known.shape:
                shapes = f"{tuple(gradient.shape)}, and another's {tuple(known.shape)}"
                raise InputError(f"tensor {place}: objective {objective} has a gradient of shape {shapes}.")


def _refuse_strange(gradient: object, place: int, objective: int) -> None:
    where, hint = f"tensor {place}: objective {objective} has", None
    if not isinstance(gradient, Tensor | None):
        problem = f"{where} {type(gradient).__name__}, and not a tensor or None."
        hint = "Give what `torch.autograd.grad(loss, parameters, allow_unused=True)` gives, one for each objective."
    elif gradient is not None and gradient.layout != torch.strided:
        problem, hint = f"{where} a gradient that is not dense.", "Use sparse=False."
    elif gradient is not None and not gradient.is_floating_point():
        problem = f"{where} a gradient of type {str(gradient.dtype).removeprefix('torch.')}, and not of real numbers."
    else:
        return
    raise InputError(problem, hint=hint)


def _given(gradient: Tensor | None) -> Tensor:
    assert gradient is not None
    return gradient
