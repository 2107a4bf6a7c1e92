"""The range that each layer's inputs have on some data: what static quantization rounds them by."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from ava.errors import InputError
from ava.optimization.precision.quantization.arithmetic import Plain
from ava.optimization.precision.quantization.inputs import of_batch
from ava.optimization.precision.quantization.selection import quoted


def calibrate(model: nn.Module, layers: Sequence[str], batches: Iterable[Any], most: int) -> dict[str, Plain]:
    """Watch the inputs of layers.

        scale = (max - min) / 255,  zero = round(-min / scale),  0 <= round(x / scale) + zero <= 255

    Args:
        model: the model, in evaluation mode; called with each batch.
        layers: names of its linear layers.
        batches: tensors; tuples or lists, of which the first is the input; {"inputs": tensor}; or other dicts, which
            are the model's keyword arguments.
        most: batches to look at.

    Returns:
        layer -> `input_scale` (float32) and `input_zero` (int32), both 0-dim; layers that no batch reached are missing.

    Raises:
        InputError: a batch has no inputs, or a layer's input is not finite.
    """
    ranges: dict[str, tuple[Tensor, Tensor]] = {}

    def watch(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if not inputs[0].numel():
                return
            low, high = inputs[0].aminmax()
            before = ranges.get(name, (low, high))
            ranges[name] = (low.minimum(before[0]), high.maximum(before[1]))

        return hook

    handles = [model.get_submodule(name).register_forward_pre_hook(watch(name)) for name in layers]
    try:
        with torch.no_grad():
            for batch in islice(batches, most):
                of_batch(batch).call(model)
    finally:
        for handle in handles:
            handle.remove()
    return {name: _affine(name, float(low), float(high)) for name, (low, high) in ranges.items()}


def _affine(name: str, low: float, high: float) -> Plain:
    if not math.isfinite(low) or not math.isfinite(high):
        problem = f"the inputs of {quoted(name)} were not finite on the calibration data."
        raise InputError(problem, hint="Quantize a model whose outputs are finite, on data as it was trained on.")
    low, high = min(low, 0.0), max(high, 0.0)  # 0, as padding gives it, has to stay 0
    scale = max((high - low) / 255, torch.finfo(torch.float32).tiny)
    zero = min(255, max(0, round(-low / scale)))
    return {"input_scale": torch.tensor(scale), "input_zero": torch.tensor(zero, dtype=torch.int32)}
