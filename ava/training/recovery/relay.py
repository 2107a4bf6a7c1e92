"""How the host learns what happened on the device, without waiting for it.

On a CPU at once. On an accelerator the numbers of a step are copied to the host beside what is computed, and acted upon
`LAG` steps later, when they have long been there: always the same number of steps, so that all ranks do the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ava.optimization.stability.verdict import Number

LAG = 2
"""Steps between what happens on an accelerator and what is done about it."""

Numbers = dict[str, float]


class Relay:
    """Numbers of steps on their way to the host.

    Args:
        device: where they are computed.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.lag = 0 if device.type == "cpu" else LAG
        self._waiting: deque[tuple[int, Numbers | _Copy]] = deque()

    def send(self, step: int, numbers: Mapping[str, Number]) -> None:
        """Let the numbers of a step go."""
        if self.lag == 0:
            self._waiting.append((step, {name: float(value) for name, value in numbers.items()}))
        else:
            self._waiting.append((step, _Copy(numbers, self.device)))

    def receive(self, everything: bool = False) -> list[tuple[int, Numbers]]:
        """What has arrived, in order.

        Args:
            everything: wait for what is on its way, as nothing comes after it.
        """
        arrived = []
        while len(self._waiting) > (0 if everything else self.lag):
            step, numbers = self._waiting.popleft()
            arrived.append((step, numbers.read() if isinstance(numbers, _Copy) else numbers))
        return arrived

    def clear(self) -> None:
        """Forget what is on its way: the run went back to before it."""
        self._waiting.clear()

    def state_dict(self) -> dict[str, Any]:
        """What has not been acted upon; waits for the device."""
        self._waiting = deque((step, n.read() if isinstance(n, _Copy) else n) for step, n in self._waiting)
        return {"waiting": [[step, dict(numbers)] for step, numbers in self._waiting if isinstance(numbers, dict)]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self._waiting = deque((int(step), dict(numbers)) for step, numbers in state["waiting"])


class _Copy:
    """One step's numbers, being copied."""

    def __init__(self, numbers: Mapping[str, Number], device: torch.device) -> None:
        self.names = list(numbers)
        values = [torch.as_tensor(value, device=device, dtype=torch.float32).reshape(()) for value in numbers.values()]
        packed = torch.stack(values)
        self.event: Any = None
        self.values: Tensor = packed
        if device.type == "cuda":
            self.values = torch.empty(packed.shape, dtype=packed.dtype, pin_memory=True)
            self.values.copy_(packed, non_blocking=True)
            self.event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self.event.record()

    def read(self) -> Numbers:
        """Wait for the copy, which is over by now as a rule."""
        if self.event is not None:
            self.event.synchronize()
        return dict(zip(self.names, self.values.tolist(), strict=True))
