"""Optimizer steps in turns within one thread, so that a machine whose speed drifts is unfair to none of them."""

from __future__ import annotations

import gc
import math
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from ava.bench.parameter_sets import ParameterSet
from ava.bench.rules import BASE, Arm
from ava.bench.turns import Cost
from ava.optimization import state_bytes

WARM_UP = 2
STEPS, SHORTEST, LONGEST = 3, 0.1, 1.0
"""A turn takes at least so many steps and seconds, unless it is longer than `LONGEST` seconds."""
SLOW_ROUNDS = 3
"""Turns that count of an arm whose step takes longer than `LONGEST`."""
ARMS_AT_ONCE = 6
"""Optimizers in memory beside the base: about 0.7 GB each on the larger set."""


@dataclass(frozen=True)
class Measured:
    """What an arm's steps cost, beside the base's in the same rounds.

    Attributes:
        cost: of the arm, one value a round.
        base: of the base in the same rounds.
        state: bytes per parameter.
    """

    arm: Arm
    cost: Cost
    base: Cost
    state: float


def compare(
    arms: list[Arm], parameter_set: ParameterSet, rounds: int, tell: Callable[[str], None] = print, base: Arm = BASE
) -> list[Measured]:
    """Measure every arm beside the base, some at a time.

    Args:
        arms: what is compared; the base comes along by itself.
        parameter_set: what each optimizer gets its own copy of.
        rounds: turns that count.
        tell: is told which arms failed, and why.
        base: what the arms are measured beside.

    Returns:
        The base first, over all its rounds, then the arms that did not fail.
    """
    results: list[Measured] = []
    whole, held = Cost([], []), math.nan
    for start in range(0, max(1, len(arms)), ARMS_AT_ONCE):
        optimizers = _build([base, *arms[start : start + ARMS_AT_ONCE]], parameter_set, tell)
        costs = take_turns({arm: optimizer.step for arm, optimizer in optimizers.items()}, rounds, tell)
        beside = costs.pop(base)
        whole.cpu.extend(beside.cpu)
        whole.wall.extend(beside.wall)
        held = held_bytes(optimizers[base])
        for arm, cost in costs.items():
            same = Cost(beside.wall[: len(cost.wall)], beside.cpu[: len(cost.cpu)])
            results.append(Measured(arm, cost, same, held_bytes(optimizers[arm])))
        del optimizers
        gc.collect()
    return [Measured(base, whole, whole, held), *results]


def take_turns(
    steps: dict[Arm, Callable[[], Any]], rounds: int, tell: Callable[[str], None] = print
) -> dict[Arm, Cost]:
    """Run the arms in alternation; the first rounds warm up and do not count.

    Args:
        steps: arm -> one optimizer step.
        rounds: counted turns of each arm that is not slow.
        tell: is told which arms failed, and why.

    Returns:
        Seconds per step; a slow arm's are of the first counted rounds. Arms that failed are left out.
    """
    costs = {arm: Cost([], []) for arm in steps}
    for number in range(rounds + WARM_UP):
        # In a new order each round: who follows whom decides whose data is still in the caches.
        for arm in random.Random(number).sample(list(costs), len(costs)):
            cost = costs[arm]
            if len(cost.wall) >= SLOW_ROUNDS and min(cost.wall) > LONGEST:
                continue
            try:
                wall, cpu = _turn(steps[arm])
            except Exception as error:  # one that fails is no reason to lose the others' figures
                tell(_failure(arm, error))
                del costs[arm]
                continue
            if number >= WARM_UP:
                cost.wall.append(wall)
                cost.cpu.append(cpu)
    return costs


def _turn(step: Callable[[], Any]) -> tuple[float, float]:
    """Wall and processor seconds per step of one turn."""
    count, elapsed = 0, 0.0
    wall, cpu = time.perf_counter(), time.process_time()
    while elapsed < LONGEST and (count < STEPS or elapsed < SHORTEST):
        step()
        count += 1
        elapsed = time.perf_counter() - wall
    return elapsed / count, (time.process_time() - cpu) / count


def _build(
    arms: Iterable[Arm], parameter_set: ParameterSet, tell: Callable[[str], None]
) -> dict[Arm, torch.optim.Optimizer]:
    """Each arm's optimizer over its own parameters, after a first step."""
    built = {}
    for arm in arms:
        named = parameter_set.build()
        try:
            optimizer = arm.build(named)
            begin_training(optimizer)
            optimizer.step()
        except Exception as error:
            tell(_failure(arm, error))
            continue
        if any(parameter.grad is None for _, parameter in named):
            tell(f"{arm.library} {arm.rule} (it takes the gradients away)")
            continue
        built[arm] = optimizer
    return built


def begin_training(optimizer: torch.optim.Optimizer) -> None:
    """Leave the evaluation in which schedule-free optimizers begin."""
    if callable(train := getattr(optimizer, "train", None)):
        train()


def _failure(arm: Arm, error: Exception) -> str:
    return f"{arm.library} {arm.rule} ({type(error).__name__}: {error})"


def held_bytes(optimizer: torch.optim.Optimizer) -> float:
    """Bytes of state per parameter, also where a tensor holds others (torchao) or a state is nested (heavyball)."""
    plain = torch.optim.SGD([p for group in optimizer.param_groups for p in group["params"]])
    for parameter, state in optimizer.state.items():
        plain.state[parameter] = dict(enumerate(_tensors(state)))
    return state_bytes(plain)


def _tensors(value: Any) -> list[torch.Tensor]:
    """All plain tensors within a state."""
    if isinstance(value, dict):
        return [tensor for part in value.values() for tensor in _tensors(part)]
    if isinstance(value, list | tuple):
        return [tensor for part in value for tensor in _tensors(part)]
    if not isinstance(value, torch.Tensor):
        return []
    if hasattr(value, "__tensor_flatten__"):
        return [tensor for name in value.__tensor_flatten__()[0] for tensor in _tensors(getattr(value, name))]
    return [value]
