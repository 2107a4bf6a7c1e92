"""PCGrad: each gradient loses what conflicts with the others."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from ava.optimization.gradients.surgery.objectives import Objectives, Weights
from ava.optimization.gradients.surgery.solvers.weighing import ZERO, Array, lengths, weights_of
from ava.registry import surgery


@surgery
def pcgrad(objectives: Objectives, /) -> Weights:
    """Projecting conflicting gradients: each one, in turn, onto the normal plane of every other that it opposes.

        for each i: h = g_i; for j != i in random order: h <- h - min(<h, g_j>, 0) / |g_j|^2 g_j;  d = sum of all h

    All h are combinations of the gradients, so their coefficients and the Gram matrix are all that is followed.

    Args:
        objectives: T of them, with their Gram matrix. Each has an order of its own, drawn anew in each step.

    Returns:
        (T,) at least 1: all 1 where no two gradients conflict. Two gradients are left without conflict, more need not
        be.

    Reference: Yu et al. 2020, https://arxiv.org/abs/2001.06782
    """
    return weights_of(objectives, lambda gram: _projected(gram, _orders(len(gram), objectives.generator())))


def _orders(size: int, generator: torch.Generator) -> npt.NDArray[np.int64]:
    """(T, T - 1) for each gradient all others, shuffled."""
    keys = torch.rand(size, size, generator=generator).fill_diagonal_(2.0)
    return np.asarray(keys.argsort(dim=1)[:, :-1].numpy())


def _projected(gram: Array, orders: npt.NDArray[np.int64]) -> Array:
    """All gradients take their k-th projection together; row i of `coefficients` makes up gradient i."""
    size = len(gram)
    squares = np.where(lengths(gram) > ZERO, gram.diagonal(), np.inf)
    coefficients, every = np.eye(size), np.arange(size)
    for others in orders.T:
        products = (coefficients * gram[others]).sum(axis=1)
        coefficients[every, others] -= products.clip(max=0.0) / squares[others]
    return np.asarray(coefficients.sum(axis=0))
