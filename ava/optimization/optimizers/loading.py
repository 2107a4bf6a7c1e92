"""State dicts from files: what torch.optim wrote is ours too; what cannot be is refused before anything changes."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from ava.errors import InputError
from ava.optimization.optimizers.engines.batch import local
from ava.optimization.optimizers.storage.factored import square_shape
from ava.optimization.optimizers.storage.int8 import BLOCK

IMPLEMENTATION = ("foreach", "fused", "capturable", "decoupled_weight_decay", "differentiable", "maximize", "amsgrad")
"""torch.optim's group entries that choose an implementation, or a rule that no sentence here has."""

RENAMED = {"sum": "sum_of_squares"}
"""torch.optim's names that mean something else in a rule: Adagrad's, and `t.sum(x)`."""

SIDES = frozenset({"left", "right", "left_basis", "right_basis"})
"""Slots that belong to the parameter's rows or columns: a square matrix each, in the engine's own type."""


def refuse_foreign(state_dict: Mapping[str, Any], groups: list[dict[str, Any]]) -> None:
    """Check that a state dict can be continued from.

    Args:
        state_dict: what is to be loaded.
        groups: the optimizer's own param groups.

    Raises:
        InputError: it was written with another rule, or for parameters of other shapes.
    """
    saved = state_dict["param_groups"]
    for group in saved:
        for key in ("maximize", "amsgrad"):
            if group.get(key):
                raise InputError(f"the state was written with {key}=True, which this optimizer does not do.")
    ids = chain.from_iterable(group["params"] for group in saved)
    parameters = chain.from_iterable(group["params"] for group in groups)
    for key, parameter in zip(ids, parameters, strict=False):
        for name, value in state_dict["state"].get(key, {}).items():
            if isinstance(value, Tensor) and value.dim() and not _fits(name, value.shape, parameter):
                raise InputError(
                    f"state {name!r} of parameter {key} has the shape {tuple(value.shape)}, "
                    f"the parameter {tuple(parameter.shape)}.",
                    hint="Load the state into an optimizer of the same model.",
                )


def _fits(name: str, shape: torch.Size, parameter: Tensor) -> bool:
    """Whether state of a shape can be a parameter's: of the same one, of a row or column of it, or compressed."""
    rows, columns = square_shape(local(parameter).numel())
    part = name.partition(".")[2]
    if part:
        size = local(parameter).numel()
        lengths = {"row": rows, "column": columns, "sign": -(-size // 8), "scale": -(-size // BLOCK)}
        return shape.numel() == lengths.get(part)
    if name in SIDES:
        sides = (parameter.shape[0], parameter.numel() // max(1, parameter.shape[0])) if parameter.dim() else ()
        return any(tuple(shape) == (n, n) for n in (*sides, 0))
    return len(shape) == parameter.dim() and all(n in (1, m) for n, m in zip(shape, parameter.shape, strict=True))


def restore_types(
    state_dict: Mapping[str, Any], groups: list[dict[str, Any]], state: Mapping[Tensor, dict[str, Any]]
) -> None:
    """Undo torch's cast of loaded state to the parameter's type, for what has a type of its own: codes, bits, factors.

    Args:
        state_dict: what was loaded.
        groups: the optimizer's own param groups.
        state: the optimizer's own state.
    """
    ids = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
    owned = ((parameter, group["state"]) for group in groups for parameter in group["params"])
    for key, (parameter, storage) in zip(ids, owned, strict=True):
        for name, value in state_dict["state"].get(key, {}).items():
            if not isinstance(value, Tensor) or name == "step" or name not in state[parameter]:
                continue
            is_rounded = storage == "bf16" and value.dtype == torch.bfloat16
            is_side = name in SIDES  # of a square parameter, in its shape by chance
            if is_side or value.shape != parameter.shape or not value.is_floating_point() or is_rounded:
                state[parameter][name] = value.detach().clone().to(parameter.device)


def adopt_group(group: dict[str, Any], defaults: Mapping[str, Any]) -> None:
    """Make a loaded group one of ours: without torch's implementation switches, with every option."""
    for key in IMPLEMENTATION:
        group.pop(key, None)
    for key, value in defaults.items():
        group.setdefault(key, value)


def adopt_state(parameter: Tensor, state: dict[str, Any]) -> None:
    """Make a loaded state one of ours: the counter on the parameter's device, nothing that is None."""
    for key in [key for key, value in state.items() if value is None]:
        del state[key]
    for theirs in RENAMED.keys() & state.keys():
        state[RENAMED[theirs]] = state.pop(theirs)
    if "step" in state:
        step = torch.as_tensor(state["step"], dtype=torch.float32)
        state["step"] = step.reshape(()).to(parameter.device)
