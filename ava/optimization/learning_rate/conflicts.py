"""Two schedules that would move the same number of a param group."""

from __future__ import annotations

from typing import Any

from ava.errors import InputError
from ava.optimization.learning_rate import hyperparameters
from ava.optimization.learning_rate.course import Course


def check_distinct(group: dict[str, Any], course: Course, total: int) -> None:
    """Refuse two schedules of one number.

    Args:
        group: of an optimizer.
        course: what it follows.
        total: length of the training in steps.

    Raises:
        InputError: names the number and what moves it already.
    """
    moved: dict[str, str] = {}
    if course.rate(0, total).momentum is not None and group.get("initial_momentum"):
        moved[hyperparameters.own_name(group, "momentum")] = "the schedule itself (cycle_momentum)"
    for name in course.also:
        own = hyperparameters.own_name(group, name)
        if own in moved:
            problem = f"is moved by {moved[own]} already."
            raise InputError(problem, key=f"also.{name}", value=own, hint="Leave one of them out.")
        moved[own] = f"also.{name}"
