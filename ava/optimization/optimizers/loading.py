"""State dicts from files: what torch.optim wrote is ours too; what cannot be is refused before anything changes."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from ava.errors import InputError

IMPLEMENTATION = ("foreach", "fused", "capturable", "decoupled_weight_decay", "differentiable", "maximize", "amsgrad")
"""torch.optim's group entries that choose an implementation, or a rule that no sentence here has."""


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
            if isinstance(value, Tensor) and value.dim() and value.shape != parameter.shape:
                raise InputError(
                    f"state {name!r} of parameter {key} has the shape {tuple(value.shape)}, "
                    f"the parameter {tuple(parameter.shape)}.",
                    hint="Load the state into an optimizer of the same model.",
                )


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
    if "step" in state:
        step = torch.as_tensor(state["step"], dtype=torch.float32)
        state["step"] = step.reshape(()).to(parameter.device)
