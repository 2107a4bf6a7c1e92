"""How a slot of state is stored: dense here, compressed by other codecs of the same shape.

A codec turns the value of a slot into stored parts and back. Its functions are pure: the engine that calls them
decides, on the device, whether the new parts replace the old, so that a skipped step leaves every stored bit alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from ava.optimization.optimizers.sentence import Slot


class Codec(Protocol):
    """One way of storing a slot. One part bears the slot's own name; further ones are called `name.part`."""

    def allocate(self, slot: Slot, parameter: Tensor) -> dict[str, Tensor]:
        """The parts of a slot that is zero, by their keys in the parameter's state."""
        ...

    def decode(self, state: Mapping[str, Tensor], slot: Slot, dtype: torch.dtype) -> Tensor:
        """The slot's value, shaped like the parameter, in the type that the engine computes in. Not to be written."""
        ...

    def encode(self, value: Tensor, slot: Slot) -> dict[str, Tensor]:
        """The parts that store `value`; the engine copies them over the old ones."""
        ...
