"""SOAP: Adam in the eigenbasis of the gradient's second moments (`matrices/eigenbasis.py`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ava.optimization.optimizers.arithmetic import maximum, minimum, sqrt
from ava.optimization.optimizers.sentence import Hyperparameters, Operand, Operands, Slot, stage

_MEAN, _SQUARE = Slot("exp_avg"), Slot("exp_avg_sq", signed=False)
_LEFT = Slot("left", shape="left", exact=True, limit="max_precondition_dim")
_RIGHT = Slot("right", shape="right", exact=True, limit="max_precondition_dim")
_LEFT_BASIS = Slot("left_basis", shape="left", exact=True, limit="max_precondition_dim")
_RIGHT_BASIS = Slot("right_basis", shape="right", exact=True, limit="max_precondition_dim")


def _matrices(name: str) -> Callable[..., Any]:
    """A function of whole matrices, imported when it is first called: knowing the sentence costs no torch."""

    def function(*arguments: Any) -> Any:
        from ava.optimization.optimizers.matrices import eigenbasis

        return getattr(eigenbasis, name)(*arguments)

    return function


to_basis, from_basis, learn = (_matrices(name) for name in ("to_basis", "from_basis", "learn"))


@stage("moments", _MEAN, _SQUARE, counts=True)
def waiting_moments(t: Operands, h: Hyperparameters) -> None:
    """Adam's moments from the second step on; the first changes nothing, as that of the matrices does."""
    _begin_with_the_second(t, h, t.g)


@stage("moments", _MEAN, _SQUARE, _LEFT_BASIS, _RIGHT_BASIS, counts=True)
def eigen_moments(t: Operands, h: Hyperparameters) -> None:
    """The same, with the squares of the gradient as seen in the basis; the first step only finds a basis."""
    _begin_with_the_second(t, h, t.apply(to_basis, t.g, [t.left_basis, t.right_basis]))


def _begin_with_the_second(t: Operands, h: Hyperparameters, seen: Operand) -> None:
    beta1, beta2 = h.betas
    steps = maximum(t.step - 1, 1)
    has_begun = minimum(t.step - 1, 1)
    t.lr = has_begun * t.lr
    t.exp_avg = t.exp_avg + (has_begun * (1 - beta1)) * (t.g - t.exp_avg)
    t.exp_avg_sq = t.exp_avg_sq + (has_begun * (1 - beta2)) * (seen * seen - t.exp_avg_sq)
    correction = sqrt(1 - beta2**steps)
    t.u = t.exp_avg / (1 - beta1**steps)
    # The authors add eps to the root before it is freed of its zero start; `divide` adds it afterwards.
    t.den = sqrt(t.exp_avg_sq) / correction + h.eps * (1 / correction - 1)


@stage("direction", _LEFT_BASIS, _RIGHT_BASIS)
def into_basis(t: Operands, h: Hyperparameters) -> None:
    """The update as seen in the basis: u <- QL^T u QR."""
    t.u = t.apply(to_basis, t.u, [t.left_basis, t.right_basis])


@stage("direction", _LEFT_BASIS, _RIGHT_BASIS)
def out_of_basis(t: Operands, h: Hyperparameters) -> None:
    """The update as the weights see it: u <- QL u QR^T."""
    t.u = t.apply(from_basis, t.u, [t.left_basis, t.right_basis])


@stage("write", _SQUARE, _LEFT, _RIGHT, _LEFT_BASIS, _RIGHT_BASIS, counts=True)
def learn_basis(t: Operands, h: Hyperparameters) -> None:
    """For the steps to come: the second moments of rows and columns, and their bases."""
    moments, bases = [t.left, t.right], [t.left_basis, t.right_basis]
    options = (h.precondition_frequency, h.betas[1])
    t.exp_avg_sq, moments, bases = t.apply(learn, t.g, t.exp_avg_sq, moments, bases, t.step, options)
    t.left, t.right = moments
    t.left_basis, t.right_basis = bases
