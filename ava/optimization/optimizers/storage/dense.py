"""Dense storage: one tensor of the slot's own shape, in the parameter's type, as in torch.optim."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ava.optimization.optimizers.sentence import Slot
from ava.optimization.optimizers.storage.codec import Bits


class Dense:
    """The value itself."""

    draws = False

    def keys(self, slot: Slot) -> tuple[str, ...]:
        """The slot's name."""
        return (slot.name,)

    def decode(self, state: Mapping[str, Tensor], slot: Slot, like: Tensor) -> Tensor:
        """The stored tensor, cast where the engine computes in a wider type."""
        return state[slot.name].to(like.dtype)

    def encode(self, value: Tensor, slot: Slot, bits: Bits) -> dict[str, Tensor]:
        """The value; the copy rounds it to the stored type."""
        return {slot.name: value}
