"""Finds a learning rate for any model, optimizer and loader, and leaves all of them as they were."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ava import rng
from ava.errors import InputError
from ava.optimization.learning_rate.finder.batches import LossFunction
from ava.optimization.learning_rate.finder.findings import Findings, examine
from ava.optimization.learning_rate.finder.probes import FACTORS, Probe
from ava.optimization.learning_rate.finder.range_test import Curve, LRFinderConfig
from ava.optimization.learning_rate.finder.ranks import least_over_ranks
from ava.optimization.learning_rate.finder.rates import Rates
from ava.optimization.learning_rate.finder.rewind import Rewind
from ava.optimization.learning_rate.finder.trial import Trial, too_short
from ava.optimization.options import check
from ava.optimization.snapshot import Snapshot
from ava.registry import PositiveFloat, PositiveInt

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_UNKNOWN = 2**62
"""The length of a loader that does not say it: more than anybody needs."""


class LRFinder:
    """Searches the learning rate with a range test.

        finder = LRFinder(model, optimizer, loss_fn, LRFinderConfig(max_lr=10.0))
        lr, results = finder.find(train_loader)
        finder.plot("lr.png")

    The model, the optimizer with its state and rates, the scaler, random numbers and the loader's position are
    afterwards what they were, bit for bit, also after an error and after Ctrl-C. A rate is in units of the one that
    the optimizer was built with: groups with other rates keep their ratio to it.

    Args:
        model: as it will be trained; a fresh one for a fresh training.
        optimizer: any torch.optim.Optimizer that has a learning rate.
        loss_fn: (outputs, targets) -> scalar; None where the model returns its loss (`batches.py`).
        config: the range.
        scaler: as in the training, if there is one.
        accumulate: batches whose gradients make one step.
        max_norm: what the gradients' global norm is clipped to, as in the training; None clips nothing.
        autocast: makes the context of each forward pass, such as `lambda: torch.autocast("cuda", torch.bfloat16)`.
        device: where batches go; None is the model's own.

    Raises:
        InputError: the optimizer chooses its own rate, or an argument is not allowed.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss_fn: LossFunction | None = None,
        config: LRFinderConfig | None = None,
        *,
        scaler: torch.amp.GradScaler | None = None,
        accumulate: int = 1,
        max_norm: float | None = None,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
        device: torch.device | str | None = None,
    ) -> None:
        Rates(optimizer)  # refuses what has no rate
        self.config = config or LRFinderConfig()
        self.findings: Findings | None = None
        self._trial = Trial(
            model, optimizer, loss_fn, _device_of(model) if device is None else torch.device(device), scaler,
            check("accumulate", accumulate, PositiveInt), check("max_norm", max_norm, PositiveFloat | None), autocast,
        )  # fmt: skip

    def find(
        self, train_loader: Iterable[Any], *, seeds: int = 1, repeat: bool = False
    ) -> tuple[float, dict[str, Any]]:
        """Run the test.

        Args:
            train_loader: yields `(inputs, targets)` or mappings, at least num_steps * accumulate of them each time it
                is iterated; not an iterator, which could not be taken back.
            seeds: tests with other random numbers (order of the data, dropout), each from the same weights; the
                suggestion is read off the median curve.
            repeat: begin a loader anew where it ends, as epochs do, rather than refuse one that is too short.

        Returns:
            The chosen method's rate, and all that is known, as plain values: `Findings.as_dict`.

        Raises:
            InputError: the loader cannot be used, or is too short.
            NoSuggestion: the curve says nothing; why, and what to try. `plot` shows it then, too.
        """
        check("seeds", seeds, PositiveInt)
        rewind = Rewind(train_loader)
        if not repeat:
            self._refuse_short(train_loader)
        batches = _Epochs(train_loader) if repeat else train_loader
        curves = [self._test(batches, rewind, seed) for seed in range(seeds)]
        self.findings = examine(curves, self.config)
        if self.config.method == "probes" and self.findings.refusal is None:
            self.findings = self.findings.with_probes(self._probe(batches, rewind))
        return self.findings.chosen.lr, self.findings.as_dict()

    def plot(self, save_path: str | Path | None = None) -> Figure:
        """Draw the last search.

        Args:
            save_path: where the picture goes; its suffix says the format. None saves nothing.

        Raises:
            InputError: there was no search yet.
        """
        from ava.optimization.learning_rate.finder.plot import draw

        return draw(self._found(), save_path)

    def write_csv(self, path: str | Path) -> None:
        """Write the last search's curves: step, lr, loss, smoothed.

        Raises:
            InputError: there was no search yet.
        """
        from ava.optimization.learning_rate.finder.table import write_csv

        write_csv(self._found(), path)

    def _found(self) -> Findings:
        if self.findings is None:
            raise InputError("there is no curve yet.", hint="Call find(train_loader) first.")
        return self.findings

    def _test(self, loader: Iterable[Any], rewind: Rewind, seed: int) -> Curve:
        with self._untouched(rewind):
            if seed:
                # What follows differs from test to test, and is the same in every search that starts from here.
                own = int(torch.randint(2**31, (seed,))[-1])
                rng.seed(own)
                rewind.reseed(own)
            return self._trial.run(loader, self.config)

    def _probe(self, loader: Iterable[Any], rewind: Rewind) -> list[Probe]:
        """Short trainings around the valley's rate, each from where everything stands."""
        assert self.findings is not None
        probes = []
        for factor in FACTORS:
            with self._untouched(rewind):
                lr = self.findings.suggestions["valley"].lr * factor
                probes.append(self._trial.probe(loader, lr, self.config.probe_steps))
        return probes

    @contextmanager
    def _untouched(self, rewind: Rewind) -> Iterator[None]:
        """Within it anything may happen; after it everything is as before."""
        trial, random = self._trial, rng.capture()
        loss = trial.loss_fn if isinstance(trial.loss_fn, nn.Module) else None
        snapshot = Snapshot(trial.model, trial.optimizer, trial.scaler, loss)
        try:
            yield
        finally:
            snapshot.restore()
            rewind.restore()
            rng.restore(random)

    def _refuse_short(self, loader: Any) -> None:
        """Where the loader says how long it is, before anything begins; on all ranks alike."""
        try:
            length = len(loader)
        except TypeError:
            length = _UNKNOWN
        trial, steps = self._trial, self.config.num_steps
        length = least_over_ranks(length, trial.device)
        if length < steps * trial.accumulate:
            raise too_short(length, steps, trial.accumulate)


class _Epochs:
    """A loader again and again; one without a batch ends."""

    def __init__(self, loader: Iterable[Any]) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        while True:
            empty = True
            for batch in self.loader:
                empty = False
                yield batch
            if empty:
                return


def _device_of(model: nn.Module) -> torch.device:
    tensor = next(model.parameters(), None)
    return torch.device("cpu") if tensor is None else tensor.device
