"""What a clip remembers: tensors by name, on the device, of fixed shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ava.errors import InputError

Memory = dict[str, Tensor]


def take_up(memory: Memory, given: Mapping[str, Any]) -> Memory:
    """A memory that a checkpoint holds, in place of `memory`.

    Args:
        memory: what there is; its names and shapes are what is allowed.
        given: what `state_dict` gave.

    Returns:
        The new memory; it shares no storage with what was given.

    Raises:
        InputError: the names or the shapes are others, so it is the memory of another clip or of other options.
    """
    expected, found = _shapes(memory), _shapes(given)
    if expected != found:
        raise InputError(
            f"the clip remembers {expected}, but the saved state has {found}.",
            hint="Continue with the clip and the options that it was saved with, or start without that state.",
        )
    return {name: given[name].to(tensor.dtype, copy=True) for name, tensor in memory.items()}


def on_device_of(memory: Memory, tensor: Tensor) -> Memory:
    """The memory where a tensor is: it is made on the CPU and follows the gradients."""
    return {name: remembered.to(tensor.device) for name, remembered in memory.items()}


def _shapes(memory: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(getattr(memory[name], "shape", ())) for name in sorted(memory)}
