"""What snapshots and steps take, in seconds: on the host's clock, and on a GPU's without waiting for it."""

from __future__ import annotations

import time
from collections import deque
from typing import Protocol

import torch

TICKS = 4
"""Steps after a snapshot that are measured."""


class Clock(Protocol):
    """Measures takes and the steps that follow them.

    Attributes:
        takes: seconds of the last takes.
        steps: seconds of the last steps measured.
        seconds: spent on snapshots so far.
    """

    takes: deque[float]
    steps: deque[float]
    seconds: float

    def begin(self) -> None:
        """A snapshot may be taken: the time that this costs runs from now."""

    def prepare(self) -> None:
        """Memory is there; what took time since `begin` is paid once, and the next take will not need it."""

    def end(self) -> None:
        """It was taken."""

    def tick(self) -> None:
        """A step after it is over, and no snapshot was taken in between."""

    def read(self) -> None:
        """Take up what is known by now."""


class HostClock:
    """For training on the CPU: what this thread does is what it costs. What others do meanwhile does not count."""

    def __init__(self) -> None:
        self.takes: deque[float] = deque(maxlen=5)
        self.steps: deque[float] = deque(maxlen=32)
        self.seconds, self._step_began = 0.0, time.thread_time()
        self._began = self._take_began = 0.0

    def begin(self) -> None:
        """As of `Clock`."""
        self._began = self._take_began = time.thread_time()

    def prepare(self) -> None:
        """As of `Clock`."""
        self._take_began = time.thread_time()

    def end(self) -> None:
        """As of `Clock`."""
        self._step_began = time.thread_time()
        self.takes.append(self._step_began - self._take_began)
        self.seconds += self._step_began - self._began

    def tick(self) -> None:
        """As of `Clock`."""
        now = time.thread_time()
        self.steps.append(now - self._step_began)
        self._step_began = now

    def read(self) -> None:
        """As of `Clock`."""


class DeviceClock:
    """For training on a GPU: a take costs what it keeps the device or the host busy, whichever is more.

    A take and the step after it lie between three events, which are read once the device has passed them.
    """

    def __init__(self) -> None:
        self.takes: deque[float] = deque(maxlen=5)
        self.steps: deque[float] = deque(maxlen=16)
        self.seconds = self._waited = 0.0
        self._host = HostClock()
        self._marks: list[torch.cuda.Event] = []
        self._unread: deque[tuple[list[torch.cuda.Event], float, float]] = deque()

    def begin(self) -> None:
        """As of `Clock`."""
        self._host.begin()
        self._marks = []
        self._mark()

    def prepare(self) -> None:
        """As of `Clock`."""
        self._host.prepare()

    def end(self) -> None:
        """As of `Clock`."""
        self._mark()
        self._host.end()

    def tick(self) -> None:
        """As of `Clock`."""
        if len(self._marks) == 2:
            self._mark()
            self._unread.append((self._marks, self._host.takes[-1], self._host.seconds))
            self._marks = []

    def read(self) -> None:
        """As of `Clock`."""
        while self._unread and self._unread[0][0][2].query():  # type: ignore[no-untyped-call]
            (begun, taken, stepped), on_host, whole = self._unread.popleft()
            on_device = begun.elapsed_time(taken) / 1e3
            self.takes.append(max(on_host, on_device))
            self._waited += max(0.0, on_device - on_host)
            self.seconds = whole + self._waited
            self.steps.append(taken.elapsed_time(stepped) / 1e3)

    def _mark(self) -> None:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        self._marks.append(event)


def clock_for(device: torch.device) -> Clock:
    """The clock that knows what happens on a device."""
    return DeviceClock() if device.type == "cuda" else HostClock()
