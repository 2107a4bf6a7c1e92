"""What the activations of a step look like, and which units are dead.

    with ActivationWatch(model) as watch:      # around forward and backward of all micro-batches
        ...
    watch.read()["blocks.0.2"]                 # {"mean": .., "std": .., "max": .., "dead": ..}; waits for the device

Watched are the outputs of activation modules (ReLU, GELU, Tanh, ...) and of linear and convolution modules: an
activation that is called as a function (`torch.relu(x)`) is not a module and cannot be seen, what goes into it can.
Hooks stand only within the context, so other steps cost nothing. What `torch.compile` made does not call them: its
layers are not seen.

A unit is one feature: a channel of a convolution, a column of a linear layer. It is dead if over all samples and
places of the step

    Tanh, Sigmoid, Hardtanh, ReLU6, Softsign, ...    max - min <= 1e-3 of the function's range (it is saturated)
    all others                                       max - min <= 1e-3 of the layer's standard deviation
    ReLU, ReLU6, Threshold, Hardtanh(0, b)           or its largest output is <= 0

With less than two outputs a unit, nothing is said about it. A module that the network uses at several places is judged
over all of them: its unit is dead where it is dead at every place of one width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ava.optimization.optimizers.engines.batch import wide_dtype

RECTIFIERS = (nn.ReLU, nn.ReLU6, nn.Threshold)
SATURATING: dict[type[nn.Module], float] = {nn.Tanh: 2.0, nn.Softsign: 2.0, nn.Sigmoid: 1.0, nn.Hardsigmoid: 1.0}
"""Activation -> the length of its range."""
SMOOTH = (
    nn.GELU, nn.SiLU, nn.Mish, nn.ELU, nn.CELU, nn.SELU, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.Softplus, nn.Hardswish,
    nn.LogSigmoid, nn.Softshrink, nn.Hardshrink, nn.Tanhshrink,
)  # fmt: skip
CONVOLUTIONS: dict[type[nn.Module], int] = {
    nn.Conv1d: -2, nn.Conv2d: -3, nn.Conv3d: -4, nn.ConvTranspose1d: -2, nn.ConvTranspose2d: -3, nn.ConvTranspose3d: -4,
}  # fmt: skip
"""Convolution -> the dimension of its channels."""
CONSTANT = 1e-3

Reduction: TypeAlias = Callable[[Tensor], Tensor]


def _as_it_is(values: Tensor) -> Tensor:
    return values


@dataclass
class _Seen:
    """What one module gave out so far: (count, sum, sum of squares); width -> (2, width), each unit's max and -min."""

    sums: Tensor
    extremes: dict[int, Tensor]

    @property
    def width(self) -> int:
        return sum(self.extremes)


class ActivationWatch:
    """A context in which the outputs of a model's layers are summed up.

    Args:
        module: the plain model, not what DDP or `torch.compile` made of it.
    """

    def __init__(self, module: nn.Module) -> None:
        self._modules = {name: layer for name, layer in module.named_modules() if _is_watched(layer)}
        self._device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
        self._handles: list[RemovableHandle] = []
        self._seen: dict[str, _Seen] = {}
        self._axes: dict[int, int] = {}

    def __enter__(self) -> ActivationWatch:
        self._handles = [layer.register_forward_hook(self._hook(name)) for name, layer in self._modules.items()]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def note(layer: nn.Module, _: Any, output: Any) -> None:
            if torch.compiler.is_compiling():
                return  # nothing of this belongs into a graph
            if isinstance(output, Tensor) and output.is_floating_point() and output.numel():
                self._add(name, _whole(output.detach()), layer)

        return note

    @torch.no_grad()
    def _add(self, name: str, output: Tensor, layer: nn.Module) -> None:
        axis = self._axis(layer, output.dim())
        others = [dimension for dimension in range(output.dim()) if dimension != axis % max(output.dim(), 1)]
        wide = wide_dtype(output.device)
        length = torch.linalg.vector_norm(output, dtype=wide)
        sums = torch.stack([length.new_tensor(output.numel()), output.sum(dtype=wide), length.square()])
        ends = [output, output.neg()] if not others else [output.amax(others), output.amin(others).neg()]
        extremes = torch.stack(ends).reshape(2, -1).to(wide)
        seen = self._seen.setdefault(name, _Seen(torch.zeros_like(sums), {}))
        seen.sums += sums
        width = extremes.shape[1]
        seen.extremes[width] = torch.maximum(seen.extremes.get(width, extremes), extremes)

    def _axis(self, layer: nn.Module, dimensions: int) -> int:
        """Where the units lie: of an activation, where the last weighted layer with as many dimensions has them."""
        for kind, axis in CONVOLUTIONS.items():
            if isinstance(layer, kind):
                self._axes[dimensions] = axis
                return axis
        if isinstance(layer, nn.Linear):
            self._axes[dimensions] = -1
        return self._axes.get(dimensions, -1)

    def read(self, sum_: Reduction = _as_it_is, max_: Reduction = _as_it_is) -> dict[str, dict[str, float | None]]:
        """By module that ran: `mean`, `std`, `max` (of absolute values) and `dead`, the share of dead units, 0 to 1.

        Every rank calls it, with what adds a tensor up over ranks and takes its maximum, in place. Ranks on which a
        module did not run (experts) take part.

        Returns:
            `dead` is None where no unit gave two outputs. Waits for the device.
        """
        if not self._modules:
            return {}
        nothing = torch.zeros(3, dtype=wide_dtype(self._device), device=self._device)
        seen = [self._seen.get(name, _Seen(nothing, {})) for name in self._modules]
        sums = sum_(torch.stack([one.sums.to(nothing) for one in seen]))
        widths = max_(nothing.new_tensor([one.width for one in seen])).long().tolist()
        extremes = max_(torch.cat([_filled(one, width, nothing) for one, width in zip(seen, widths, strict=True)], 1))
        parts = zip(self._modules.values(), sums, torch.split(extremes, widths, dim=1), strict=True)
        rows = torch.stack([_summary(layer, total, high, -low) for layer, total, (high, low) in parts]).tolist()
        return {name: _row(*row) for name, row, width in zip(self._modules, rows, widths, strict=True) if width}


def _is_watched(layer: nn.Module) -> bool:
    kinds = (*RECTIFIERS, *SMOOTH, nn.Hardtanh, nn.Linear, *SATURATING, *CONVOLUTIONS)
    return isinstance(layer, kinds)


def _whole(output: Tensor) -> Tensor:
    """A sharded output (DTensor) put together; every rank of its mesh runs the layer."""
    return output.full_tensor() if hasattr(output, "full_tensor") else output


def _filled(seen: _Seen, width: int, like: Tensor) -> Tensor:
    """(2, width): the largest outputs and the largest of the negated ones; -inf where this rank saw nothing."""
    found = [seen.extremes[key].to(like) for key in sorted(seen.extremes)]
    return torch.cat([*found, like.new_full((2, width - seen.width), -torch.inf)], dim=1)


def _summary(layer: nn.Module, sums: Tensor, high: Tensor, low: Tensor) -> Tensor:
    """(4,): mean, standard deviation, absolute maximum, share of dead units (-1 where it is not known)."""
    count = sums[0].clamp(min=1)
    mean = sums[1] / count
    std = (sums[2] / count - mean.square()).clamp(min=0).sqrt()
    if not len(high):
        return torch.stack([mean, std, mean, mean])
    tolerance = CONSTANT * (_range_of(layer) or std)
    dead = high - low <= tolerance
    if isinstance(layer, RECTIFIERS) or (isinstance(layer, nn.Hardtanh) and layer.min_val == 0):
        dead = dead | (high <= 0)
    share = torch.where(count >= 2 * len(high), dead.double().mean().to(mean), -torch.ones_like(mean))
    return torch.stack([mean, std, torch.maximum(high.abs(), low.abs()).amax(), share])


def _range_of(layer: nn.Module) -> float | None:
    """The length of a bounded activation's range."""
    if isinstance(layer, nn.Hardtanh):
        return float(layer.max_val - layer.min_val)
    return next((length for kind, length in SATURATING.items() if isinstance(layer, kind)), None)


def _row(mean: float, std: float, highest: float, dead: float) -> dict[str, float | None]:
    return {"mean": mean, "std": std, "max": highest, "dead": None if dead < 0 else dead}
