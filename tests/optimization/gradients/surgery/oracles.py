"""Slow twins: each method as its paper writes it, on the gradients themselves or by trying every active set."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from ava.optimization import get_surgery
from ava.optimization.gradients.surgery.objectives import Objectives

METHODS = ("sum", "pcgrad", "mgda", "cagrad", "imtl_g", "nash_mtl", "aligned_mtl", "upgrad")
"""The methods that work from the Gram matrix alone, each with its defaults."""


def jacobian(num_rows: int, length: int = 50, seed: int = 0, spread: float = 1.0) -> Tensor:
    """(T, P) normal gradients, the last row `spread` times as long as the first."""
    generator = torch.Generator().manual_seed(1000 * num_rows + seed)
    scales = torch.logspace(0, 1, num_rows, base=spread, dtype=torch.float64)
    return torch.randn(num_rows, length, generator=generator, dtype=torch.float64) * scales[:, None]


def weights(name: str, rows: Tensor, losses: Tensor | None = None, seed: int = 0, **options: Any) -> Tensor:
    return get_surgery(name)(Objectives(rows @ rows.T, losses, seed=seed), **options)


def direction(name: str, rows: Tensor, **options: Any) -> Tensor:
    return weights(name, rows, **options) @ rows


def pcgrad(rows: Tensor, orders: list[list[int]]) -> Tensor:
    """Algorithm 1 of Yu et al., on vectors; `orders` says for each gradient in which order it meets the others."""
    projected = rows.clone()
    for own, order in zip(projected, orders, strict=True):
        for other in order:
            product = own @ rows[other]
            if product < 0:
                own -= product / (rows[other] @ rows[other]) * rows[other]
    return projected.sum(dim=0)


def min_norm_square(rows: Tensor) -> float:
    """The least squared norm in the convex hull: of every face, the point nearest to zero, where it is inside."""
    best = float("inf")
    for face in _subsets(len(rows)):
        some = rows[face]
        ones = torch.ones(len(face), dtype=rows.dtype)
        solution = torch.linalg.lstsq(some @ some.T, ones[:, None], driver="gelsd").solution[:, 0]
        shares = solution / solution.sum()
        if (shares >= 0).all():
            best = min(best, float((shares @ some).square().sum()))
    return best


def project_on_dual_cone(rows: Tensor, vector: Tensor) -> Tensor:
    """The nearest h with J h >= 0: some of the constraints are equalities, and on these h is the projection."""
    candidates = [vector]
    for tight in _subsets(len(rows)):
        basis = torch.linalg.qr(rows[tight].T).Q
        candidates.append(vector - basis @ (basis.T @ vector))
    feasible = [h for h in candidates if (rows @ h).min() > -1e-9]
    return min(feasible, key=lambda h: float((h - vector).norm()))


def _subsets(size: int) -> Iterator[list[int]]:
    for count in range(1, size + 1):
        yield from (list(subset) for subset in combinations(range(size), count))
