"""State dicts from files: what torch.optim wrote is ours too; what cannot be is refused before anything changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from itertools import chain
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ava.errors import InputError
from ava.optimization.optimizers.batches import stored
from ava.optimization.optimizers.engines.batch import compute_dtype, local
from ava.optimization.optimizers.sentence import Slot
from ava.optimization.optimizers.storage.choice import CODECS, codec_of
from ava.optimization.optimizers.storage.factored import square_shape
from ava.optimization.optimizers.storage.int8 import BLOCK

Group: TypeAlias = dict[str, Any]
SlotsOf: TypeAlias = Callable[[Group, Tensor], Sequence[Slot]]

IMPLEMENTATION = ("foreach", "fused", "capturable", "decoupled_weight_decay", "differentiable", "maximize", "amsgrad")
"""torch.optim's group entries that choose an implementation, or a rule that no sentence here has."""

RENAMED = {"sum": "sum_of_squares"}
"""torch.optim's names that mean something else in a rule: Adagrad's, and `t.sum(x)`."""

SIDES = frozenset({"left", "right", "left_basis", "right_basis"})
"""Slots that belong to the parameter's rows or columns: a square matrix each, in the engine's own type."""


def refuse_foreign(state_dict: Mapping[str, Any], groups: list[Group], slots: SlotsOf) -> None:
    """Check that a state dict can be continued from.

    Args:
        state_dict: what is to be loaded.
        groups: the optimizer's own param groups.
        slots: param group and parameter -> the state that the parameter keeps.

    Raises:
        InputError: it was written with another rule, or for parameters of other shapes.
    """
    saved = state_dict["param_groups"]
    for group in saved:
        for key in ("maximize", "amsgrad"):
            if group.get(key):
                raise InputError(f"the state was written with {key}=True, which this optimizer does not do.")
    ids = chain.from_iterable(group["params"] for group in saved)
    for key, (group, parameter) in zip(ids, _owned(groups), strict=False):
        full = {slot.name for slot in slots(group, parameter) if slot.shape == "full"}
        for name, value in state_dict["state"].get(key, {}).items():
            if not isinstance(value, Tensor) or name == "step":
                continue
            is_full = RENAMED.get(name, name) in full
            may_be_one = not value.dim() and "." not in name
            fits = value.shape == parameter.shape if is_full else may_be_one or _fits(name, value.shape, parameter)
            if not fits:
                raise InputError(
                    f"state {name!r} of parameter {key} has the shape {tuple(value.shape)}, "
                    f"the parameter {tuple(parameter.shape)}.",
                    hint="Load the state into an optimizer of the same model.",
                )


def _owned(groups: list[Group]) -> Iterator[tuple[Group, Tensor]]:
    return ((group, parameter) for group in groups for parameter in group["params"])


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


def restore(
    state_dict: Mapping[str, Any], groups: list[Group], state: MutableMapping[Tensor, Group], slots: SlotsOf
) -> None:
    """Undo torch's cast of loaded state to the parameter's type, for what has a type of its own: codes, bits, factors.

    What the file holds whole and the group compresses, as after torch.optim, is compressed: to the nearest code.

    Args:
        state_dict: what was loaded.
        groups: the optimizer's own param groups, as the file left them.
        state: the optimizer's own state.
        slots: param group and parameter -> the state that the parameter keeps.
    """
    ids = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
    for key, (group, parameter) in zip(ids, _owned(groups), strict=True):
        own, read = state.get(parameter, {}), state_dict["state"].get(key, {})
        if not own:
            continue
        read = {RENAMED.get(name, name): value for name, value in read.items() if isinstance(value, Tensor)}
        for slot in slots(group, parameter):
            codec = codec_of(slot, group["state"], local(parameter))
            keys = codec.keys(slot)
            if not all(name in read for name in keys) or (codec.draws and _is_whole(read[slot.name])):
                if slot.name in read and slot.shape == "full":
                    whole = own.pop(slot.name)  # of the parameter's type and device by now
                    own.update(stored(codec, slot, whole, _half))
            elif slot.shape != "full" or codec is not CODECS["dense"]:
                wide = compute_dtype(local(parameter)) if slot.shape != "full" else None
                own.update({name: read[name].detach().clone().to(parameter.device, wide) for name in keys})


def _is_whole(value: Tensor) -> bool:
    """Whether state is plain numbers, not what a codec has made of them."""
    return value.is_floating_point() and value.dtype is not torch.bfloat16


def _half(value: Tensor) -> Tensor:
    """Bits that round to nearest."""
    return torch.full_like(value, 0x8000, dtype=torch.int64)


def adopt_group(group: dict[str, Any], defaults: Mapping[str, Any]) -> None:
    """Make a loaded group one of ours: without torch's implementation switches, with every option.

    Options are tuples here; files and torch's gathering of sharded state make lists of them.
    """
    for key in IMPLEMENTATION:
        group.pop(key, None)
    for key, value in defaults.items():
        group[key] = as_tuple(group.get(key, value))


def as_tuple(value: Any) -> Any:
    """A list as a tuple, and those in it too; all else as it is."""
    return tuple(map(as_tuple, value)) if isinstance(value, list | tuple) else value


def adopt_state(parameter: Tensor, state: dict[str, Any]) -> None:
    """Make a loaded state one of ours: the counter on the parameter's device, nothing that is None."""
    for key in [key for key, value in state.items() if value is None]:
        del state[key]
    for theirs in RENAMED.keys() & state.keys():
        state[RENAMED[theirs]] = state.pop(theirs)
    if "step" in state:
        step = torch.as_tensor(state["step"], dtype=torch.float32)
        state["step"] = step.reshape(()).to(parameter.device)
