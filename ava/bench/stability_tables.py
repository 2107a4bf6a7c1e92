"""What the tables of `ava bench stability` say of the trainings."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from ava.bench.faults import Fault
from ava.bench.stability_plans import CONTROL, LENGTHS
from ava.bench.stability_statistics import bootstrap, middle, steps_to_recover, wilson
from ava.bench.stability_trainings import Outcome, Scenario

Row = dict[str, Any]
Done = Mapping[Scenario, Outcome]
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
TOLERANCE = 0.03
"""Nats above the clean training's validation loss within which a fault is healed."""
CAP = 1.0
"""The largest regret that a mean counts, in nats."""
BACK = ("rollback", "rollback_reset", "restart", "restore")


def fault_rows(scenarios: Sequence[Scenario], done: Done) -> list[Row]:
    """One row for each guard, optimizer, kind and problem."""
    rows = []
    for (guard, optimizer, kind, problem), some in _grouped(
        scenarios, lambda one: (one.guard, one.optimizer, _fault(one).kind, one.problem)
    ).items():
        pairs = [(one, done[one], done[one.clean]) for one in some]
        deltas = [_difference(found.valid, clean.valid) for _, found, clean in pairs]
        recovered = [_recovery(*pair) for pair in pairs]
        rows.append({
            "guard": guard, "optimizer": optimizer, "kind": kind, "problem": problem, "n": len(some),
            "healed": sum(delta <= TOLERANCE for delta in deltas), "delta": statistics.median(deltas),
            "worst": max(deltas), "deltas": deltas, "recovery": recovered,
            "back": sum(found.actions(*BACK) for _, found, _ in pairs) / len(some),
            "skips": sum(found.actions("skip") for _, found, _ in pairs) / len(some),
            "again": [max(0, found.attempts - clean.attempts) for _, found, clean in pairs],
            "happened": min(found.happened for _, found, _ in pairs),
            "failures": sum(found.failure is not None for _, found, _ in pairs),
        })  # fmt: skip
    return rows


def fault_totals(rows: Sequence[Row]) -> list[Row]:
    """One row for each guard and optimizer, over all kinds, problems and seeds, the control aside."""
    totals = []
    harmful = [row for row in rows if row["kind"] != CONTROL]
    for (guard, optimizer), some in _grouped(harmful, lambda row: (row["guard"], row["optimizer"])).items():
        healed, count = sum(row["healed"] for row in some), sum(row["n"] for row in some)
        steps = [
            steps for row in some for steps, delta in zip(row["recovery"], row["deltas"], strict=True)
            if delta <= TOLERANCE
        ]  # fmt: skip
        known = [one for one in steps if one is not None]
        again = [count for row in some for count in row["again"]]
        totals.append({
            "guard": guard, "optimizer": optimizer, "n": count, "healed": healed, "share": healed / count,
            "interval": wilson(healed, count), "recovery_median": middle(known),
            "recovery_max": max(known, default=None), "recovery_never": len(steps) - len(known),
            "again_mean": statistics.fmean(again), "again_max": max(again), "kinds": _whole(some),
        })  # fmt: skip
    return totals


def grid_rows(scenarios: Sequence[Scenario], done: Done) -> list[Row]:
    """One row for each problem, optimizer and guard; regret is against the best of all rates and guards."""
    best: dict[tuple[str, str, int], float] = defaultdict(lambda: math.inf)
    for one in scenarios:
        key = one.problem, one.optimizer, one.seed
        best[key] = min(best[key], done[one].valid)
    rows = []
    for (problem, optimizer, guard), some in _grouped(
        scenarios, lambda one: (one.problem, one.optimizer, one.guard)
    ).items():
        failed = sum(_has_failed(one, done[one]) for one in some)
        regrets = [_difference(done[one].valid, best[problem, optimizer, one.seed]) for one in some]
        rows.append({
            "problem": problem, "optimizer": optimizer, "guard": guard, "n": len(some), "failed": failed,
            "rate": failed / len(some), "interval": wilson(failed, len(some)),
            "regret_median": statistics.median(regrets),
            "regret_mean": statistics.fmean(min(regret, CAP) for regret in regrets), "best_lr": best_rate(some, done),
        })  # fmt: skip
    return rows


def best_rate(scenarios: Sequence[Scenario], done: Done) -> float:
    """The rate with the lowest mean validation loss over seeds."""
    by_rate: dict[float, list[Scenario]] = _grouped(scenarios, lambda one: one.lr)
    return min(by_rate, key=lambda lr: statistics.fmean(done[one].valid for one in by_rate[lr]))


def clean_rows(scenarios: Sequence[Scenario], done: Done) -> list[Row]:
    """One row for each optimizer, problem and guard: alarms where nothing was wrong, and what they did to the loss."""
    plain = {(one.problem, one.optimizer, one.seed): done[one] for one in scenarios if one.guard == "clip"}
    rows = []
    for (optimizer, problem, guard), some in _grouped(
        scenarios, lambda one: (one.optimizer, one.problem, one.guard)
    ).items():
        found = [done[one] for one in some]
        over = [_difference(done[one].valid, plain[one.problem, one.optimizer, one.seed].valid) for one in some]
        attempts = sum(outcome.attempts for outcome in found)
        back = sum(outcome.actions(*BACK) for outcome in found)
        skips = sum(outcome.actions("skip") for outcome in found)
        rows.append({
            "optimizer": optimizer, "problem": problem, "guard": guard, "steps": attempts, "back": back, "skips": skips,
            "back_10k": 1e4 * back / attempts, "skips_10k": 1e4 * skips / attempts,
            "other": sum(outcome.actions("clip", "shrink", "warn") for outcome in found),
            "valid": statistics.fmean(outcome.valid for outcome in found), "over_clip": statistics.fmean(over),
            "interval": bootstrap(over) if all(map(math.isfinite, over)) else (-math.inf, math.inf),
            "state": found[0].state,
        })  # fmt: skip
    return rows


def claim_rows(scenarios: Sequence[Scenario], done: Done) -> list[Row]:
    """One row for each problem and challenger of AdamW: which share of its steps reach its loss, paired by seed."""
    curves: dict[tuple[str, str, int], dict[float, float]] = defaultdict(dict)
    states: dict[tuple[str, str], float] = {}
    for one in scenarios:
        curves[one.problem, one.optimizer, one.seed][one.length] = done[one].valid
        states[one.problem, one.optimizer] = done[one].state
    rows = []
    for problem, optimizer in dict.fromkeys((one.problem, one.optimizer) for one in scenarios):
        seeds = [seed for name, other, seed in curves if (name, other) == (problem, optimizer)]
        shares = [needed(curves[problem, optimizer, s], curves[problem, "adamw", s][1.0]) for s in seeds]
        over = [curves[problem, optimizer, s][1.0] - curves[problem, "adamw", s][1.0] for s in seeds]
        rows.append({
            "problem": problem, "optimizer": optimizer, "seeds": len(seeds),
            "lr": next(one.lr for one in scenarios if (one.problem, one.optimizer) == (problem, optimizer)),
            "share": statistics.fmean(shares), "interval": bootstrap(shares), "never": sum(s > 1.0 for s in shares),
            "over_adamw": statistics.fmean(over), "over_interval": bootstrap(over),
            "state": states[problem, optimizer], "state_ratio": states[problem, optimizer] / states[problem, "adamw"],
        })  # fmt: skip
    return rows


def needed(losses: Mapping[float, float], wanted: float) -> float:
    """The shortest length whose training reaches a loss, by linear interpolation between lengths.

    Args:
        losses: length -> validation loss of the training of that length.
        wanted: the loss.

    Returns:
        The shortest length measured where that reaches it already; 1.1 where none does, which counts too little.
    """
    before: tuple[float, float] | None = None
    for length, loss in sorted(losses.items()):
        if loss <= wanted:
            if before is None or not math.isfinite(before[1]):
                return length
            return before[0] + (length - before[0]) * (before[1] - wanted) / (before[1] - loss)
        before = length, loss
    return LENGTHS[-1] + 0.1


def _recovery(one: Scenario, found: Outcome, clean: Outcome) -> int | None:
    fault = _fault(one).settled()
    if found.failure or not found.losses or not clean.losses:
        return None
    return steps_to_recover(found.losses, clean.losses, fault.end, TOLERANCE)


def _whole(rows: Sequence[Row]) -> str:
    """How many kinds were healed for every seed and problem, of how many."""
    kinds = _grouped(rows, lambda row: row["kind"])
    return f"{sum(all(row['healed'] == row['n'] for row in some) for some in kinds.values())} of {len(kinds)}"


def _has_failed(one: Scenario, found: Outcome) -> bool:
    return found.failure is not None or not found.valid <= one.baseline


def _difference(loss: float, other: float) -> float:
    """Infinite where either is no number."""
    return loss - other if math.isfinite(loss) and math.isfinite(other) else math.inf


def _fault(one: Scenario) -> Fault:
    assert one.fault is not None
    return one.fault


def _grouped(items: Iterable[T], key: Any) -> dict[Any, list[T]]:
    groups: dict[Any, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups
