"""Made-up trainings for the detector: noise around a falling loss, and faults in it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator

from ava.optimization import HindranceDetector, Verdict


def training(steps: int, seed: int = 0, noise: float = 0.05) -> Iterator[tuple[float, float]]:
    """Gradient norm and loss of each step: the loss falls from 2.5 to 0.5."""
    generator = random.Random(seed)
    for step in range(steps):
        loss = (0.5 + 2 * math.exp(-step / 60)) * math.exp(generator.gauss(0, noise))
        yield math.exp(generator.gauss(0, 0.2)), loss


def verdicts(
    steps: int, fault: Callable[[int, float, float], tuple[float, float]], detector: HindranceDetector | None = None,
    **of: float,
) -> list[Verdict]:  # fmt: skip
    """What a detector says to a training in which `fault(step, norm, loss)` gives what is measured."""
    judge = detector or HindranceDetector()
    return [judge.judge(*fault(step, norm, loss)) for step, (norm, loss) in enumerate(training(steps, **of))]


def from_step(start: int, norm: float = 1.0, loss: float = 1.0, until: int = 10**9):
    """The fault that multiplies from one step on."""
    return lambda step, n, x: (n * norm, x * loss) if start <= step < until else (n, x)
