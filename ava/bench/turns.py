"""Loops that take turns in one process, so that a machine whose speed drifts is unfair to none of them.

Each loop runs in a thread of its own and draws its batches from a gate. The gate lets a fixed number through a
turn; between the turn's start and the loop asking for one batch more lie exactly that many training steps. Only
one gate is open at a time.
"""

from __future__ import annotations

import contextlib
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Cost:
    """What one step costs, in seconds.

    Attributes:
        wall: elapsed time, one value a round.
        cpu: processor time of the process over all threads, one value a round.
    """

    wall: list[float]
    cpu: list[float]

    def ratio(self, base: Cost) -> float:
        """Median over rounds of this loop's processor time over `base`'s in the same round."""
        return statistics.median(mine / theirs for mine, theirs in zip(self.cpu, base.cpu, strict=True))

    def wall_ratio(self, base: Cost) -> float:
        """The same of elapsed time."""
        return statistics.median(mine / theirs for mine, theirs in zip(self.wall, base.wall, strict=True))


class Ended(Exception):  # noqa: N818
    """The stream is over. An exception ends every framework's loop at once; the end of an iterator does not."""


class Gate(Generic[T]):
    """An iterator of batches that opens for one turn at a time.

    Args:
        stream: the batches, without end.
        per_turn: how many pass in one turn.
    """

    def __init__(self, stream: Iterator[T], per_turn: int) -> None:
        self.stream, self.per_turn = stream, per_turn
        self._turn, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._closed = False

    def __iter__(self) -> Iterator[T]:
        while True:
            self._turn.acquire()
            if self._closed:
                raise Ended
            for _ in range(self.per_turn):
                yield next(self.stream)
            self._done.release()

    def take_turn(self, worker: threading.Thread) -> None:
        """Let one turn's batches through and wait until the loop wants more.

        Raises:
            RuntimeError: the loop ended before its turn did.
        """
        self._turn.release()
        while not self._done.acquire(timeout=1.0):
            if not worker.is_alive():
                raise RuntimeError(f"{worker.name} ended before its turn was over")

    def close(self) -> None:
        """End the stream."""
        self._closed = True
        self._turn.release()


def until_ended(loop: Callable[[Gate[T]], None], gate: Gate[T]) -> None:
    """Run a loop until its gate ends it."""
    with contextlib.suppress(Ended):
        loop(gate)


def measure(loops: dict[str, Callable[[Gate[T]], None]], gates: dict[str, Gate[T]], rounds: int) -> dict[str, Cost]:
    """Run the loops in alternation; the first two rounds warm up and do not count.

    Args:
        loops: name -> a loop that trains on the gate's batches until they end.
        gates: name -> its gate.
        rounds: counted turns of each loop.
    """
    workers = {
        name: threading.Thread(target=until_ended, args=(loop, gates[name]), name=name, daemon=True)
        for name, loop in loops.items()
    }
    costs = {name: Cost([], []) for name in loops}
    for worker in workers.values():
        worker.start()
    for number in range(rounds + 2):
        # In a new order each round: who follows whom, or itself, decides whose data is still in the caches.
        for name in random.Random(number).sample(list(workers), len(workers)):
            worker = workers[name]
            wall, cpu = time.perf_counter(), time.process_time()
            gates[name].take_turn(worker)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            if number >= 2:
                costs[name].wall.append(wall / gates[name].per_turn)
                costs[name].cpu.append(cpu / gates[name].per_turn)
    for name, worker in workers.items():
        gates[name].close()
        worker.join(timeout=30)
    return costs


def seconds_per_call(step: Callable[[], object], shortest: float) -> float:
    """Processor seconds per call; the first call brings the data to the caches and does not count.

    Args:
        step: called again and again.
        shortest: how long at the least, in processor seconds.
    """
    step()
    count, start = 0, time.process_time()
    while (elapsed := time.process_time() - start) < shortest or not count:
        step()
        count += 1
    return elapsed / count
