"""Dense storage: one tensor of the parameter's own shape and type, as in torch.optim."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ava.optimization.optimizers.sentence import Slot


class Dense:
    """The value itself."""

    def allocate(self, slot: Slot, parameter: Tensor) -> dict[str, Tensor]:
        """Zeros like the parameter."""
        return {slot.name: torch.zeros_like(parameter, memory_format=torch.preserve_format)}

    def decode(self, state: Mapping[str, Tensor], slot: Slot, dtype: torch.dtype) -> Tensor:
        """The stored tensor, cast where the engine computes in a wider type."""
        return state[slot.name].to(dtype)

    def encode(self, value: Tensor, slot: Slot) -> dict[str, Tensor]:
        """The value; the copy rounds it to the stored type."""
        return {slot.name: value}
