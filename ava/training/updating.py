"""From measured gradients to new weights: what the detectors say of them, and what the optimizer is told.

Whatever leaves a step out or scales it does so through `found_inf` and `grad_scale`, which the optimizer reads on the
device in the pass that it makes anyway.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ava.data.loader import Window
from ava.optimization.gradients.health.measurement import Measurement
from ava.optimization.stability.verdict import Verdict
from ava.training.state import Run


def judge(
    run: Run, found: Measurement, losses: dict[str, torch.Tensor], weight: float, window: Window
) -> Verdict | None:  # fmt: skip
    """Show the step to who judges it: recovery's detectors, and an optimizer that has its own.

    Args:
        run: the training.
        found: what was measured of the gradients.
        losses: objective -> this rank's sum.
        weight: what turns this into its part of the mean over all ranks.
        window: the step's samples.

    Returns:
        What recovery's detectors say; None without recovery. An optimizer's own say theirs in its step.
    """
    observe = getattr(run.optimizer, "observe", None)
    if run.guard is None and observe is None:
        return None
    loss = run.world.sum_(torch.stack([part.float() for part in losses.values()]).sum() * weight)
    if observe is not None:
        observe(loss, gradient_norm=found.norm, reduced=True)
    if run.guard is not None:
        return run.guard.judge(found, loss, window).verdict
    return None


@contextmanager
def guarded(run: Run, found: Measurement) -> Iterator[torch.Tensor | bool]:
    """Within it a gradient that is not finite, or that recovery leaves out, changes nothing: the optimizer skips by
    selection on the device.

    Yields:
        Whether it does.
    """
    if run.optimizer.fused is not None:
        yield False  # each was judged as it came, and used if it was finite
        return
    mending = None if run.guard is None else run.guard.mending
    run.optimizer.found_inf = found.found_inf if mending is None else mending.skipped
    try:
        yield run.optimizer.found_inf
    finally:
        run.optimizer.found_inf = None


def update(run: Run, found: Measurement) -> None:
    """The optimizer's step; it divides the gradients by a scale on its way, which saves a pass over them."""
    scale = _scale(run, found)
    if run.guard is not None:
        run.guard.before_step()
    run.optimizer.grad_scale = scale
    try:
        run.optimizer.step()
    finally:
        run.optimizer.grad_scale = None
    if run.guard is not None:
        run.guard.after_step()


def _scale(run: Run, found: Measurement) -> torch.Tensor | None:
    """What the optimizer has to divide the gradients by to limit them, from the norms already measured."""
    if run.optimizer.fused is not None:
        return None
    factor = run.clip(found)
    if run.guard is not None:
        factor = run.guard.factor(factor)
    # torch's fused kernels take a scale in float32 only.
    return None if factor is None else factor.reciprocal().clamp(max=torch.finfo(torch.float32).max).float()
