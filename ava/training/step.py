"""One optimizer step, top to bottom.

Whatever changes training stands here as a named line; whatever only watches gets the report. Nothing here waits
for the device: losses, norms and the decision to skip stay tensors until somebody reads the report.
"""

from __future__ import annotations

import dataclasses
import functools
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch.nn.parallel import DistributedDataParallel

from ava import rng
from ava.data.loader import Batch, Position, Window
from ava.optimization.gradients.health.detail.report import Detail
from ava.optimization.gradients.health.measure import measure
from ava.optimization.gradients.health.measurement import Measurement
from ava.optimization.learning_rate.factors import Phase
from ava.optimization.optimizers.wrappers.sam import kept_buffers
from ava.optimization.precision.loss_scale import Reading
from ava.optimization.stability.verdict import Verdict
from ava.training import curvature, updating
from ava.training.buffers import KeptBuffers
from ava.training.detail import CloseLook, watched
from ava.training.state import Run


@dataclass(frozen=True)
class StepReport:
    """What one step did.

    Attributes:
        step: its number, counted from 1.
        lr: the first group's learning rate in this step; None where the optimizer chooses it.
        phase: where it lay in the schedule.
        num_samples: samples of the step, over all ranks.
        losses: objective -> this rank's sum over the step's counted terms, 0-dim, not yet read.
        weight: what turns this rank's sums into its part of the mean over all ranks' terms.
        health: what was measured of the gradients, before clipping; not yet read.
        start: the position in the data from which the samples were taken.
        stop: a rank was told to stop.
        detail: of each layer, where the step was looked at closely; not yet read.
        scaling: what the loss scale was; not yet read, None without one.
        verdict: what the detectors of recovery, or else the optimizer's own, said; not yet read, None without any.
    """

    step: int
    lr: float | None
    phase: Phase
    num_samples: int
    losses: dict[str, torch.Tensor]
    weight: float
    health: Measurement
    start: Position
    stop: bool = False
    detail: Detail | None = None
    scaling: Reading | None = None
    verdict: Verdict | None = None


def training_step(run: Run, window: Window, stop: bool = False) -> StepReport:
    """Take one step with the samples of `window`.

    Args:
        run: what is trained; changed in place.
        window: this rank's samples.
        stop: this rank was told to stop; the report says whether any rank was.
    """
    lr, phase = run.optimizer.param_groups[0]["lr"], run.phase
    total, stop = _agree(run, window, stop)
    weight = 1.0 / total if window.counted else 0.0
    look = CloseLook(run, window, total) if run.watch.wants_detail(run.step + 1) else None
    buffers = KeptBuffers(run.buffers)
    losses = _accumulate(run, window, weight, look)
    replaced = _sharpen(run, window, weight)
    found = _measure(run, replaced)
    if look is not None:
        look.before_step(found)
    verdict = updating.judge(run, found, losses, weight, window)
    with updating.guarded(run, found) as skipped:
        curvature.refresh(run, window)
        updating.update(run, found)
    verdict = getattr(run.optimizer, "verdict", None) if run.guard is None else verdict
    buffers.put_back(found.found_inf if isinstance(skipped, bool) else skipped)
    run.scheduler.step(skipped)
    if run.ema is not None:
        run.ema.update(skipped)
    scaling = run.policy.update(skipped, found.found_inf)
    _look_back(run, window, weight, skipped)
    detail = None if look is None else look.after_step()
    run.step += 1
    run.position = window.position
    measured = found.without_gradients()
    return StepReport(
        run.step, lr, phase, window.num_samples, losses, weight, measured, window.start, stop, detail, scaling,
        verdict,
    )  # fmt: skip


def _agree(run: Run, window: Window, stop: bool) -> tuple[float, bool]:
    """The number of terms that the step's loss averages over, on all ranks; and whether any has to stop."""
    count = sum(run.task.count(batch) for batch in window.batches) if window.counted else 0
    total, stopping = run.world.sum([float(count), float(stop)])
    return max(total, 1.0), stopping > 0


def _accumulate(
    run: Run, window: Window, weight: float, look: CloseLook | None = None
) -> dict[str, torch.Tensor]:  # fmt: skip
    """Gradients of the mean loss over the whole window: `p.grad` after the last micro-batch, averaged over ranks and
    without loss scale.

    Every micro-batch's summed loss is divided by the window's count, so uneven micro-batches weigh what they hold.

    Returns:
        Objective -> its loss summed over the window.
    """
    _zero_grad(run)
    losses: dict[str, torch.Tensor] = {}
    for index, batch in enumerate(window.on_device):
        with _without_sync(run, last=index == len(window.batches) - 1), watched(run, look, window, index):
            # DDP averages over ranks where the loss is a sum over them.
            parts = _passes(run, batch, weight * run.world.size, look)
        for name, part in parts.items():
            losses[name] = losses[name] + part.detach() if name in losses else part.detach()
    if run.surgery is not None:
        run.surgery.finish(run.step)
    run.policy.unscale_(run.parameters, count_underflow=run.watch.wants_statistics(run.step + 1))
    return losses


def _zero_grad(run: Run) -> None:
    if run.graphs is not None:
        run.graphs.zero_grad()
        return
    for parameter in run.parameters:
        parameter.grad = None


def _passes(run: Run, batch: Batch, weight: float, look: CloseLook | None) -> dict[str, torch.Tensor]:
    if run.graphs is not None and look is None:
        return run.graphs(batch, weight if run.policy.loss_scale is None else weight * run.policy.scale)
    parts = forward(run, batch)
    _backward(run, parts, weight)
    return parts


def _backward(run: Run, parts: dict[str, torch.Tensor], weight: float) -> None:
    """Several objectives become one gradient: by surgery, or as their sum."""
    scale = run.policy.scale
    if run.surgery is not None:
        run.surgery.backward(parts, weight, scale=scale)
        return
    objective = functools.reduce(torch.add, parts.values())
    # The weight enters as the gradient of the sum.
    seed = objective.new_full((), weight)
    torch.autograd.backward(objective, seed if run.policy.loss_scale is None else seed * scale)


def _sharpen(run: Run, window: Window, weight: float) -> torch.Tensor | None:
    """With `optimizer.sam_rho`: gradients anew, from where the loss is worst; the norm of those they replace.

    The whole window's gradient, over all ranks, says where that is: neither micro-batches nor ranks change it.
    """
    if run.optimizer.whole["sam_rho"] is None:
        return None
    with run.optimizer.perturbed() as norm, kept_buffers(run.model):
        _accumulate(run, window, weight)
    return norm


def _measure(run: Run, replaced: torch.Tensor | None) -> Measurement:
    """One pass over the gradients. Nothing waits for what it finds; it is the same on all ranks."""
    if run.optimizer.fused is not None:
        return run.optimizer.fused.measurement()  # they are used up, and were judged one by one
    found = measure(run.parameters, statistics=run.watch.wants_statistics(run.step + 1))
    if replaced is None:
        return found
    return dataclasses.replace(found, found_inf=found.found_inf.maximum((~torch.isfinite(replaced)).float()))


def forward(run: Run, batch: Batch) -> dict[str, torch.Tensor]:
    """Summed losses by objective, under the precision policy."""
    device = run.world.device
    if device.type != "cpu":
        batch = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
    with run.policy.autocast(), run.offload:
        return run.network(batch) if run.compilation is not None else run.task.losses(run.network, batch)


def _without_sync(run: Run, last: bool) -> AbstractContextManager[None]:
    """Ranks exchange gradients once a step, with the last micro-batch; surgery exchanges them itself."""
    network, is_last = run.network, last and run.surgery is None
    return network.no_sync() if isinstance(network, DistributedDataParallel) and not is_last else nullcontext()


def _look_back(run: Run, window: Window, weight: float, skipped: torch.Tensor | bool) -> None:
    """Tell a method that learns from what its step did to the losses of the same samples (FAMO)."""
    if run.surgery is None:
        return
    run.surgery.conclude(skipped)
    if not run.surgery.wants_hindsight:
        return
    sums: dict[str, torch.Tensor] = {}
    random = rng.capture()
    with torch.no_grad(), kept_buffers(run.model):
        for batch in window.batches:
            for name, part in forward(run, batch).items():
                sums[name] = sums[name] + part if name in sums else part
    rng.restore(random)
    run.surgery.observe({name: run.world.sum_(part.float() * weight) for name, part in sums.items()})
