"""How a slot of state is stored: dense here, compressed by other codecs of the same shape.

A codec turns the value of a slot into stored parts and back. Its functions are pure: the engine that calls them
decides, on the device, whether the new parts replace the old, so that a skipped step leaves every stored bit alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias

from torch import Tensor

from ava.optimization.optimizers.sentence import Slot

Bits: TypeAlias = Callable[[], Tensor]
"""Gives 16 random bits for each element, as int64: for codecs that round to either side."""


class Codec(Protocol):
    """One way of storing a slot of the parameter's shape.

    Attributes:
        draws: whether it rounds at random, and so needs the number of the step.
    """

    draws: bool

    def keys(self, slot: Slot) -> tuple[str, ...]:
        """What the parts are called in the parameter's state."""
        ...

    def decode(self, state: Mapping[str, Tensor], slot: Slot, like: Tensor) -> Tensor:
        """The slot's value, of the shape, type and device of `like`. Not to be written."""
        ...

    def encode(self, value: Tensor, slot: Slot, bits: Bits) -> dict[str, Tensor]:
        """The parts that store `value`; the engine copies them over the old ones, which rounds dense ones."""
        ...
