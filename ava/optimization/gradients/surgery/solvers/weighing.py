"""From a Gram matrix to weights: what every method does before and after its own arithmetic.

Methods see a Gram matrix whose largest gradient has length 1, so that gradients of any size give the same weights
and a tolerance is a share of the largest gradient.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from ava.optimization.gradients.surgery.objectives import Objectives, Weights

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

ZERO = 1e-15
"""A gradient shorter than this share of the longest is taken for zero: float64 cannot hold both in a sum."""


def weights_of(objectives: Objectives, solve: Callable[[Array], Array]) -> Weights:
    """Weights from `solve`, which gets the Gram matrix (T, T) scaled to a largest squared length of 1.

    Where all gradients are zero all weights are 1; where the Gram matrix is not finite they are not numbers.
    """
    assert objectives.gram is not None, "a method from inner products needs the Gram matrix"
    gram: Array = objectives.gram.detach().to("cpu", torch.float64).numpy()
    longest = gram.diagonal().max(initial=0.0)
    if not np.isfinite(gram).all():
        return torch.full((len(gram),), torch.nan, dtype=torch.float64)
    if longest <= 0:
        return torch.ones(len(gram), dtype=torch.float64)
    with np.errstate(all="ignore"):
        return torch.from_numpy(np.ascontiguousarray(solve(gram / longest)))


def among_nonzero(solve: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """`solve` without the gradients that are zero: these get weight 1, and the others the weights they have alone."""

    def solve_rest(gram: Array) -> Array:
        kept = np.flatnonzero(lengths(gram) > ZERO)
        if len(kept) == len(gram):
            return solve(gram)
        weights = np.ones(len(gram))
        weights[kept] = solve(gram[np.ix_(kept, kept)])
        return weights

    return solve_rest


def lengths(gram: Array) -> Array:
    """(T,) the Euclidean norm of each gradient."""
    return np.asarray(np.sqrt(gram.diagonal().clip(min=0.0)))


def cosines(gram: Array) -> Array:
    """(T, T) of every two gradients, none of which is zero."""
    norms = lengths(gram)
    return np.asarray(gram / norms[:, None] / norms)
