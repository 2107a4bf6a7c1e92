"""How well a training keeps its device busy: the time it waits for data, and the time that the device computes.

    usage = Usage(device)
    for window in usage.waited(windows):     # the time that `next` takes is waiting
        ...
        with usage.paused():                 # an evaluation is no training
            ...
    columns = usage.read(seconds)            # since the last reading

On a processor, what waits for data is the processor that makes it: both shares count its work. On an accelerator the
host waits only where data is not there by the time that the device wants more.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")
_FRESH = 1.0
"""Seconds that a reading of an accelerator's counter stays good: the driver averages over about as long."""


class Usage:
    """Clocks beside a training.

    Args:
        device: where it computes.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._waited = 0.0
        self._worked = time.process_time()
        self._counter: tuple[float, float] | None = None

    def waited(self, items: Iterable[T]) -> Iterator[T]:
        """The same items; the time until each comes is counted."""
        iterator = iter(items)
        while True:
            began = time.perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            self._waited += time.perf_counter() - began
            yield item

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is worked within it is not the training's."""
        began = time.process_time()
        try:
            yield
        finally:
            self._worked += time.process_time() - began

    def restart(self) -> None:
        """Count from here."""
        self._waited, self._worked = 0.0, time.process_time()

    def read(self, seconds: float) -> dict[str, float]:
        """The shares since the last reading.

        Args:
            seconds: of training since then.

        Returns:
            `loader_wait`, the share of the time in which the step waited for data, 0 to 1; `utilisation`, the share in
            which the device computed: of an accelerator as its driver counts it, of a processor the time of all its
            threads over those that torch may use; missing where nobody counts.
        """
        waited, worked = self._waited, time.process_time() - self._worked
        self.restart()
        columns = {"loader_wait": min(waited / seconds, 1.0)}
        if self.device.type == "cpu":
            return columns | {"utilisation": min(worked / (seconds * torch.get_num_threads()), 1.0)}
        busy = self._of_the_driver()
        return columns if busy is None else columns | {"utilisation": busy}

    def _of_the_driver(self) -> float | None:
        """The driver's count, asked for once a second at most; None where it cannot be asked."""
        now = time.monotonic()
        if self._counter is not None and now - self._counter[0] < _FRESH:
            return self._counter[1]
        if self.device.type != "cuda":
            return None
        try:
            busy = torch.cuda.utilization(self.device) / 100
        except (ImportError, RuntimeError):  # without NVML's Python binding, or where a container hides the driver
            return None
        self._counter = (now, busy)
        return busy
