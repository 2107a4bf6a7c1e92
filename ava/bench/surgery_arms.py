"""The ways to a reconciled gradient that are measured: ours, torchjd's, LibMTL's as we understand it, and by hand."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ava.bench.surgery_scenes import Scene
from ava.optimization import AdaptiveGradientSurgeon, GradientSurgeon
from ava.optimization.catalogue import list_surgery
from ava.optimization.gradients.surgery.binding import bind, needs
from ava.optimization.gradients.surgery.reconciler import Reconciler

Step = Callable[[], Any]

TARGETS: dict[str, dict[int, float]] = {
    "parameters": {2: 1.7, 4: 2.75, 8: 4.95},
    "features": {2: 1.05, 4: 1.05, 8: 1.05},
    "every=10": {4: 1.25},
    "adaptive": {4: 1.25},
}


@dataclass(frozen=True)
class Arm:
    """One way.

    Attributes:
        method: what it computes.
        way: how.
        library: whose it is.
        build: a scene -> one step's forward and backward, which leaves gradients in `.grad`.
        period: steps after which its costs repeat; a turn takes whole periods.
        in_conflict: whether its scene has conflicts.
    """

    method: str
    way: str
    library: str
    build: Callable[[Scene], Step]
    period: int = 1
    in_conflict: bool = True


def plain_sum(scene: Scene) -> Step:
    """One backward pass of the sum."""

    def step() -> None:
        scene.clear()
        _, losses = scene.forward()
        torch.autograd.backward(torch.stack(losses).sum())

    return step


BASE = Arm("sum", "plain sum", "torch", plain_sum)


def arms(methods: list[str] | None = None, peers: bool = True) -> Iterator[Arm]:
    """The base, others' ways where they are installed, and ours.

    Args:
        methods: of which the exact ways are measured; None for all.
        peers: whether others' ways are among them.
    """
    yield BASE
    chosen = list_surgery() if methods is None else methods
    if peers:
        if importlib.util.find_spec("torchjd") is not None:
            yield Arm("pcgrad", "mtl_backward", "torchjd", torchjd_vmap)
            yield Arm("pcgrad", "mtl_backward, chunks of 1", "torchjd", torchjd_in_turn)
        yield Arm("pcgrad", "passes and vectors", "LibMTL's way", vectors)
    yield Arm("none", "a bare pass an objective", "torch", bare_passes)
    yield Arm("pcgrad", "GradientSurgeon", "ava", by_hand)
    for method in chosen:
        if needs(method) == "losses":
            yield Arm(method, "losses", "ava", _reconciler(method, "parameters"))
        else:
            yield Arm(method, "parameters", "ava", _reconciler(method, "parameters"))
            yield Arm(method, "features", "ava", _reconciler(method, "features"))
    yield Arm("pcgrad", "every=10", "ava", _reconciler("pcgrad", "parameters", 10), period=10)
    yield Arm("pcgrad", "adaptive", "ava", _adaptive(), period=40)
    yield Arm("pcgrad", "adaptive, no conflict", "ava", _adaptive(), in_conflict=False)
    yield Arm("pcgrad", "adaptive, no conflict, look_every=4", "ava", _adaptive(4), 4, False)


def bare_passes(scene: Scene) -> Step:
    """What no exact way can do without: a backward pass an objective, and nothing done with what it gives."""
    parameters = scene.parameters

    def step() -> None:
        scene.clear()
        _, losses = scene.forward()
        for index, loss in enumerate(losses):
            torch.autograd.grad(loss, parameters, retain_graph=index < len(losses) - 1, allow_unused=True)

    return step


def vectors(scene: Scene) -> Step:
    """A pass of `backward(retain_graph=True)` an objective, gradients flattened, projected one by one, laid back."""
    shared = list(scene.trunk.parameters())

    def step() -> None:
        scene.clear()
        _, losses = scene.forward()
        rows = []
        for loss in losses:
            for parameter in shared:
                parameter.grad = None
            torch.autograd.backward(loss, retain_graph=True)
            rows.append(torch.cat([p.grad.reshape(-1) for p in shared if p.grad is not None]))
        projected = [row.clone() for row in rows]
        for i, row in enumerate(projected):
            for j in random.sample(range(len(rows)), len(rows)):
                if j != i and (product := torch.dot(row, rows[j])) < 0:
                    row -= product / rows[j].norm() ** 2 * rows[j]
        total, place = torch.stack(projected).sum(0), 0
        for parameter in shared:
            parameter.grad = total[place : place + parameter.numel()].view_as(parameter).clone()
            place += parameter.numel()

    return step


def torchjd_vmap(scene: Scene) -> Step:
    """`mtl_backward` with its defaults."""
    return _torchjd(scene, None)


def torchjd_in_turn(scene: Scene) -> Step:
    """`mtl_backward`, one objective at a time."""
    return _torchjd(scene, 1)


def by_hand(scene: Scene) -> Step:
    """A pass of `autograd.grad` an objective, and `GradientSurgeon.apply`."""
    surgeon, parameters = GradientSurgeon("pcgrad", "sum"), scene.parameters

    def step() -> None:
        scene.clear()
        _, losses = scene.forward()
        last = len(losses) - 1
        rows = [
            torch.autograd.grad(loss, parameters, retain_graph=index < last, allow_unused=True)
            for index, loss in enumerate(losses)
        ]
        for parameter, gradient in zip(parameters, surgeon.apply(rows), strict=True):
            parameter.grad = gradient

    return step


def _torchjd(scene: Scene, chunk: int | None) -> Step:
    from torchjd.aggregation import PCGrad  # type: ignore[import-not-found, unused-ignore]
    from torchjd.autojac import jac_to_grad, mtl_backward  # type: ignore[import-not-found, unused-ignore]

    shared, aggregator = list(scene.trunk.parameters()), PCGrad()

    def step() -> None:
        scene.clear()
        features, losses = scene.forward()
        mtl_backward(losses, features=features, parallel_chunk_size=chunk)
        jac_to_grad(shared, aggregator)

    return step


def _reconciler(method: str, level: Literal["parameters", "features"], every: int = 1) -> Callable[[Scene], Step]:
    def build(scene: Scene) -> Step:
        reconciler = Reconciler(bind(method), scene.parameters, needs=needs(method), level=level, every=every)
        steps = iter(range(10**9))

        def step() -> None:
            scene.clear()
            features, losses = scene.forward()
            reconciler.backward(_named(losses), 1.0, features=[features])
            reconciler.finish(next(steps))

        return step

    return build


def _adaptive(look_every: int = 1) -> Callable[[Scene], Step]:
    def build(scene: Scene) -> Step:
        surgeon, model = AdaptiveGradientSurgeon(look_every=look_every), torch.nn.ModuleList([scene.trunk, scene.heads])

        def step() -> None:
            scene.clear()
            _, losses = scene.forward()
            torch.autograd.backward(surgeon.process_losses(model, losses))

        return step

    return build


def _named(losses: list[Tensor]) -> dict[str, Tensor]:
    return {str(index): loss for index, loss in enumerate(losses)}
