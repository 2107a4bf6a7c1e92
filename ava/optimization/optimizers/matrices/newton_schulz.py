"""Orthogonalisation: a matrix becomes one whose singular values are all near 1, by multiplications alone."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the odd polynomial a x + b x^3 + c x^5: as steep at 0 as keeps repeated application within about 0.7 to 1.2."""


def newton_schulz(x: Tensor, steps: int) -> Tensor:
    """The nearest orthogonal matrix, roughly: U S V^T becomes U S' V^T with S' within about 0.7 to 1.2.

        X <- X / |X|;  steps times: A = X X^T, X <- a X + (b A + c A^2) X

    Args:
        x: (R, ...), seen as a matrix of R rows; computed in bfloat16 where there are units for it (unless it is
            in float64), whose error is far below the spread of S'.
        steps: rounds; five lift singular values above about 1e-2 of the norm.

    Returns:
        A tensor of `x`'s shape and type.

    Reference: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/
    """
    a, b, c = COEFFICIENTS
    matrix = x.flatten(1)
    is_tall = matrix.shape[0] > matrix.shape[1]
    is_wide = x.dtype == torch.float64 or (x.is_cpu and not _has_bfloat16())
    y = (matrix.mT if is_tall else matrix).to(x.dtype if is_wide else torch.bfloat16)
    y = y / y.norm().clamp(min=1e-7)
    for _ in range(steps):
        gram = y @ y.mT
        y = torch.addmm(y, torch.addmm(gram, gram, gram, beta=b, alpha=c), y, beta=a)
    return (y.mT if is_tall else y).to(x.dtype).reshape(x.shape)


@functools.cache
def _has_bfloat16() -> bool:
    """Whether the processor multiplies matrices of bfloat16 faster than of float32; others are slower in it."""
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check is not None and check() for check in checks)
