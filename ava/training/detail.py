"""What a step collects on its way where it is looked at closely; all other steps pay nothing for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from torch import Tensor

from ava.data.loader import Window
from ava.optimization.gradients.health.anomaly import AnomalyWatch
from ava.optimization.gradients.health.detail.activations import ActivationWatch
from ava.optimization.gradients.health.detail.layers import LayerWatch
from ava.optimization.gradients.health.detail.report import Detail
from ava.optimization.gradients.health.detail.small_batch import Draw, SmallBatch
from ava.optimization.gradients.health.measurement import Measurement
from ava.optimization.gradients.health.nonfinite_operation import NonFiniteOperation
from ava.training.state import Run


class CloseLook:
    """One step's look at every layer.

    Args:
        run: what is trained.
        window: this rank's samples.
        total: how many terms the step's loss averages over, on all ranks.
    """

    def __init__(self, run: Run, window: Window, total: float) -> None:
        self.run, self.window, self.total = run, window, total
        self.activations = None if run.is_compiled else ActivationWatch(run.model)
        self.small = SmallBatch(run.parameters)
        self._norm: Tensor | None = None
        # The end of the step changes it in place.
        self._scale = None if run.policy.loss_scale is None else run.policy.loss_scale.scale.clone()

    @contextmanager
    def micro_batch(self, index: int) -> Iterator[None]:
        """Around forward and backward of one micro-batch."""
        with self.activations or nullcontext(), self.small if index == 0 else nullcontext():
            yield

    def before_step(self, found: Measurement) -> None:
        """Once the gradients are complete and measured."""
        self.layers, self._norm = LayerWatch(self.run.model.named_parameters(), found), found.norm

    def after_step(self) -> Detail:
        """Once the optimizer has moved the weights; still on the device."""
        assert self._norm is not None
        factor = self.run.world.size / self.total if self.window.counted else 0.0
        size = self.run.task.count(self.window.batches[0]) if self.window.counted else 0
        # The gradient of a sharpness-aware step is of other weights, and surgery's of no batch.
        is_plain = self.run.optimizer.whole["sam_rho"] is None and self.run.surgery is None
        draw = Draw(self._small_square(), size, factor, self._norm, self.total) if is_plain else None
        return Detail(self.run.step + 1, self.layers.after_step(), self.activations, draw)

    def _small_square(self) -> Tensor | None:
        """Of the first micro-batch's gradient, which was seen with the loss scale on it."""
        square = self.small.square
        return square if square is None or self._scale is None else square / self._scale.double().square()


@contextmanager
def watched(run: Run, look: CloseLook | None, window: Window, index: int) -> Iterator[None]:
    """The context of one micro-batch's forward and backward pass.

    Raises:
        NonFiniteOperation: with `health.anomaly`, on entering or leaving it.
    """
    held = None if run.surgery is None else run.surgery.gradients
    anomaly = AnomalyWatch(run.model, window.batches[index], held) if run.watch.anomaly else nullcontext()
    with _overflows_allowed(run), anomaly, nullcontext() if look is None else look.micro_batch(index):
        yield


@contextmanager
def _overflows_allowed(run: Run) -> Iterator[None]:
    """An infinity of the backward pass is what a loss scale expects, until it cannot fall any further."""
    try:
        yield
    except NonFiniteOperation as error:
        scale = run.policy.loss_scale
        if scale is None or error.phase != "backward" or bool(scale.scale <= scale.floor):
            raise
