"""The weights to evaluate, where they are not the weights that train: those of Schedule-Free methods.

What they are says the sentence itself: a stage's variant "average" assigns the parameter anew from its slots.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ava.errors import InputError
from ava.optimization.optimizers.engines.batch import local

if TYPE_CHECKING:
    from ava.optimization.optimizers.composed import ComposedOptimizer

VARIANT = "average"
KEPT = "training_weights"
"""The state of a parameter that holds its own value, in a state dict written after `eval()`."""
Weights = dict[Tensor, Tensor]


@contextmanager
def averaged(optimizer: ComposedOptimizer) -> Iterator[None]:
    """Within it the parameters hold the weights to evaluate; after it their own again, bit for bit.

    Nothing happens where both are the same, and where the optimizer was told `eval()` before.
    """
    if optimizer.training_weights is not None or not optimizer.speaks_of(VARIANT):
        yield
        return
    own = swap(optimizer)
    try:
        yield
    finally:
        put_back(own)


@torch.no_grad()
def swap(optimizer: ComposedOptimizer) -> Weights:
    """Put the weights to evaluate in place; the state stays as it is.

    Returns:
        The parameters' own values.
    """
    own = {p: local(p.detach()).clone() for group in optimizer.param_groups for p in group["params"]}
    for group in optimizer.param_groups:
        begun = [p for p in group["params"] if optimizer.state.get(p)]
        # Compressed state is not the same once it has been read and written: a copy of it is.
        state: dict[Tensor, dict[str, Any]] = {
            p: {key: value.clone() for key, value in optimizer.state[p].items()} for p in begun
        }
        optimizer.update([(group, [(p, torch.zeros_like(p)) for p in begun])], VARIANT, state)
    return own


@torch.no_grad()
def put_back(own: Weights) -> None:
    """Give the parameters back their own values."""
    for parameter, value in own.items():
        local(parameter.detach()).copy_(value)


def refuse_resting(optimizer: ComposedOptimizer) -> None:
    """Check that the parameters hold the weights that train.

    Raises:
        InputError: `eval()` was called, and `train()` was not.
    """
    if optimizer.training_weights is not None:
        raise InputError(
            "step() after eval(): the parameters hold the averages that are evaluated, not the weights that train.",
            hint="Call train() on the optimizer before training goes on.",
        )


def pack(optimizer: ComposedOptimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    """The state dict with the weights that train, if the parameters do not hold them."""
    if optimizer.training_weights is None:
        return state_dict
    ids = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
    parameters = chain.from_iterable(group["params"] for group in optimizer.param_groups)
    kept = {number: optimizer.training_weights[p] for number, p in zip(ids, parameters, strict=True)}
    state = {number: {**slots, KEPT: kept[number]} for number, slots in state_dict["state"].items()}
    return state_dict | {"state": state | {n: {KEPT: value} for n, value in kept.items() if n not in state}}


def unpack(optimizer: ComposedOptimizer) -> Weights | None:
    """Take the weights that train out of a state that was just loaded; None if it was written while training."""
    kept = {p: slots.pop(KEPT) for p, slots in optimizer.state.items() if KEPT in slots}
    return kept or None
