"""The precision policy: the type that a forward pass computes in, and what keeps its gradients in range.

    policy = Policy("fp16", "cuda")
    with policy.autocast():
        loss = criterion(model(inputs), targets)
    (loss * policy.scale).backward()
    policy.unscale_(model.parameters())           # once, before anything looks at the gradients
    ...                                           # measure, clip, and skip the step where one is not finite
    policy.update(found_inf)

Weights, gradients and optimizer state stay float32 (`bf16_parameters` says otherwise); under autocast matrix products
run in 16 bits, and sums, normalisation and losses in float32.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ava.errors import InputError
from ava.optimization.precision.loss_scale import LossScale, Reading
from ava.optimization.precision.support import refuse_unsupported

DTYPES: dict[str, torch.dtype | None] = {
    "fp32": None, "tf32": None, "bf16": torch.bfloat16, "fp16": torch.float16, "fp8": torch.bfloat16,
}  # fmt: skip
"""Policy -> what autocast computes in; None is no autocast. Beside 8-bit layers the others compute in bfloat16."""


class Scaling(Protocol):
    """What float8 layers need of a training (`float8/training.py`)."""

    def step(self, skipped: Tensor | bool) -> None: ...  # noqa: D102
    def columns(self) -> dict[str, float]: ...  # noqa: D102
    def state_dict(self) -> dict[str, Any]: ...  # noqa: D102
    def load_state_dict(self, state: dict[str, Any]) -> None: ...  # noqa: D102


class Policy:
    """One training's precision.

    Args:
        name: "fp32"; "tf32", whose switches are the caller's; "bf16", whose range needs no loss scale; "fp16" with a
            loss scale; "fp8", for layers that were converted, the rest in bf16.
        device: where the training runs, or its type.
        emulate: allow fp8 on a device without hardware for it.
        scaling: options of `LossScale`, for fp16.

    Attributes:
        float8: what 8-bit layers need to be told; None without any.
        remarks: sentences about the model's layers, for the start of a run.

    Raises:
        InputError: there is no such policy, the device cannot run it, or an option of the scale is out of range.
    """

    def __init__(
        self, name: str, device: torch.device | str, *, emulate: bool = False, **scaling: Any
    ) -> None:  # fmt: skip
        device = torch.device(device)
        refuse_unsupported(name, device, emulate=emulate)
        idle = [*(scaling if name != "fp16" else ()), *(["emulate"] if emulate and name != "fp8" else ())]
        if idle:
            raise InputError(f"changes nothing with precision={name}.", key=idle[0], hint="Leave it out.")
        self.name, self.device_type, self.dtype = name, device.type, DTYPES[name]
        self.loss_scale = LossScale(device, **scaling) if name == "fp16" else None
        self.float8: Scaling | None = None
        self.remarks: list[str] = []

    def autocast(self) -> AbstractContextManager[object]:
        """The context of a forward pass and its loss."""
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(self.device_type, dtype=self.dtype)

    def autocast_without_fp16(self) -> AbstractContextManager[object]:
        """As `autocast`, for gradients that no loss scale protects."""
        return nullcontext() if self.loss_scale is not None else self.autocast()

    @property
    def scale(self) -> Tensor | float:
        """What losses are to be multiplied with before the backward pass; 0-dim on the device, or 1."""
        return 1.0 if self.loss_scale is None else self.loss_scale.scale

    def unscale_(self, parameters: Iterable[Tensor], *, count_underflow: bool = False) -> None:
        """Divide the gradients by the scale, in place; once a backward pass, before anything decides by them."""
        if self.loss_scale is not None:
            self.loss_scale.unscale_(parameters, count_underflow=count_underflow)

    def update(self, skipped: Tensor | bool, found_inf: Tensor) -> Reading | None:
        """End an optimizer step: the scales of the next one.

        Args:
            skipped: whether it changed nothing.
            found_inf: 0-dim, 1 where a gradient of any rank was not finite.

        Returns:
            What the loss scale was in the step.
        """
        if self.float8 is not None:
            self.float8.step(skipped)
        if self.loss_scale is None:
            return None
        reading = self.loss_scale.reading(found_inf)
        self.loss_scale.update(found_inf)
        return reading

    def state_dict(self) -> dict[str, Any]:
        """The state of the scales, of those that there are."""
        parts = {"loss_scale": self.loss_scale, "float8": self.float8}
        return {name: part.state_dict() for name, part in parts.items() if part is not None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave; scales that it lacks begin anew."""
        parts = {"loss_scale": self.loss_scale, "float8": self.float8}
        for name, part in parts.items():
            if part is not None and name in state:
                part.load_state_dict(state[name])


def bf16_parameters(model: nn.Module) -> None:
    """Make weights bfloat16, in place; normalisation over batches keeps its own, and all buffers theirs, in float32.

    Updates smaller than half the distance to the next bfloat16 number (1/256 of a weight) are lost unless the optimizer
    rounds stochastically.
    """
    for module in model.modules():
        if isinstance(module, _NormBase):
            continue
        for parameter in module.parameters(recurse=False):
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(torch.bfloat16)
