"""Matrices seen in the eigenbasis of their second moments, and how that basis is followed as they change.

A gradient G (R, C) has a left side, L = mean of G G^T (R, R), and a right side, R = mean of G^T G (C, C). Each has a
basis Q whose columns are its eigenvectors, the largest eigenvalue first; G is seen there as QL^T G QR. A tensor of more
dimensions is a matrix of dim 0 rows. A side may be left out: its tensors have no elements, its basis is the identity.
"""

from __future__ import annotations

import torch
from torch import Tensor

Sides = list[Tensor]
"""Left and right. A list, for what is in one is whole on every rank."""


def to_basis(x: Tensor, bases: Sides) -> Tensor:
    """QL^T x QR, of the shape of `x` (R, ...); `bases` are QL (R, R) and QR (C, C)."""
    left, right = bases
    y = x.flatten(1)
    y = left.mT @ y if left.numel() else y
    return (y @ right if right.numel() else y).reshape(x.shape)


def from_basis(x: Tensor, bases: Sides) -> Tensor:
    """QL x QR^T, the inverse of `to_basis`."""
    left, right = bases
    y = x.flatten(1)
    y = left @ y if left.numel() else y
    return (y @ right.mT if right.numel() else y).reshape(x.shape)


def learn(
    g: Tensor, square: Tensor, moments: Sides, bases: Sides, step: float | Tensor, options: tuple[int, float]
) -> tuple[Tensor, Sides, Sides]:
    """Take a gradient into the second moments, and follow them with the bases when that is due.

        L <- b L + (1 - b) G G^T;  R <- b R + (1 - b) G^T G

    At step 1 the bases are L's and R's eigenvectors; at steps 1 + k frequency one round of orthogonal iteration brings
    them nearer to today's. An accelerator's step cannot be known here without waiting for it: there every step computes
    the round and a selection drops it where it is not due, and the first basis too is one round, from the identity.

    Args:
        g: gradient (R, ...).
        square: mean square of the gradient as seen in the bases, of its shape; sorted along with them.
        moments: L and R.
        bases: QL and QR.
        step: this update's number, from 1; a number, or a tensor that must not be read.
        options: frequency and b.

    Returns:
        The new `square`, `moments` and `bases`.
    """
    frequency, decay = options
    matrix, y = g.flatten(1), square.flatten(1)
    new_moments, new_bases = [], []
    for side, (moment, basis) in enumerate(zip(moments, bases, strict=True)):
        if moment.numel():
            moment = decay * moment + (1 - decay) * (matrix @ matrix.mT if side == 0 else matrix.mT @ matrix)
            basis, y = _follow(moment, basis, y, side, step, frequency)
        new_moments.append(moment)
        new_bases.append(basis)
    return y.reshape(square.shape), new_moments, new_bases


def _follow(
    moment: Tensor, basis: Tensor, y: Tensor, side: int, step: float | Tensor, frequency: int
) -> tuple[Tensor, Tensor]:
    """The basis for the next step, and `y` with its rows (side 0) or columns (side 1) in the basis' new order."""
    if isinstance(step, Tensor):
        start = torch.where(step == 1, torch.eye(len(basis), dtype=basis.dtype, device=basis.device), basis)
        turned, order = _turn(moment, start)
        is_due = (step - 1) % frequency == 0
        return torch.where(is_due, turned, basis), torch.where(is_due, y.index_select(side, order), y)
    if step == 1:
        return _eigenvectors(moment), y
    if (step - 1) % frequency == 0:
        basis, order = _turn(moment, basis)
        y = y.index_select(side, order)
    return basis, y


def _eigenvectors(moment: Tensor) -> Tensor:
    """In float64, which always converges; of what is not finite any basis will do, for the step is lost."""
    finite = torch.nan_to_num(moment.double(), nan=0.0, posinf=0.0, neginf=0.0)
    vectors: Tensor = torch.linalg.eigh(finite).eigenvectors
    return vectors.flip(1).to(moment.dtype)


def _turn(moment: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """One round of orthogonal iteration, sorted by the eigenvalues that the old basis sees; and that order."""
    product = moment @ basis
    order = (basis * product).sum(0).argsort(descending=True)
    return torch.linalg.qr(product.index_select(1, order)).Q, order
