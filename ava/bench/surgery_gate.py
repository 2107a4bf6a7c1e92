"""What the gate of `AdaptiveGradientSurgeon` catches, and how near to exact surgery its weights are.

Small networks are trained, and in every step each objective's gradient of the whole trunk is taken beside what the gate
sees, the last layer. A pair is strongly in conflict where the cosine of the whole gradients is below -0.1. PCGrad's
exact combination is what every other way to weights is compared with; the trainings follow the adaptive one.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ava.bench.surgery_scenes import trunk
from ava.optimization.gradients.surgery.binding import bind
from ava.optimization.gradients.surgery.cosines import cosines
from ava.optimization.gradients.surgery.entrance import last_parameters
from ava.optimization.gradients.surgery.gate import ConflictGate
from ava.optimization.gradients.surgery.gram import combine, gram_matrix
from ava.optimization.gradients.surgery.graph import divide
from ava.optimization.gradients.surgery.objectives import Objectives

COLUMNS = {
    "problem": "problem", "tasks": "T", "strong": "strong pairs", "caught": "caught", "false": "false alarms",
    "weights": "weights", "cosine": "cosine", "cosine_low": "5th percentile", "against": "against", "exact": "exact",
}  # fmt: skip
STRONG = -0.1
EVERY = 40
BATCH = 64

Losses = Callable[[], list[Tensor]]


@dataclass(frozen=True)
class Training:
    """A trunk, its heads and their losses on the next batch."""

    trunk: nn.Module
    heads: nn.ModuleList
    losses: Losses


@dataclass
class Way:
    """A way to weights, and what it gave.

    Attributes:
        weigh: (step, Gram matrix of the last layer, of all) -> weights, and whether it needed the second matrix.
        cosines: of its combination with the exact one, in steps where that differs from the sum.
        against: in the same steps, the share of objectives whose own gradient its combination goes against.
        exact: the share of steps that needed every whole gradient.
    """

    weigh: Callable[[int, Tensor, Tensor], tuple[Tensor, bool]]
    cosines: list[float] = field(default_factory=list)
    against: list[float] = field(default_factory=list)
    exact: list[bool] = field(default_factory=list)


def measure(steps: int, seeds: int) -> list[dict[str, Any]]:
    """One row a way of each problem.

    Args:
        steps: of each training.
        seeds: trainings of each problem.
    """
    rows = []
    for name, build in PROBLEMS.items():
        counts = dict.fromkeys(("strong", "caught", "aligned", "false", "pairs"), 0)
        ways: dict[str, list[Way]] = {}
        num_tasks = 0
        for seed in range(seeds):
            training = build(seed)
            num_tasks = len(training.heads)
            for label, way in _run(training, steps, counts).items():
                ways.setdefault(label, []).append(way)
        rows += [_row(name, num_tasks, label, parts, counts) for label, parts in ways.items()]
    return rows


def _run(training: Training, steps: int, counts: dict[str, int]) -> dict[str, Way]:
    """Train along the adaptive weights; what the gate and each way did."""
    gate = ConflictGate()
    ways = {"sum": Way(_ones), "last layer's": Way(_weigh), f"exact, kept for {EVERY}": Way(_kept()),
            f"adaptive, exact every {EVERY}": Way(_adaptive(gate))}  # fmt: skip
    parameters = list(training.trunk.parameters())
    optimizer = torch.optim.Adam([*parameters, *training.heads.parameters()], lr=1e-3)
    for step in range(steps):
        losses = training.losses()
        near = last_parameters(divide({str(i): loss for i, loss in enumerate(losses)}), set(map(id, parameters)), 1)
        place = next(index for index, parameter in enumerate(parameters) if parameter is near[0])
        rows = [list(torch.autograd.grad(loss, parameters, retain_graph=True)) for loss in losses]
        few, full = gram_matrix([row[place : place + 1] for row in rows]), gram_matrix(rows)
        wanted = _weigh(step, few=full, full=full)[0]
        for way in ways.values():
            weights = _note(way, step, few, full, wanted)
        _count(gate, full, counts)
        optimizer.zero_grad()
        torch.autograd.backward(torch.stack(losses).sum())
        for parameter, gradient in zip(parameters, combine(rows, weights), strict=True):
            parameter.grad = gradient
        optimizer.step()
    return ways


def _note(way: Way, step: int, few: Tensor, full: Tensor, wanted: Tensor) -> Tensor:
    """Ask one way, and compare it with what is wanted."""
    weights, was_exact = way.weigh(step, few, full)
    way.exact.append(was_exact)
    if bool((wanted != 1).any()):
        lengths = (wanted @ full @ wanted * (weights @ full @ weights)).sqrt()
        way.cosines.append(float(wanted @ full @ weights / lengths))
        # Rounding leaves what was projected a little to one side of orthogonal.
        way.against.append(float((full @ weights < -1e-9 * full.diagonal()).double().mean()))
    return weights


def _count(gate: ConflictGate, full: Tensor, counts: dict[str, int]) -> None:
    upper = torch.triu(torch.ones_like(full), 1).bool()
    assert gate.conflicts is not None
    flagged, true = gate.conflicts[upper], cosines(full)[upper]
    counts["pairs"] += len(true)
    counts["strong"] += int((true < STRONG).sum())
    counts["caught"] += int((flagged & (true < STRONG)).sum())
    counts["aligned"] += int((true >= 0).sum())
    counts["false"] += int((flagged & (true >= 0)).sum())


def _row(name: str, num_tasks: int, label: str, ways: list[Way], counts: dict[str, int]) -> dict[str, Any]:
    of_gate = label.startswith("adaptive")
    found = sorted(value for way in ways for value in way.cosines) or [1.0]
    against = [value for way in ways for value in way.against] or [0.0]
    return {
        "problem": name, "tasks": num_tasks, "weights": label,
        "strong": f"{counts['strong'] / counts['pairs']:.1%}" if of_gate else None,
        "caught": f"{counts['caught'] / max(counts['strong'], 1):.1%}" if of_gate else None,
        "false": f"{counts['false'] / max(counts['aligned'], 1):.1%}" if of_gate else None,
        "cosine": round(statistics.mean(found), 4), "cosine_low": round(found[len(found) // 20], 3),
        "against": f"{statistics.mean(against):.1%}",
        "exact": f"{statistics.mean(flag for way in ways for flag in way.exact):.1%}",
    }  # fmt: skip


def _ones(step: int, few: Tensor, full: Tensor) -> tuple[Tensor, bool]:
    return torch.ones(len(full), dtype=torch.float64), False


def _weigh(step: int, few: Tensor, full: Tensor) -> tuple[Tensor, bool]:
    return bind("pcgrad")(Objectives(few, step=step)), False


def _kept() -> Callable[[int, Tensor, Tensor], tuple[Tensor, bool]]:
    kept: list[Tensor] = []

    def weigh(step: int, few: Tensor, full: Tensor) -> tuple[Tensor, bool]:
        if step % EVERY == 0:
            kept[:] = [_weigh(step, full, full)[0]]
        return kept[0], step % EVERY == 0

    return weigh


def _adaptive(gate: ConflictGate) -> Callable[[int, Tensor, Tensor], tuple[Tensor, bool]]:
    """As `AdaptiveGradientSurgeon` does by default."""
    calibrated: list[int] = []

    def weigh(step: int, few: Tensor, full: Tensor) -> tuple[Tensor, bool]:
        gate.look(few)
        if not gate.is_open:
            return _ones(step, few, full)
        if not calibrated or step - calibrated[-1] >= EVERY:
            gate.calibrate(few, full)
            calibrated.append(step)
            return _weigh(step, full, full)[0], True
        return _weigh(step, gate.estimate(few), full)

    return weigh


def digits(seed: int) -> Training:
    """Which digit, how it was turned, what it looked like before, and whether it is even."""
    from sklearn.datasets import load_digits

    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    pixels, classes = load_digits(return_X_y=True)
    images, labels = torch.from_numpy(pixels).float().view(-1, 1, 8, 8) / 16, torch.from_numpy(classes)
    body = trunk(((16, 1, 1), (16, 1, 1), (32, 2, 1), (32, 1, 1)), channels=1)
    heads = nn.ModuleList([nn.Linear(512, size) for size in (10, 4, 64, 2)])

    def losses() -> list[Tensor]:
        chosen = torch.randint(0, len(images) // 2, (BATCH,), generator=generator)
        turns = torch.randint(0, 4, (BATCH,), generator=generator)
        before, label = images[chosen], labels[chosen]
        turned = torch.stack([i.rot90(int(k), (1, 2)) for i, k in zip(before, turns, strict=True)])
        features = body(turned).flatten(1)
        number, turn, look, parity = (head(features) for head in heads)
        return [
            functional.cross_entropy(number, label), functional.cross_entropy(turn, turns),
            10 * functional.mse_loss(look, before.flatten(1)), functional.cross_entropy(parity, label % 2),
        ]  # fmt: skip

    return Training(body, heads, losses)


def teachers(seed: int, opposed: tuple[tuple[int, int], ...], num_tasks: int) -> Training:
    """Linear functions of a random network's features; of opposed pairs one wants nearly the other's opposite.

    The heads are alike and fixed, so that what is opposed stays so.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    layers = ((16, 1, 1), (16, 1, 1), (32, 2, 1), (32, 1, 1))
    teacher, body = trunk(layers).eval(), trunk(layers)
    wants = [torch.randn(32, 8) / 32**0.5 for _ in range(num_tasks)]
    for one, other in opposed:
        wants[other] = -0.8 * wants[one] + 0.6 * wants[other]
    heads = nn.ModuleList([nn.Linear(32, 8) for _ in range(num_tasks)]).requires_grad_(False)
    for head in heads:
        head.load_state_dict(heads[0].state_dict())

    def losses() -> list[Tensor]:
        inputs = torch.randn(BATCH, 3, 8, 8, generator=generator)
        with torch.no_grad():
            known = teacher(inputs).mean((2, 3))
            known = (known - known.mean(0)) / known.std(0)
        features = body(inputs).mean((2, 3))
        return [functional.mse_loss(head(features), known @ want) for head, want in zip(heads, wants, strict=True)]

    return Training(body, heads, losses)


PROBLEMS: dict[str, Callable[[int], Training]] = {
    "digits": digits,
    "a sixth opposed": lambda seed: teachers(seed, ((0, 1),), 4),
    "one against three": lambda seed: teachers(seed, ((0, 1), (0, 2), (0, 3)), 4),
    "a fifth opposed": lambda seed: teachers(seed, ((0, 1), (2, 3), (4, 5)), 6),
}
