"""What is remembered from step to step: numbers by section and slot, all in one tensor.

A judgement sees them as Python floats where everything is on the CPU, for reading there costs nothing, and as 0-dim
tensors where something is on an accelerator, so that the host waits for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ava.errors import InputError


class Memory:
    """Numbers of fixed names.

    Args:
        sections: section -> slot -> the value to start from.

    Attributes:
        tensor: all of them, 1-D, float64 (float32 on a device that has no other); changed in place, but for the first
            step on an accelerator, which moves it there.
        slots: their names, "section/slot".
        always_tensors: 0-dim tensors on the CPU too, for tests.
        always_fused: the same by the kernel that accelerators get.
    """

    def __init__(self, sections: Mapping[str, Mapping[str, float]]) -> None:
        self.slots = [f"{section}/{slot}" for section, slots in sections.items() for slot in slots]
        self._beginning = [float(value) for slots in sections.values() for value in slots.values()]
        self.tensor = torch.tensor(self._beginning, dtype=torch.float64)
        self.always_tensors = self.always_fused = False

    def is_host(self, *measured: float | Tensor | None) -> bool:
        """Whether these can be judged as floats; else the memory is moved to where they are.

        Args:
            measured: numbers, or tensors of one element; None where there is none.
        """
        tensor = self.tensor
        for one in measured:
            if isinstance(one, Tensor) and not one.is_cpu:
                if one.device != tensor.device:
                    self.tensor = tensor.to(one.device, _wide(one.device))
                return False
        return tensor.is_cpu and not (self.always_tensors or self.always_fused)

    @property
    def is_fused(self) -> bool:
        """Whether a judgement of tensors is to be one kernel."""
        return self.always_fused or not self.tensor.is_cpu

    def read(self) -> list[float]:
        """The numbers, of a memory on the CPU."""
        return self.tensor.tolist()

    def write(self, values: list[float]) -> None:
        """What `read` gave, changed."""
        # A tensor made of a list costs ten times as much.
        self.tensor.numpy()[:] = values

    def scalar(self, measured: float | Tensor) -> Tensor:
        """A number as a 0-dim tensor where the memory is, of its own type."""
        if not isinstance(measured, Tensor):
            # Filling is a kernel; making a tensor of a number would be a copy that waits.
            return self.tensor.new_full((), measured)
        return measured.detach().reshape(()).to(self.tensor.device)

    def replace(self, tensor: Tensor) -> None:
        """Go on in another tensor of the same numbers, such as a snapshot's.

        Raises:
            InputError: it holds another number of them.
        """
        if tensor.shape != self.tensor.shape:
            raise InputError(f"the memory has {len(self.slots)} numbers, not a tensor of shape {tuple(tensor.shape)}.")
        self.tensor = tensor.to(_wide(tensor.device)).contiguous()

    def restart(self) -> None:
        """Begin again."""
        self.tensor.copy_(torch.tensor(self._beginning, dtype=self.tensor.dtype))

    def state_dict(self) -> dict[str, Any]:
        """The numbers with their names."""
        return {"memory": self.tensor.detach().clone(), "slots": list(self.slots)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave.

        Raises:
            InputError: the names are others.
        """
        given, numbers = list(state.get("slots", ())), state.get("memory")
        if given != self.slots or not isinstance(numbers, Tensor) or numbers.shape != self.tensor.shape:
            others = sorted({name.split("/")[0] for name in set(given) ^ set(self.slots)})
            raise InputError(
                f"the saved state is of other detectors than this one's ({', '.join(others) or 'other numbers'}).",
                hint="Continue with the detectors it was saved with, or start without that state.",
            )
        self.tensor.copy_(numbers)


def _wide(device: torch.device) -> torch.dtype:
    from ava.optimization.optimizers.engines.batch import wide_dtype

    return wide_dtype(device)
