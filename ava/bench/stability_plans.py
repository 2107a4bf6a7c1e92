"""Which trainings the tables of `ava bench stability` need."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ava.bench.faults import Fault
from ava.bench.stability_trainings import Scenario

LOWEST = {
    "digits": {"adamw": 2e-2, "agmohd": 2e-2, "lion": 3e-3, "sgd": 0.2},
    "gpt": {"adamw": 2e-3, "agmohd": 2e-3, "lion": 1e-3, "sgd": 0.1},
}
"""Beginning of a problem's name -> optimizer -> the lowest rate of its grid, about the best: nearly all of the grid is
too high, as where somebody is in a hurry. Rates that are too low fail nowhere."""
FACTORS = tuple(10 ** (k / 3) for k in range(7))
"""Over two decades."""
SEARCHED = tuple(10 ** (k / 4) for k in range(-2, 5))
"""Around the rates of `BEST`, to find the best of a claim's contestants."""
BEST = {
    "digits": {"adamw": 5e-3, "agmohd": 5e-3, "lion": 2e-3, "sgd": 0.3},
    "gpt_narrow": {"adamw": 1e-3, "agmohd": 1e-3, "lion": 5e-4, "sgd": 0.05},
    "gpt": {"adamw": 2e-3, "agmohd": 2e-3, "lion": 1e-3, "sgd": 0.1},
}
"""Beginning of a problem's name, the longest first -> optimizer -> the rate of its trainings with faults: near the best
of a grid. The narrow GPT has half of it: at the whole rate even the control moves its loss by 0.03 nats."""
TUNED_ON, HELD_OUT = ("digits", "gpt"), ("digits_mlp", "gpt_narrow")
FAULTS = tuple(
    Fault(name, at=at)
    for name, at in {
        "nan_batch": 100, "nan_batches": 80, "infinite_gradient": 100, "gradient_spike": 100, "random_labels": 100,
        "lr_spike": 100, "weight_spike": 100, "nan_weight": 100, "bad_start": 1, "fp16_overflow": 100,
        "corrupt_samples": 100, "frozen_layer": 100, "rank_divergence": 100, "lost_step": 100,
    }.items()
)  # fmt: skip
OTHER_FAULTS = (
    Fault("nan_batch", at=31, duration=3), Fault("nan_batches", at=40, duration=200, size=0.1),
    Fault("infinite_gradient", at=170, duration=6), Fault("gradient_spike", at=67, duration=3, size=1e3),
    Fault("random_labels", at=140, duration=20), Fault("lr_spike", at=60, duration=12, size=30.0),
    Fault("weight_spike", at=190, size=8.0), Fault("nan_weight", at=45, place="*blocks*"),
    Fault("bad_start", duration=20, size=50.0), Fault("fp16_overflow", at=150, duration=15),
    Fault("corrupt_samples", at=60, duration=20, size=0.5), Fault("frozen_layer", at=40, duration=60),
    Fault("rank_divergence", at=170, size=0.1), Fault("lost_step", at=60, duration=2),
)  # fmt: skip
"""Other times, sizes, lengths and places, met with other models."""
CONTROL = "lost_step"
"""The kind that does no harm, and counts for nothing: its row says how far a loss wanders for no reason."""
RANKS = 3
"""Fewest of which two can be right against one."""
LENGTHS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Of trainings, in units of the problem's, each with its whole schedule."""
LONG = 3.0
"""Length of the clean trainings that false alarms are counted in."""


@dataclass(frozen=True)
class Asked:
    """What the user wants measured.

    Attributes:
        problems: keys of `PROBLEMS`.
        optimizers: registered names.
        guards: keys of `GUARDS`.
        seeds: one training of everything each.
        kinds: kinds of faults.
        held_out: whether faults and models are the other ones.
        fp16: whether an overflow is met in float16, which a processor computes slowly, rather than in float32.
    """

    problems: Sequence[str]
    optimizers: Sequence[str]
    guards: Sequence[str]
    seeds: Sequence[int]
    kinds: Sequence[str]
    held_out: bool = False
    fp16: bool = False

    @property
    def fault_problems(self) -> list[str]:
        """The problems of the fault table."""
        other = dict(zip(TUNED_ON, HELD_OUT, strict=True))
        return [other[problem] if self.held_out else problem for problem in self.problems]


def rate(problem: str, optimizer: str) -> float:
    """The rate of a training that is not one of a grid."""
    return _of(BEST, problem, optimizer)


def rates(problem: str, optimizer: str) -> list[float]:
    """The rates of a grid."""
    return [_of(LOWEST, problem, optimizer) * factor for factor in FACTORS]


def _of(table: Mapping[str, Mapping[str, float]], problem: str, optimizer: str) -> float:
    row = next(row for name, row in table.items() if problem.startswith(name))
    return row[optimizer.split()[0]]


def grid(asked: Asked) -> list[Scenario]:
    """Every optimizer and guard at every rate."""
    return [
        Scenario(problem, optimizer, lr, guard, seed)
        for problem in asked.problems for optimizer in asked.optimizers for guard in asked.guards
        for lr in rates(problem, optimizer) for seed in asked.seeds
    ]  # fmt: skip


def faulty(asked: Asked) -> list[Scenario]:
    """Every fault; `Scenario.clean` of each is what it is compared with."""
    found = []
    for fault in OTHER_FAULTS if asked.held_out else FAULTS:
        if fault.kind not in asked.kinds:
            continue
        several = fault.kind == "rank_divergence"
        for problem in asked.fault_problems:
            if several and not problem.startswith("digits"):
                continue  # three processes take half a minute to start
            half = asked.fp16 and fault.kind == "fp16_overflow" and problem.startswith("digits")
            found += [
                Scenario(
                    problem, optimizer, rate(problem, optimizer), guard, seed, dataclasses.replace(fault, seed=seed),
                    precision="fp16" if half else "fp32", ranks=RANKS if several else 1,
                )
                for optimizer in asked.optimizers for guard in asked.guards for seed in asked.seeds
            ]  # fmt: skip
    return found


def with_clean(scenarios: Sequence[Scenario]) -> list[Scenario]:
    """The scenarios, and before them what they are compared with, none twice."""
    return list(dict.fromkeys([one.clean for one in scenarios] + list(scenarios)))


def clean(asked: Asked) -> list[Scenario]:
    """Long trainings without a fault; clipping alone among the guards in any case."""
    guards = dict.fromkeys(["clip", *(guard for guard in asked.guards if guard != "none")])
    return [
        Scenario(problem, optimizer, rate(problem, optimizer), guard, seed, length=LONG)
        for problem in asked.problems for optimizer in asked.optimizers for guard in guards for seed in asked.seeds
    ]  # fmt: skip


def claims(asked: Asked, best: dict[tuple[str, str], float], challengers: Sequence[str]) -> list[Scenario]:
    """AdamW and its challengers at their best rates, trained for shorter and shorter times, clipped alike.

    Args:
        asked: problems and seeds.
        best: problem and optimizer -> rate.
        challengers: beside AdamW.
    """
    return [
        Scenario(problem, optimizer, best[problem, optimizer], "clip", seed, length=length)
        for problem in asked.problems for optimizer in ("adamw", *challengers) for length in LENGTHS
        for seed in asked.seeds
    ]  # fmt: skip


def tuning(asked: Asked, optimizers: Sequence[str]) -> list[Scenario]:
    """The grid that best rates are chosen from: the same factors for all, and seeds that count for nothing else."""
    return [
        Scenario(problem, optimizer, rate(problem, optimizer) * factor, "clip", seed + 1000)
        for problem in asked.problems for optimizer in optimizers for factor in SEARCHED for seed in asked.seeds[:2]
    ]  # fmt: skip
