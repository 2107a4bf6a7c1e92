"""The short training of a range test, with a model and an optimizer of any kind."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ava.errors import InputError
from ava.optimization.learning_rate.finder.batches import LossFunction, loss_of, to_device
from ava.optimization.learning_rate.finder.probes import Probe, course_of, probe_of
from ava.optimization.learning_rate.finder.range_test import Curve, LRFinderConfig, RangeTest
from ava.optimization.learning_rate.finder.ranks import least_over_ranks, mean_over_ranks
from ava.optimization.learning_rate.finder.rates import Rates


@dataclass
class Trial:
    """How one step is taken.

    Attributes:
        model: is trained.
        optimizer: trains it.
        loss_fn: (outputs, targets) -> scalar; None where the model returns its loss.
        device: where batches go.
        scaler: scales the loss, if there is one.
        accumulate: batches a step.
        max_norm: what the global norm of the gradients is clipped to; None clips nothing.
        autocast: makes the context of each forward pass.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    loss_fn: LossFunction | None
    device: torch.device
    scaler: torch.amp.GradScaler | None = None
    accumulate: int = 1
    max_norm: float | None = None
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext

    def __post_init__(self) -> None:
        self._wants_closure = _wants_closure(self.optimizer)
        if self._wants_closure and self.scaler is not None:
            raise InputError(
                f"{type(self.optimizer).__name__} computes gradients within its step, where they cannot be unscaled.",
                key="scaler", value=type(self.scaler).__name__, hint="Train it in bf16 or float32, without a scaler.",
            )  # fmt: skip

    def run(self, loader: Iterable[Any], config: LRFinderConfig) -> Curve:
        """Train with rising rates until the test is over; changes everything.

        Args:
            loader: of batches.
            config: the range.

        Raises:
            InputError: the loader ends before the test.
        """
        if not self.model.training:
            self.model.train()
        test, rates, batches = RangeTest(config), Rates(self.optimizer), iter(loader)
        for taken, rate in enumerate(test.lrs):
            window = list(itertools.islice(batches, self.accumulate))
            if least_over_ranks(len(window), self.device) < self.accumulate:
                raise too_short(taken * self.accumulate + len(window), config.num_steps, self.accumulate)
            rates.set(rate)
            if not test.take(mean_over_ranks(self._step(window), self.device)):
                break
        return test.curve()

    def probe(self, loader: Iterable[Any], lr: float, num_steps: int) -> Probe:
        """Train with a short 1cycle; changes everything.

        Args:
            loader: of batches.
            lr: the peak rate.
            num_steps: optimizer steps.

        Raises:
            InputError: the loader ends before the training.
        """
        self.model.train()
        rates, batches, losses = Rates(self.optimizer), iter(loader), list[float]()
        for rate, momentum in course_of(lr, num_steps):
            window = list(itertools.islice(batches, self.accumulate))
            if least_over_ranks(len(window), self.device) < self.accumulate:
                raise too_short(len(losses) * self.accumulate + len(window), num_steps, self.accumulate)
            rates.set(rate, momentum)
            losses.append(mean_over_ranks(self._step(window), self.device))
            if not math.isfinite(losses[-1]):
                break
        return probe_of(lr, losses, num_steps)

    def _step(self, window: list[Any]) -> float:
        if not self._wants_closure:
            loss = self._gradients(window)
            self._update()
            return float(loss)
        losses: list[Tensor] = []

        def closure() -> Tensor:
            losses.append(self._gradients(window))
            self._clip()
            return losses[-1]

        self.optimizer.step(closure)  # type: ignore[arg-type]
        return float(losses[0])

    def _gradients(self, window: list[Any]) -> Tensor:
        """Gradients of the mean loss over the window; the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        for batch in window:
            with self.autocast():
                loss = loss_of(self.model, self.loss_fn, to_device(batch, self.device)) / len(window)
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]
            total = total + loss.detach().to(total)
        return total

    def _clip(self) -> None:
        if self.max_norm is not None:
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self.max_norm)

    def _update(self) -> None:
        if self.scaler is None:
            self._clip()
            self.optimizer.step()
            return
        if self.max_norm is not None:
            self.scaler.unscale_(self.optimizer)
            self._clip()
        self.scaler.step(self.optimizer)
        self.scaler.update()


def too_short(num_batches: int, num_steps: int, accumulate: int) -> InputError:
    """The error of a loader with too few batches."""
    each = "" if accumulate == 1 else f" with {accumulate} batches each"
    return InputError(
        f"the loader ends after {num_batches} batches; {num_steps} steps{each} need {num_steps * accumulate}.",
        key="num_steps", value=num_steps,
        hint="Take fewer steps or smaller batches, or begin it anew where it ends: find(loader, repeat=True).",
    )  # fmt: skip


def _wants_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a step computes gradients itself: LBFGS, and Ava's optimizers with `sam_rho`."""
    whole = getattr(optimizer, "whole", None)
    if isinstance(whole, dict) and whole.get("sam_rho") is not None:
        return True
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty
