"""The gradients' norm as a pilot needs it: unscaled, on one device, infinite where the step is skipped in any case."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ava.optimization.gradients.health.measure import measure
from ava.optimization.optimizers.arithmetic import where
from ava.optimization.optimizers.engines.batch import local
from ava.optimization.stability.loss import on
from ava.optimization.stability.verdict import Number


def device_of(groups: Sequence[dict[str, Any]]) -> torch.device:
    """Where numbers live: an accelerator, if a parameter is on one."""
    devices = {local(parameter).device for group in groups for parameter in group["params"]}
    return next((device for device in devices if device.type != "cpu"), torch.device("cpu"))


def gradient_norm(
    groups: Sequence[dict[str, Any]], device: torch.device, told: Number | None, scale: Tensor | None,
    found_inf: Tensor | None,
) -> Number:  # fmt: skip
    """The norm of all gradients together, over all shards.

    Args:
        groups: param groups.
        device: where the answer is wanted.
        told: the norm where it is known already, unscaled.
        scale: what the gradients are multiplied with; None is 1.
        found_inf: above 0 where something has been found not to be finite.

    Returns:
        A float on a processor, else a 0-dim tensor; infinite where `found_inf` says so.
    """
    if told is None:
        parameters = [parameter for group in groups for parameter in group["params"]]
        norm = on(device, measure(parameters).norm)
        if scale is not None:
            norm = norm / on(device, scale.reshape(()))
    else:
        norm = on(device, told)
    if found_inf is None:
        return norm
    infinite: Number = where(on(device, found_inf.reshape(())) > 0, math.inf, norm)
    return infinite
