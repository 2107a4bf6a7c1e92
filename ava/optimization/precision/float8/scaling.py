"""Delayed scaling: scales from the largest values of past steps, kept for all layers in a few small tensors.

    scale = fp8_max / max(history) / 2^margin

The scale of a cast follows from past steps and not from the operand: micro-batches and ranks share it, and one batch
does not move it at once. `margin` leaves room for growth; what exceeds it saturates. Where there is no history yet, a
scale comes from the operand itself. Nothing here is read by the host.

Shapes: L layers, H entries of history, three operands (input, weight, grad), four casts (those and the input again).

Reference: Micikevicius et al. 2022, FP8 Formats for Deep Learning, https://arxiv.org/abs/2209.05433
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ava.errors import InputError
from ava.optimization.precision.float8.formats import Casts, dtype
from ava.optimization.precision.float8.hardware import multiplies

INPUT, WEIGHT, GRAD, INPUT_AGAIN = range(4)
_OPERAND_OF_CAST = [INPUT, WEIGHT, GRAD, INPUT]
_LARGEST_SCALE = 2.0**126
"""Its reciprocal is still a normal float32."""


class Cast(NamedTuple):
    """An operand in 8 bits: `data * inverse` is about what it was; `inverse` is NaN where it was not finite."""

    data: Tensor
    inverse: Tensor


class DelayedScaling:
    """The scales of all layers.

    Args:
        layers: their names, in the order of the tensors' rows.
        casts: the type of each operand.
        device: where they compute.
        margin: powers of two left free above the largest value of the history.
        interval: optimizer steps between two new scales.
        history: entries kept, one per optimizer step.
        max_over_ranks: the elementwise largest of a tensor over all ranks; called with each new scale.
    """

    def __init__(
        self, layers: list[str], casts: Casts, device: torch.device, *, margin: int = 0, interval: int = 1,
        history: int = 16, max_over_ranks: Callable[[Tensor], Tensor] | None = None,
    ) -> None:  # fmt: skip
        self.layers, self.margin, self.interval, self.max_over_ranks = layers, margin, interval, max_over_ranks
        operands = (casts.input, casts.weight, casts.grad, casts.input_again)
        self.dtypes = [dtype(operand, device) for operand in operands]
        self.largest = [torch.finfo(kind).max for kind in self.dtypes]
        self.num_steps = 0
        self.counting, self._counted = True, False
        self.native = multiplies(device)
        num = len(layers)
        self.amax = torch.zeros(num, 3, device=device)
        self.history = torch.zeros(history, num, 3, device=device)
        self.scale = torch.zeros(num, 4, device=device)
        """0 where there is no history yet."""
        self._goal = torch.tensor(self.largest, device=device) / 2.0**margin
        self.counts = torch.zeros(3, dtype=torch.int64, device=device)
        """Elements that saturated, that became zero, and all, of the casts of one step."""
        self.nonfinite = torch.zeros(num, 3, dtype=torch.bool, device=device)
        """Operands that held an infinity or a NaN since the counts were last read."""

    def cast(self, tensor: Tensor, row: int, cast: int, amax: Tensor, record: bool = False) -> Cast:
        """`tensor` in 8 bits, under the scale of the past.

        Args:
            tensor: an operand of layer `row`.
            row: which layer.
            cast: INPUT, WEIGHT, GRAD or INPUT_AGAIN.
            amax: its largest magnitude, 0-dim.
            record: whether it enters the history.
        """
        kept, largest = self.scale[row, cast], self.largest[cast]
        scale = torch.where(kept > 0, kept, (self._goal[cast] / amax).clamp(max=_LARGEST_SCALE))
        scaled = tensor.float() * scale
        data = scaled.clamp(-largest, largest).to(self.dtypes[cast])
        if record:
            self._record(row, cast, amax, scaled, data)
        return Cast(data, torch.where(amax.isfinite(), scale.reciprocal(), torch.nan))

    def _record(self, row: int, cast: int, amax: Tensor, scaled: Tensor, data: Tensor) -> None:
        operand, finite = _OPERAND_OF_CAST[cast], amax.isfinite()
        kept = self.amax[row, operand]
        # An infinity would outlive a step that was left out unheard, as GradScaler does, and stand for the next one.
        kept.copy_(torch.where(finite, torch.maximum(kept, amax), kept))
        self.nonfinite[row, operand] |= ~finite
        # Neither a compiled layer nor a recorded one can stop counting.
        is_recorded = data.is_cuda and torch.cuda.is_current_stream_capturing()
        if self.counting and not torch.compiler.is_compiling() and not is_recorded:
            self._counted = True
            self.counts[0] += (scaled.abs() > self.largest[cast]).sum()
            self.counts[1] += ((data.float() == 0) & (scaled != 0)).sum()
            self.counts[2] += data.numel()

    @torch.no_grad()
    def step(self, skipped: Tensor | bool = False) -> None:
        """After an optimizer step: its largest values enter the history, and every `interval` steps scales are renewed.

        The first step renews them too, so that scales of the past are used from the second on. A step that was skipped
        leaves the history alone, as do values that are not finite.

        Args:
            skipped: whether the optimizer left the step out; a 0-dim tensor is not read by the host.
        """
        moved = torch.cat([self.amax[None], self.history[:-1]])
        left_out = torch.as_tensor(skipped, device=self.amax.device).bool()
        self.history.copy_(torch.where(left_out, self.history, moved))
        self.amax.zero_()
        self.counting &= not self._counted
        if self.num_steps % self.interval == 0:
            self._renew()
        self.num_steps += 1

    def _renew(self) -> None:
        if self.max_over_ranks is not None:
            self.history.copy_(self.max_over_ranks(self.history))
        amax = self.history.amax(0)[:, _OPERAND_OF_CAST]
        self.scale.copy_(torch.where(amax > 0, (self._goal / amax).clamp(max=_LARGEST_SCALE), 0.0))

    def count_again(self) -> tuple[int, int, int, int]:
        """The counts, read by the host, and how many operands were not finite; the next step is counted anew."""
        saturated, flushed, total, nonfinite = torch.cat([self.counts, self.nonfinite.sum()[None]]).tolist()
        self.counts.zero_()
        self.nonfinite.zero_()
        self.counting, self._counted = True, False
        return saturated, flushed, total, nonfinite

    def to(self, device: torch.device) -> None:
        """Follow the model to another device."""
        self.native = multiplies(device)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value.to(device))

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Unpickled, perhaps on another device."""
        vars(self).update(state)
        self.native = multiplies(self.scale.device)

    def __deepcopy__(self, memo: dict[int, Any]) -> DelayedScaling:
        """Scales of its own for a copy of the model; the ranks are the same."""
        twin = copy.copy(self)
        vars(twin).update({name: value.clone() for name, value in vars(self).items() if isinstance(value, Tensor)})
        return twin

    def state_dict(self) -> dict[str, Any]:
        """What the next step depends on."""
        return {"layers": list(self.layers), "num_steps": self.num_steps, "amax": self.amax.clone(),
                "history": self.history.clone(), "scale": self.scale.clone()}  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave.

        Raises:
            InputError: it is of other layers or of a history of another length.
        """
        if state.get("layers") != self.layers or state["history"].shape != self.history.shape:
            raise InputError(
                "the saved FP8 scales are of other layers, or of a history of another length.",
                hint="Continue with the precision.* options and the model that the run began with.",
            )
        self.num_steps = state["num_steps"]
        for name in ("amax", "history", "scale"):
            getattr(self, name).copy_(state[name])
