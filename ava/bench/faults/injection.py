"""Puts faults into a training, and takes every hook out again."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar, overload

import torch
from torch import Tensor, nn

from ava.bench.faults.clock import Clock
from ava.bench.faults.fault import Fault, Settled, list_faults
from ava.bench.faults.parts import Parts
from ava.bench.faults.places import generator, one_element, placed
from ava.errors import InputError
from ava.training.state import Run

B = TypeVar("B")
BatchChange = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""(inputs, targets, random numbers) -> others of the same shapes."""


class Injection:
    """What a kind of fault is given: when it acts, and the hooks to act by.

    Attributes:
        fault: when, how long, how much, where.
        parts: the training.
        happened: attempts in which it has acted.
        batch_changes: what it does to batches.
    """

    def __init__(self, parts: Parts, fault: Settled, clock: Clock, undo: ExitStack) -> None:
        self.parts, self.fault, self._clock, self._undo = parts, fault, clock, undo
        self._acted: set[int] = set()
        self.batch_changes: list[BatchChange] = []
        self.condition: Callable[[], bool] = lambda: True

    @property
    def happened(self) -> int:
        """Attempts in which it has acted."""
        return len(self._acted)

    @property
    def attempt(self) -> int:
        """The one that comes or is under way, from 1."""
        return self._clock.attempt

    def acts(self) -> bool:
        """Whether it is time; who asks is expected to act."""
        is_here = self.fault.rank is None or self.fault.rank == self.parts.rank
        if not (is_here and self.fault.at <= self.attempt < self.fault.end and self.condition()):
            return False
        self._acted.add(self.attempt)
        return True

    def random(self) -> torch.Generator:
        """Random numbers of this attempt, the same as often as they are asked for."""
        return generator(self.fault.seed, self.attempt)

    def placed(self) -> dict[str, nn.Parameter]:
        """The parameters that it befalls.

        Raises:
            InputError: no parameter's name fits its place.
        """
        return placed(self.parts, self.fault)

    def one_element(self) -> tuple[nn.Parameter, int]:
        """One element of those parameters, chosen by the seed."""
        parameters = self.placed()
        name, index = one_element(parameters, self.fault.seed)
        return parameters[name], index

    def on_gradients(self, parameters: Mapping[str, Tensor], change: Callable[[Tensor], Tensor]) -> None:
        """Change gradients as the backward pass makes them, before anything measures, clips or averages them."""
        for parameter in parameters.values():
            self._undo.callback(_hook(parameter, lambda gradient: change(gradient) if self.acts() else None))

    def on_inputs(self, module: nn.Module, change: Callable[[Any], Any]) -> None:
        """Change what a module is called with, in training; all its tensors of real numbers."""

        def before(called: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
            if not (called.training and torch.is_grad_enabled() and self.acts()):
                return None
            return tuple(map(change, arguments)), {name: change(value) for name, value in named.items()}

        self._undo.callback(module.register_forward_pre_hook(before, with_kwargs=True).remove)

    def on_output(self, module: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        """Change what a module returns, in training."""

        def after(called: nn.Module, arguments: Any, output: Tensor) -> Tensor | None:
            return change(output) if called.training and torch.is_grad_enabled() and self.acts() else None

        self._undo.callback(module.register_forward_hook(after).remove)

    def before_forward(self, action: Callable[[], None]) -> None:
        """Do something once in each attempt that it befalls, before the model's first pass in it.

        So what is changed was changed between two steps, and not by the optimizer.
        """
        done: set[int] = set()

        def before(called: nn.Module, arguments: Any) -> None:
            if called.training and torch.is_grad_enabled() and self.attempt not in done and self.acts():
                done.add(self.attempt)
                with torch.no_grad():
                    action()

        self._undo.callback(self.parts.model.register_forward_pre_hook(before).remove)

    def around_step(self, before: Callable[[], None], after: Callable[[], None]) -> None:
        """Do something as the optimizer's step begins, and something else as it ends, or as all ends."""
        is_open = False

        def begin(*_: Any) -> None:
            nonlocal is_open
            if self.acts():
                before()
                is_open = True

        def end(*_: Any) -> None:
            nonlocal is_open
            if is_open:
                is_open = False
                after()

        optimizer = self.parts.optimizer
        self._undo.callback(end)
        self._undo.callback(optimizer.register_step_pre_hook(begin).remove)
        self._undo.callback(optimizer.register_step_post_hook(end).remove)

    def on_batch(self, change: BatchChange) -> None:
        """Change batches before the model and the loss see them."""
        self.batch_changes.append(change)


class Injected:
    """The faults within a training.

    Attributes:
        injections: one each, in the order given.
    """

    def __init__(self, injections: list[Injection], clock: Clock) -> None:
        self.injections, self._clock = injections, clock

    @property
    def attempt(self) -> int:
        """The one that comes or is under way, from 1."""
        return self._clock.attempt

    @property
    def happened(self) -> int:
        """Attempts in which a fault has acted, over all faults."""
        return sum(one.happened for one in self.injections)

    @overload
    def batch(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]: ...
    @overload
    def batch(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]: ...
    def batch(self, batch: Any) -> Any:
        """What becomes of a batch: {"inputs", "targets", ...} or (inputs, targets). A run's own are changed anyway."""
        is_pair = not isinstance(batch, Mapping)
        inputs, targets = batch if is_pair else (batch["inputs"], batch["targets"])
        for one in self.injections:
            for change in one.batch_changes:
                if one.acts():
                    inputs, targets = change(inputs, targets, one.random())
        return (inputs, targets) if is_pair else {**batch, "inputs": inputs, "targets": targets}


@contextmanager
def inject(training: Run | Parts, *faults: Fault) -> Iterator[Injected]:
    """Within it a training meets these faults.

    Args:
        training: a run of Ava's, or the parts of any other training.
        faults: what befalls it; none only counts attempts.

    Yields:
        What changes batches where the training is not a run of Ava's, and says which attempt it is.

    Raises:
        InputError: a fault does not fit the training.
    """
    parts = Parts.of(training) if isinstance(training, Run) else training
    kinds = {kind.name: kind for kind in list_faults()}
    _check_ranks(parts, faults)
    with ExitStack() as undo:
        clock = Clock(parts, undo)
        injections = [Injection(parts, fault.settled(), clock, undo) for fault in faults]
        for one in injections:
            kinds[one.fault.kind].install(one)
        injected = Injected(injections, clock)
        if parts.run is not None and any(one.batch_changes for one in injections):
            _change_batches(parts.run, injected, undo)
        yield injected


def _check_ranks(parts: Parts, faults: tuple[Fault, ...]) -> None:
    for rank in (fault.settled().rank for fault in faults):
        if parts.run is not None and rank is not None and rank >= parts.run.world.size:
            problem = f"there is no such process: this run has {parts.run.world.size}, counted from 0."
            raise InputError(problem, key="rank", value=rank, hint="Train with several, or name another.")


def _hook(parameter: Tensor, change: Callable[[Tensor], Tensor | None]) -> Callable[[], None]:
    remove: Callable[[], None] = parameter.register_hook(change).remove  # type: ignore[no-untyped-call]
    return remove


def _change_batches(run: Run, injected: Injected, undo: ExitStack) -> None:
    """Let the run's task see changed batches in training: a copy of it whose `losses` pass them on."""
    task = run.task
    losses, changed = task.losses, copy.copy(task)

    def on_changed(model: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return losses(model, injected.batch(batch) if torch.is_grad_enabled() else batch)

    if not hasattr(changed, "__dict__"):
        raise InputError(f"batches of a {type(task).__name__} cannot be changed: it has slots.")
    object.__setattr__(changed, "losses", on_changed)
    run.task = changed
    undo.callback(setattr, run, "task", task)
