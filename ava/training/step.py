"""One optimizer step, top to bottom.

Whatever changes training stands here as a named line; whatever only watches gets the report. Nothing here waits
for the device: losses, norms and the decision to skip stay tensors until somebody reads the report.
"""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch.nn.parallel import DistributedDataParallel

from ava.data.loader import Batch, Window
from ava.optimization.learning_rate.factors import Phase
from ava.optimization.optimizers.wrappers.sam import kept_buffers
from ava.training import curvature
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
        grad_norm: global gradient norm before clipping, 0-dim, not yet read.
        stop: a rank was told to stop.
    """

    step: int
    lr: float | None
    phase: Phase
    num_samples: int
    losses: dict[str, torch.Tensor]
    weight: float
    grad_norm: torch.Tensor
    stop: bool = False


def training_step(run: Run, window: Window, stop: bool = False) -> StepReport:
    """Take one step with the samples of `window`.

    Args:
        run: what is trained; changed in place.
        window: this rank's samples.
        stop: this rank was told to stop; the report says whether any rank was.
    """
    lr, phase = run.optimizer.param_groups[0]["lr"], run.phase
    weight, stop = _agree(run, window, stop)
    losses = _accumulate(run, window, weight)
    replaced = _sharpen(run, window, weight)
    grad_norm = _clip(run, replaced)
    skipped = _guard(run, grad_norm)
    curvature.refresh(run, window)
    run.optimizer.step()
    run.scheduler.step(skipped)
    if run.ema is not None:
        run.ema.update()
    run.step += 1
    run.position = window.position
    return StepReport(run.step, lr, phase, window.num_samples, losses, weight, grad_norm, stop)


def _agree(run: Run, window: Window, stop: bool) -> tuple[float, bool]:
    """One over the number of terms that the step's loss averages over, on all ranks; and whether any has to stop.

    The weight is 0 on a rank whose samples are a stand-in.
    """
    count = sum(run.task.count(batch) for batch in window.batches) if window.counted else 0
    total, stopping = run.world.sum([float(count), float(stop)])
    return (1.0 / max(total, 1.0) if window.counted else 0.0), stopping > 0


def _accumulate(run: Run, window: Window, weight: float) -> dict[str, torch.Tensor]:
    """Gradients of the mean loss over the whole window: `p.grad` after the last micro-batch, averaged over ranks.

    Every micro-batch's summed loss is divided by the window's count, so uneven micro-batches weigh what they hold.

    Returns:
        Objective -> its loss summed over the window.
    """
    run.optimizer.zero_grad(set_to_none=True)
    losses: dict[str, torch.Tensor] = {}
    for index, batch in enumerate(window.batches):
        with _without_sync(run, last=index == len(window.batches) - 1):
            parts = _forward(run, batch)
            objective = _combine(parts)
            # The weight enters as the gradient of the sum; DDP averages over ranks where the loss is a sum over them.
            torch.autograd.backward(objective, objective.new_full((), weight * run.world.size))
        for name, part in parts.items():
            losses[name] = losses[name] + part.detach() if name in losses else part.detach()
    return losses


def _sharpen(run: Run, window: Window, weight: float) -> torch.Tensor | None:
    """With `optimizer.sam_rho`: gradients anew, from where the loss is worst; the norm of those they replace.

    The whole window's gradient, over all ranks, says where that is: neither micro-batches nor ranks change it.
    """
    if run.optimizer.whole["sam_rho"] is None:
        return None
    with run.optimizer.perturbed() as norm, kept_buffers(run.model):
        _accumulate(run, window, weight)
    return norm


def _clip(run: Run, replaced: torch.Tensor | None) -> torch.Tensor:
    """Limit the gradients; their norm before that, which is not finite if any gradient of this step was not."""
    if run.optimizer.fused is not None:
        return run.optimizer.fused.norm()  # they are used up, and were judged one by one
    norm = run.clip(run.parameters)
    return norm if replaced is None else norm.where(torch.isfinite(replaced), replaced)


def _combine(parts: dict[str, torch.Tensor]) -> torch.Tensor:
    """Several objectives become one: their sum."""
    return functools.reduce(torch.add, parts.values())


def _forward(run: Run, batch: Batch) -> dict[str, torch.Tensor]:
    """Summed losses by objective, under the precision policy."""
    device = run.world.device
    if device.type != "cpu":
        batch = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
    with run.policy.autocast():
        return run.task.losses(run.network, batch)


def _without_sync(run: Run, last: bool) -> AbstractContextManager[None]:
    """Ranks exchange gradients once a step, with the last micro-batch."""
    network = run.network
    return network.no_sync() if isinstance(network, DistributedDataParallel) and not last else nullcontext()


def _guard(run: Run, grad_norm: torch.Tensor) -> torch.Tensor | bool:
    """A non-finite gradient changes nothing: the optimizer skips by selection on the device; whether it does."""
    if run.optimizer.fused is not None:
        return False  # each was judged as it came, and used if it was finite
    run.optimizer.found_inf = (~torch.isfinite(grad_norm)).float()
    return run.optimizer.found_inf
