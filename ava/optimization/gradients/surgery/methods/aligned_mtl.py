"""Aligned-MTL: gradients made orthogonal and of one length."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ava.optimization.gradients.surgery.objectives import Objectives, Weights
from ava.optimization.gradients.surgery.solvers.weighing import Array, among_nonzero, weights_of
from ava.registry import surgery

Scale = Literal["min", "median", "rmse"]

_NULL = float(np.finfo(np.float32).eps)
"""Eigenvalues below this share of the largest, times T, are zero: gradients in float32 do not tell them from it."""


@surgery
def aligned_mtl(objectives: Objectives, /, scale: Literal["min", "median", "rmse"] = "min") -> Weights:
    """Aligned multi-task learning: the principal components of the gradients get equal length, which ends dominance.

        w = s sum_k v_k v_k' 1 / sqrt(lambda_k),  G = sum_k lambda_k v_k v_k' the Gram matrix

    The gradients are replaced by the nearest orthogonal ones, all of length s.

    Args:
        objectives: T of them, with their Gram matrix.
        scale: s^2: the smallest eigenvalue that is not zero, their lower median, or their mean.

    Returns:
        (T,). Components along eigenvalues of zero, of linearly dependent gradients, are left out.

    Reference: Senushkin et al. 2023, https://arxiv.org/abs/2305.19000
    """
    return weights_of(objectives, among_nonzero(lambda gram: _aligned(gram, scale)))


def _aligned(gram: Array, scale: Scale) -> Array:
    values, vectors = np.linalg.eigh(gram)
    kept = values > _NULL * len(gram) * values[-1]
    values, vectors = values[kept], vectors[:, kept]
    square = {"min": values[0], "median": values[(len(values) - 1) // 2], "rmse": values.mean()}[scale]
    return np.asarray(vectors @ (np.sqrt(square / values) * vectors.sum(axis=0)))
