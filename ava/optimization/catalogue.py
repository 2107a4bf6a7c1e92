"""What there is, by name: optimizers, schedules and clippings. Listing imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

from ava import registry
from ava.errors import InputError, nearest
from ava.registry import Entry

if TYPE_CHECKING:
    import torch

    from ava.optimization.gradients.clip.clipping import Clipping
    from ava.optimization.learning_rate.scheduler import Scheduler
    from ava.optimization.optimizers.composed import ComposedOptimizer


def list_optimizers() -> list[str]:
    """Every optimizer's name."""
    return registry.optimizer.names()


def get_optimizer(name: str) -> type[torch.optim.Optimizer]:
    """The class of an optimizer: `get_optimizer("lion")(params, lr=1e-4)`.

    Args:
        name: one of `list_optimizers()`.

    Returns:
        A torch.optim.Optimizer whose signature is `(params, <options>, *, engine="auto")`.

    Raises:
        InputError: there is none of that name.
    """
    from ava.optimization.optimizers.classes import build_class

    entry = registry.optimizer[name]
    return build_class(entry.name, entry.load())


def list_schedulers() -> list[str]:
    """Every schedule's name."""
    return registry.scheduler.names()


def get_scheduler(name: str) -> Callable[..., Any]:
    """A schedule: the pure function `(step, total, **options) -> Factors`.

    `plateau` and `adaptive`, which a measured value drives, are classes whose objects are such functions once they
    have their options.

    Raises:
        InputError: there is none of that name.
    """
    return registry.scheduler[name].load()


def list_clips() -> list[str]:
    """Every gradient clipping's name."""
    return registry.clip.names()


def get_clip(name: str, **options: Any) -> Clipping:
    """A gradient clipping that is called with the parameters.

        clip = get_clip("zscore", clip_norm=2.5)
        norm = clip(model.parameters())

    Where it remembers nothing, `get_clip("norm")(parameters, clip_norm=1.0)` says the same in one line. What
    `percentile` and `zscore` remember is in the object: keep it, and save its `state_dict()`.

    Args:
        name: one of `list_clips()`.
        options: the clipping's own.

    Returns:
        `(parameters) -> norm before clipping`, a 0-dim tensor that nobody has read; the gradients are clipped in place.

    Raises:
        InputError: there is none of that name, or it has no such option, or the value is not allowed.
    """
    from ava.optimization.gradients.clip.clipping import Clipping

    return Clipping(name, **options)


def list_surgery() -> list[str]:
    """Every surgery method's name."""
    return registry.surgery.names()


def get_surgery(name: str) -> Callable[..., Any]:
    """A surgery method: the function `(objectives, **options) -> weights`, or a class whose objects are such.

    Raises:
        InputError: there is none of that name.
    """
    return registry.surgery[name].load()


def list_detectors() -> list[str]:
    """Every detector of trouble in training, by name."""
    return registry.detector.names()


def get_detector(name: str) -> Callable[..., Any]:
    """A detector: the function `(seen, **options) -> severity`, or a class whose objects are such.

    Raises:
        InputError: there is none of that name.
    """
    return registry.detector[name].load()


def class_name(entry: Entry) -> str:
    """What the class of a registered optimizer is called: its tag `title`, or its name in capitals ("Lion")."""
    return str(entry.tags.get("title", "".join(word.capitalize() for word in entry.name.split("_"))))


class OptimizerFactory:
    """Optimizers by name."""

    @staticmethod
    def create(optimizer_name: str, model_parameters: Iterable[Any], **options: Any) -> ComposedOptimizer:
        """Build an optimizer.

        Args:
            optimizer_name: one of `list_optimizers()`.
            model_parameters: tensors, (name, tensor) pairs, or groups.
            options: the optimizer's options, such as `lr` and `weight_decay`.

        Raises:
            InputError: no optimizer has the name, or it has no such option, or the value is not allowed.
        """
        _refuse_unknown(registry.optimizer[optimizer_name], options, allowed=("engine",))
        return cast("ComposedOptimizer", get_optimizer(optimizer_name)(model_parameters, **options))


class SchedulerFactory:
    """Schedulers by name."""

    @staticmethod
    def create(
        scheduler_name: str, optimizer: torch.optim.Optimizer, total_steps: int | None, **options: Any
    ) -> Scheduler:  # fmt: skip
        """Build a scheduler.

        Args:
            scheduler_name: one of `list_schedulers()`.
            optimizer: whose groups it moves; any torch.optim.Optimizer.
            total_steps: the training's length in optimizer steps; None has no end.
            options: the schedule's options, and those of all: `warmup_steps`, `warmup_type`, `also` and their likes.

        Raises:
            InputError: no schedule has the name, or it has no such option, or the value is not allowed.
        """
        from ava.optimization.learning_rate.course import course
        from ava.optimization.learning_rate.scheduler import Scheduler

        made = course(scheduler_name, **options)
        shared = {key: value for key, value in options.items() if key in registry.scheduler[scheduler_name].shared}
        return Scheduler(optimizer, made, total_steps, inherited=shared)


def _refuse_unknown(entry: Entry, options: Iterable[str], allowed: tuple[str, ...] = ()) -> None:
    known = (*entry.parameters, *allowed)
    for key in options:
        if key not in known:
            raise InputError(
                f"{entry.name} has no option {key!r}; it has: {', '.join(known)}.", hint=nearest(key, known)
            )
