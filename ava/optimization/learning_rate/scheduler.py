"""A schedule, applied to an optimizer.

The schedule is a pure function of the step. The checkpoint is the step (and, where a measured value drives the
schedule, what was learned from it); everything else is computed anew from it and from what each group was given,
`group["initial_lr"]` and its likes.
"""

from __future__ import annotations

import copy
import functools
import sys
from bisect import bisect_left
from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any, cast

import torch
from torch import Tensor

from ava.errors import InputError
from ava.optimization.learning_rate import hyperparameters
from ava.optimization.learning_rate.change import Change
from ava.optimization.learning_rate.conflicts import check_distinct
from ava.optimization.learning_rate.course import Course, Metric, course_of
from ava.optimization.learning_rate.factors import Driven, Factors, Phase, Shape

_PROBES, _FAR = 256, 1_000_000
"""Steps at which a course is looked at when it is chosen, and how far where it has no end."""


class Scheduler:
    """Moves the learning rate, and whatever else the course says, of every group of an optimizer.

    Built after the optimizer, it sets the first step's values at once; `step()` belongs after `optimizer.step()`. A
    group with a key `scheduler` (a schedule's name, or a mapping of its name and options) follows that.

    Args:
        optimizer: any torch.optim.Optimizer. Momentum goes to `momentum` where it is not 0, or to the first of
            `betas`; groups with neither keep to the learning rate.
        course: a schedule with its warmup, as `course("cosine", warmup_steps=10)` gives it, or a plain function
            (step, total) -> Factors.
        total_steps: the training's length in optimizer steps; later steps keep the last value. None has no end.
        inherited: options of `course.extend` that a group's own schedule takes over.

    Attributes:
        former_total_steps: the length that the loaded state was saved with; None where none was loaded.
        multiplier: on every group's learning rate beside the course's; whoever sets it keeps it (`rescale`).
        planned_lr: the course's learning rate for the first group's next step, without the multiplier; None where
            the optimizer chooses it.

    Raises:
        InputError: `total_steps` is not positive, or the warmup not below it; the schedule moves a rate that a group
            leaves to its optimizer (`lr=None`), or a hyperparameter that there is not, or beyond its limits.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        course: Course | Shape,
        total_steps: int | None,
        inherited: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise InputError("must be a torch.optim.Optimizer.", key="optimizer", value=type(optimizer).__name__)
        if total_steps is not None and (not isinstance(total_steps, Integral) or total_steps < 1):
            raise InputError("must be a whole number, at least 1.", key="total_steps", value=total_steps)
        self.optimizer = optimizer
        self.course = course if isinstance(course, Course) else Course(course)
        self.total_steps = int(total_steps) if total_steps is not None else sys.maxsize
        self._inherited = dict(inherited or {})
        self._courses: list[Course | None] = []
        self._rate = self.course.rate
        self._step, self._skipped = 0, list[Tensor]()
        self.former_total_steps: int | None = None
        self.multiplier = 1.0
        self.planned_lr: float | None = None
        self._meet_groups()
        self._check()
        self._apply()

    @property
    def phase(self) -> Phase:
        """Where the next optimizer step lies in the course."""
        return self.factors().phase

    @property
    def metric(self) -> Metric | None:
        """What `observe` has to be given; None where the course is a function of the step alone."""
        return self.course.metric

    @functools.cached_property
    def cooldown_start(self) -> int | None:
        """The number of steps before the course's last decay, if it has one: up to there it can be extended."""
        steps = range(self.total_steps)
        first = bisect_left(steps, True, key=lambda step: self._rate(step, self.total_steps).phase == "cooldown")
        return first if 0 < first < self.total_steps else None

    def step(self, skipped: bool | Tensor = False) -> None:
        """Set every group to what the next optimizer step uses.

        Args:
            skipped: whether the optimizer step was left out, for a non-finite gradient; the schedule then stays where
                it is. A tensor on an accelerator is not waited for: `settle` takes the step back.
        """
        self._step += 1
        if isinstance(skipped, Tensor) and skipped.device.type != "cpu":
            self._skipped.append(skipped)
        elif skipped.numpy() if isinstance(skipped, Tensor) else skipped:  # memory of the host, which is there already
            self._step -= 1
        self._apply()

    def settle(self) -> None:
        """Read which steps were skipped on an accelerator, and take them back; waits for the device."""
        if self._skipped:
            self._step -= int(torch.stack([flag.reshape(()).float() for flag in self._skipped]).sum())
            self._skipped.clear()
            self._apply()

    def observe(self, value: float) -> Change | None:
        """Give a driven schedule a measured value, of which less is better.

        Returns:
            What it changed, in multipliers of the base rates; None where it changed nothing.
        """
        shape = self.course.shape
        now = self._own_step()
        if now is None or not isinstance(shape, Driven):
            return None
        change = shape.observe(now, float(value))
        self._apply()
        return change

    def rescale(self, multiplier: float) -> None:
        """Multiply every group's learning rate, from the next optimizer step on, beside what the course says.

        Args:
            multiplier: 1 is the course's own rate; `state_dict` does not hold it.
        """
        if multiplier != self.multiplier:
            self.multiplier = multiplier
            self._apply()

    def reapply(self) -> None:
        """Set every group's values again, where something else has put others there."""
        self._apply()

    def get_last_lr(self) -> list[float]:
        """The learning rate of every group, as the next optimizer step uses it; NaN where the optimizer chooses it."""
        return [values.get("lr", float("nan")) * self.multiplier for values in self.at(self._step)]

    def factors(self) -> Factors:
        """What the course says about the next optimizer step."""
        return self._rate(min(self._step, self.total_steps), self.total_steps)

    def at(self, step: int, total_steps: int | None = None) -> list[dict[str, float]]:
        """What every group's hyperparameters are after `step` steps, by name; only those that are moved.

        Args:
            step: optimizer steps taken.
            total_steps: another length of the training than this one's.

        Returns:
            A dict a group: `lr` (missing where the optimizer chooses it), `momentum` and what else moves.
        """
        if len(self._courses) != len(self.optimizer.param_groups):
            self._meet_groups()
        total = total_steps or self.total_steps
        step = min(step, total)
        factors = self._rate(step, total)
        return [
            self._values(group, course, factors, step, total)
            for group, course in zip(self.optimizer.param_groups, self._courses, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        """The step, the length of the training, and what a driven schedule has learned."""
        self.settle()
        state: dict[str, Any] = {"step": self._step, "total_steps": self.total_steps}
        return state | ({"shape": self.course.shape.state_dict()} if isinstance(self.course.shape, Driven) else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a step; the values follow from it. The length of the training stays as it was built.

        Raises:
            InputError: the state is not a scheduler's, or not of this schedule.
        """
        step = state_dict.get("step")
        if not isinstance(step, int) or step < 0:
            raise InputError("must be a number of steps, as `state_dict()` gives it.", key="step", value=step)
        if isinstance(self.course.shape, Driven):
            if "shape" not in state_dict:
                problem = "the state holds nothing of a schedule that a measured value drives."
                raise InputError(problem, key="shape", hint="Continue with the schedule it was saved with.")
            self.course.shape.load_state_dict(state_dict["shape"])
        self._step, self.former_total_steps = step, state_dict.get("total_steps")
        self._skipped.clear()
        self._apply()

    def hold(self) -> Callable[[], None]:
        """The way back to where the schedule stands; no device is waited for, and the groups' values are left alone."""
        step, skipped, shape = self._step, list(self._skipped), self.course.shape
        learned = copy.deepcopy(shape.state_dict()) if self.metric and isinstance(shape, Driven) else None

        def back() -> None:
            self._step, self._skipped = step, list(skipped)
            if isinstance(shape, Driven) and learned is not None:
                shape.load_state_dict(copy.deepcopy(learned))

        return back

    def _own_step(self) -> int | None:
        """The step of the schedule after its warmup; None within that."""
        warmup = self.course.warmup.length(self.total_steps)
        return self._step - warmup if self._step >= warmup else None

    def _meet_groups(self) -> None:
        """Learn what the groups follow that were not there before, and note what every group was given: all before
        any is moved, for groups may share one tensor.
        """
        groups = self.optimizer.param_groups
        for index, group in enumerate(groups[len(self._courses) :], start=len(self._courses)):
            own = group.get("scheduler")
            place = f"param_groups[{index}].scheduler"
            self._courses.append(None if own is None else course_of(own, self._inherited, place))
        for group, own in zip(groups, self._courses, strict=True):
            course = own or self.course
            cycles = course.rate(0, self.total_steps).momentum is not None
            for name in ("lr", *(["momentum"] if cycles else []), *course.also):
                hyperparameters.remember(group, name)

    def _values(
        self, group: dict[str, Any], own: Course | None, factors: Factors, step: int, total: int
    ) -> dict[str, float]:
        """What a group's hyperparameters are; `factors` is the word of the course that most groups follow."""
        if own is not None:
            factors = own.rate(step, total)
        values: dict[str, float] = {}
        if group["lr"] is not None:
            values["lr"] = group["initial_lr"] * factors.lr
        if factors.momentum is not None and group.get("initial_momentum"):
            values["momentum"] = factors.momentum
        for name, shape in (own or self.course).also.items():
            if f"initial_{name}" in group:
                # After the last step betas stay at what it used: exactly 0 is no value that every optimizer accepts.
                last = total - 1 if hyperparameters.limits(name)[1] == 1.0 else total
                values[name] = group[f"initial_{name}"] * shape(min(step, last), total).lr
        return values

    def _apply(self) -> None:
        all_values = self.at(self._step)
        self.planned_lr = all_values[0].get("lr") if all_values else None
        for group, values in zip(self.optimizer.param_groups, all_values, strict=True):
            if self.multiplier != 1.0 and "lr" in values:
                values["lr"] *= self.multiplier
            for name, value in values.items():
                hyperparameters.write(group, name, value)

    def _check(self) -> None:
        """Refuse what cannot be followed, before the first step rather than in the middle."""
        groups = self.optimizer.param_groups
        for name in {name for own in self._courses for name in (own or self.course).also}:
            hyperparameters.check_known(groups, name)
        self._check_end()
        for index, (group, own) in enumerate(zip(groups, self._courses, strict=True)):
            try:
                self._check_group(group, own or self.course)
            except InputError as error:
                key = error.key and f"param_groups[{index}].scheduler.{error.key}"
                raise error if own is None or not key else error.at(key, error.value) from error

    def _check_group(self, group: dict[str, Any], course: Course) -> None:
        last = min(self.total_steps, _FAR)
        steps = [*range(0, last, max(1, last // _PROBES)), self.total_steps - 1]
        moves = course.metric is not None or any(course.rate(step, self.total_steps).lr != 1.0 for step in steps)
        if group["lr"] is None and moves:
            raise InputError(
                "the optimizer chooses its own learning rate (lr is null), so there is none to schedule.",
                hint="Use the constant schedule without warmup, or give the optimizer an lr.",
            )
        check_distinct(group, course, self.total_steps)
        for name, shape in course.also.items():
            self._check_limits(name, group, [shape(step, self.total_steps).lr for step in steps])

    def _check_end(self) -> None:
        """Refuse a schedule that is a function of the share done, where there is no end to have a share of."""
        if self.total_steps != sys.maxsize:
            return
        near, far = (self._rate(step, sys.maxsize).lr for step in (0, 10**9))
        if near == far and self._rate(500, 1000).lr != self._rate(0, 1000).lr:
            problem = "is None, but the schedule is laid out over the training's length."
            raise InputError(problem, key="total_steps", value=None, hint="Give the number of steps.")

    def _check_limits(self, name: str, group: dict[str, Any], factors: list[float]) -> None:
        base = cast(float, group.get(f"initial_{name}", 0.0))
        least, below = hyperparameters.limits(name)
        for factor in (min(factors), max(factors)):
            if not least <= base * factor < below:
                problem = f"would become {base * factor:.6g}, and must be at least {least:g} and below {below:g}."
                raise InputError(problem, key=f"also.{name}", value=base, hint="Choose a schedule that stays there.")
