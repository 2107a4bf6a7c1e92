"""What a detailed step, and the search for the first NaN, cost over a plain step of the digits convnet.

    python -m ava.bench.health_detail
    python -m ava.bench.health_detail --batch_size 256 --rounds 60

A ratio is the median over rounds of an arm's processor time per step over the plain step's of the same round, on one
thread. A plain step is forward, backward, measurement of the gradients and AdamW.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ava.bench import machine
from ava.bench.trainings import positive
from ava.data.source import ImageSpec
from ava.models.convnet import ConvNet
from ava.optimization import get_optimizer
from ava.optimization.gradients.health.anomaly import AnomalyWatch
from ava.optimization.gradients.health.detail.activations import ActivationWatch
from ava.optimization.gradients.health.detail.layers import LayerWatch
from ava.optimization.gradients.health.detail.small_batch import SmallBatch
from ava.optimization.gradients.health.measure import measure

WARM_UP, PER_TURN = 2, 5


def main(argv: list[str] | None = None) -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m ava.bench.health_detail", description=__doc__.splitlines()[0])
    parser.add_argument("--batch_size", type=positive, default=64, help="images of a step (default 64)")
    parser.add_argument("--rounds", type=positive, default=40, help="turns of each arm that count (default 40)")
    arguments = parser.parse_args(argv)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        costs = take_turns(arguments.batch_size, arguments.rounds)
        described = machine.describe()
    finally:
        torch.set_num_threads(threads)
    table = Table(title=described)
    for heading in ("step", "CPU ms", "over plain"):
        table.add_column(heading, justify="left" if heading == "step" else "right")
    for name, cost in costs.items():
        ratio = statistics.median(mine / base for mine, base in zip(cost, costs["plain"], strict=True))
        table.add_row(name, f"{1e3 * statistics.median(cost):.2f}", f"{ratio:.2f}")
    Console().print(table)
    return 0


def take_turns(batch_size: int, rounds: int) -> dict[str, list[float]]:
    """Arm -> processor seconds of a step, one value a round; arms alternate, and the first rounds warm up."""
    arms = {name: _Scene(batch_size) for name in ARMS}
    costs: dict[str, list[float]] = {name: [] for name in ARMS}
    for number in range(WARM_UP + rounds):
        for name, scene in arms.items():
            began = time.thread_time()
            for _ in range(PER_TURN):
                ARMS[name](scene)
            if number >= WARM_UP:
                costs[name].append((time.thread_time() - began) / PER_TURN)
    return costs


@dataclass
class _Scene:
    """A network of its own for each arm, and one batch."""

    batch_size: int

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.model: nn.Module = ConvNet(ImageSpec(1, 8, 8, 10))
        adamw: Any = get_optimizer("adamw")
        self.optimizer: torch.optim.Optimizer = adamw(self.model.parameters(), lr=1e-4)
        self.inputs = torch.randn(self.batch_size, 1, 8, 8)
        self.targets = torch.randint(10, (self.batch_size,))

    def backward(self) -> None:
        self.optimizer.zero_grad()
        loss: Tensor = cross_entropy(self.model(self.inputs), self.targets)
        loss.backward()  # type: ignore[no-untyped-call]


def _plain(scene: _Scene) -> None:
    scene.backward()
    measure(scene.model.parameters())
    scene.optimizer.step()


def _detailed(scene: _Scene) -> None:
    """Layers, activations and a draw for the noise scale, all read."""
    with ActivationWatch(scene.model) as activations, SmallBatch(scene.model.parameters()) as small:
        scene.backward()
    layers = LayerWatch(scene.model.named_parameters(), measure(scene.model.parameters()))
    scene.optimizer.step()
    layers.after_step().read()
    activations.read()
    if small.square is not None:
        small.square.item()


def _searched(scene: _Scene) -> None:
    with AnomalyWatch(scene.model, {"inputs": scene.inputs}):
        scene.backward()
    measure(scene.model.parameters())
    scene.optimizer.step()


def _searched_by_torch(scene: _Scene) -> None:
    """The anomaly mode of torch sees the backward pass only."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that it is slow
        with torch.autograd.set_detect_anomaly(True):
            scene.backward()
    measure(scene.model.parameters())
    scene.optimizer.step()


ARMS: dict[str, Callable[[_Scene], None]] = {
    "plain": _plain, "detailed": _detailed, "health.anomaly": _searched, "torch's detect_anomaly": _searched_by_torch,
}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
