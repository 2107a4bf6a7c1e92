"""What a param group follows: a schedule after its warmup, and the schedules of its other hyperparameters.

    course("cosine", floor=0.1, warmup_steps=0.05, also={"weight_decay": "linear", "beta2": {"name": "rex"}})

The options that every schedule has stand in the signature of `extend`, which is their schema.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ava import registry
from ava.errors import InputError
from ava.optimization.learning_rate.factors import Shape
from ava.optimization.learning_rate.warmup import Warmup, warmed_up
from ava.optimization.options import check_all
from ava.registry import Fraction, Length, NonNegativeFloat

Metric = Literal["loss", "eval"]
"""What drives a schedule: every step's training loss, or the evaluations' metric."""


@dataclass(frozen=True)
class Course:
    """What a param group follows.

    Attributes:
        shape: of the learning rate (and the momentum where it says so), without the warmup.
        warmup: the rise before it.
        also: hyperparameter -> its schedule, warmup included; it multiplies the value that the group was given.
        metric: what drives `shape`; None where it is a function of the step alone.
    """

    shape: Shape
    warmup: Warmup = Warmup()  # noqa: RUF009 - it is frozen
    also: Mapping[str, Shape] = field(default_factory=dict)
    metric: Metric | None = None

    @functools.cached_property
    def rate(self) -> Shape:
        """The schedule of the learning rate, warmup included."""
        return warmed_up(self.shape, self.warmup)


def course(name: str, **options: Any) -> Course:
    """Build a registered schedule with its options, those that all have included.

    Args:
        name: one of `list_schedulers()`.
        options: its own, and those of `extend`.

    Raises:
        InputError: no schedule has the name, or it has no such option, or the value is not allowed.
    """
    entry = registry.scheduler[name]
    checked = check_all(name, options, {key: kind for key, (kind, _) in entry.parameters.items()})
    own = {key: value for key, value in checked.items() if key not in entry.shared}
    metric: Metric | None = entry.tags.get("metric")
    shape = entry.load()(**own) if metric else functools.partial(entry.load(), **own)
    return extend(shape, metric, **{key: value for key, value in checked.items() if key in entry.shared})


def extend(
    shape: Shape,
    metric: Metric | None = None,
    /,
    warmup_steps: Length = 0,
    warmup_type: Literal["linear", "cosine", "exponential", "custom"] = "linear",
    warmup_start: Fraction | None = None,
    warmup_curve: tuple[NonNegativeFloat, ...] | None = None,
    also: dict[str, Any] | None = None,
) -> Course:
    """Give a schedule what all schedules can have.

    Args:
        shape: the schedule.
        metric: what drives it, if anything does.
        warmup_steps: length of the rise before it, in steps, or a fraction: the share of the training.
        warmup_type: the form of the rise.
        warmup_start: the factor of the first step; null is 1 / (warmup_steps + 1).
        warmup_curve: for custom: the factors of the rise, in even distances.
        also: schedules of other hyperparameters: {weight_decay: cosine, momentum: {name: linear, end_factor: 0.9}}.

    Raises:
        InputError: the warmup or one of the other schedules cannot be.
    """
    others = {name: _other(f"also.{name}", said) for name, said in (also or {}).items()}
    return Course(shape, Warmup(warmup_steps, warmup_type, warmup_start, warmup_curve), others, metric)


def course_of(said: Any, inherited: Mapping[str, Any], place: str) -> Course:
    """The course of a group that has one of its own.

    Args:
        said: a schedule's name, or a mapping of `name` and options.
        inherited: values of `extend`'s options that hold unless `said` says otherwise.
        place: how messages call it.

    Raises:
        InputError: it is no schedule, or one that a measured value drives.
    """
    name, options = spelled(said, place)
    if "warmup_type" in options:
        inherited = {key: value for key, value in inherited.items() if key not in ("warmup_curve", "warmup_start")}
    return _undriven(place, name, {**inherited, **options})


def spelled(said: Any, place: str) -> tuple[str, dict[str, Any]]:
    """The name and the options of a schedule that is said in short or at length.

    Raises:
        InputError: it is neither a name nor a mapping with one.
    """
    if isinstance(said, str):
        return said, {}
    if not isinstance(said, Mapping) or not isinstance(said.get("name"), str):
        problem = "must be a schedule's name, or a mapping with its name and options."
        raise InputError(problem, key=place, value=said, hint="Such as cosine or {name: cosine, floor: 0.1}.")
    return said["name"], {str(key): value for key, value in said.items() if key != "name"}


def _other(place: str, said: Any) -> Shape:
    """The schedule of another hyperparameter, after its own warmup."""
    name, options = spelled(said, place)
    if "also" in options:
        problem = "a hyperparameter's schedule moves that one alone."
        raise InputError(problem, key=f"{place}.also", value=options["also"])
    return _undriven(place, name, options).rate


def _undriven(place: str, name: str, options: dict[str, Any]) -> Course:
    try:
        made = course(name, **options)
    except InputError as error:
        raise error.at(f"{place}.{error.key}" if error.key else place, error.value if error.key else name) from error
    if made.metric is not None:
        problem = "is driven by a measured value, which only the schedule of the whole training gets."
        raise InputError(problem, key=place, value=name, hint="Choose a schedule of the step.")
    return made
