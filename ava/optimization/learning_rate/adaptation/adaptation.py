"""A learning rate that follows what is measured, in multiples of the rate it begins with."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from ava.optimization.learning_rate.adaptation.cycle import Cycle
from ava.optimization.learning_rate.adaptation.judge import Judge, Verdict
from ava.optimization.learning_rate.adaptation.policy import Policy
from ava.optimization.learning_rate.change import Action, Change


class Adaptation:
    """Judges the values, and moves the multiplier as the policy says; every change is followed by the cooldown.

    Attributes:
        num_ignored: values that were not finite; they measure nothing, and are left out.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.num_ignored = 0
        self._judge = Judge(policy.patience, policy.threshold, policy.relative)
        self._level, self._rest, self._restarts = 1.0, 0, 0
        self._cycle: Cycle | None = None

    def factor(self, step: int) -> float:
        """The multiplier of the step after `step` steps."""
        return self._level if self._cycle is None else self._cycle.at(step)

    def observe(self, step: int, value: float) -> Change | None:
        """Take in a value, of which less is better, measured after `step` steps; act if it is time to."""
        if not math.isfinite(value):
            self.num_ignored += 1
            return None
        in_cycle = self._cycle is not None and self._cycle.covers(step)
        verdict = self._judge.observe(value, resting=in_cycle or self._rest > 0)
        if not in_cycle:
            self._cycle, self._rest = None, max(self._rest - 1, 0)
        return None if verdict is None else self._act(step, verdict)

    def _act(self, step: int, verdict: Verdict) -> Change | None:
        policy, before = self.policy, self._level
        action, after = self._choose(verdict)
        if verdict == "plateau" or after != before:
            self._judge.restart(verdict)
            self._rest = policy.cooldown
        if after == before and action != "warn":
            return None
        if action == "restart":
            self._cycle = Cycle(step, policy.restart_steps, before, after)
            self._restarts += 1
        else:
            self._level = after
        return Change(step, verdict, action, before, after, self._judge.smoothed, self._judge.noise)

    def _choose(self, verdict: Verdict) -> tuple[Action, float]:
        """What to do, and the rate that it leads to."""
        policy, level = self.policy, self._level
        if verdict == "improvement":
            return "increase", max(level, min(level * policy.increase_factor, policy.max_factor))
        if policy.on_plateau == "warn":
            return "warn", level
        if policy.on_plateau == "restart":
            peak = min(level * policy.peak_factor * policy.peak_decay**self._restarts, policy.max_factor)
            if peak > level:
                return "restart", peak
        return "reduce", min(level, max(level * policy.reduction_factor, policy.min_factor))

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and dicts."""
        return {
            "level": self._level, "rest": self._rest, "restarts": self._restarts, "num_ignored": self.num_ignored,
            "cycle": None if self._cycle is None else asdict(self._cycle), "judge": self._judge.state_dict(),
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from them, exactly."""
        self._level, self._rest, self._restarts = state["level"], state["rest"], state["restarts"]
        self.num_ignored = state["num_ignored"]
        self._cycle = None if state["cycle"] is None else Cycle(**state["cycle"])
        self._judge.load_state_dict(state["judge"])
