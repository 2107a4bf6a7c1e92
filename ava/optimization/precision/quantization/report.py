"""What a quantization changed: size, latency, outputs, and what the caller measures."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ava.optimization.precision.quantization.selection import Selection

Evaluate = Callable[[nn.Module], Mapping[str, float]]
BATCH_SIZES = (1, 64)
_ROUNDS, _FEW, _SHORTEST, _LONG = 7, 3, 2e-3, 0.5
"""Turns of each model; turns where one takes more than `_LONG` seconds; the seconds that one takes at least."""


@dataclass
class QuantizationReport:
    """Before and after; what was not measured is empty or None.

    Attributes:
        scheme: what was rounded to what.
        backend: what runs it.
        layers: names of the quantized layers.
        skipped: linear layers that stay as they are -> why.
        share: of the parameters, those that were quantized, from 0 to 1.
        size: bytes of the stored tensors, each tied weight once: before, after.
        latency_ms: batch size -> milliseconds of wall time a call, median: before, after.
        output_error: |quantized - before| / |before| of the outputs, root mean square.
        metrics: name -> value on the caller's data: before, after.
        notes: what a user should know.
    """

    scheme: str
    backend: str
    layers: tuple[str, ...]
    skipped: dict[str, str]
    share: float
    size: tuple[int, int]
    latency_ms: dict[int, tuple[float, float]] = field(default_factory=dict)
    output_error: float | None = None
    metrics: dict[str, tuple[float, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    def rows(self) -> list[dict[str, Any]]:
        """A table: one row a quantity, with its value before, after, and their ratio."""
        pairs: dict[str, tuple[float, float]] = {"size, MB": (self.size[0] / 1e6, self.size[1] / 1e6)}
        pairs |= {f"ms at batch {size}": pair for size, pair in self.latency_ms.items()}
        pairs |= self.metrics
        rows = [{"": name, "before": a, "after": b, "ratio": b / a if a else None} for name, (a, b) in pairs.items()]
        if self.output_error is not None:
            rows.append({"": "output error", "before": None, "after": self.output_error, "ratio": None})
        return rows

    def __str__(self) -> str:
        lines = [f"{self.scheme}, run by {self.backend}: {len(self.layers)} layers, {self.share:.1%} of the parameters"]
        for row in self.rows():
            cells = ("" if row[key] is None else f"{row[key]:.4g}" for key in ("before", "after", "ratio"))
            lines.append("{:16} {:>10} {:>10} {:>7}".format(row[""], *cells))
        lines += [f"{name} stays: {reason}" for name, reason in self.skipped.items()]
        return "\n".join([*lines, *self.notes])


def measure(
    report: QuantizationReport, before: nn.Module, after: nn.Module, inputs: Tensor | None, evaluate: Evaluate | None
) -> None:
    """Fill in what needs both models to run.

    Args:
        report: filled in.
        before: the model as it was.
        after: the quantized one.
        inputs: (B, ...) for latency and outputs; repeated or cut to each batch size. None leaves them out.
        evaluate: the caller's metrics of a model; None leaves them out.
    """
    with evaluating(before), evaluating(after), torch.no_grad():
        if inputs is not None:
            report.output_error = output_error(before(inputs), after(inputs))
            for size in BATCH_SIZES:
                report.latency_ms[size] = latency(before, after, resized(inputs, size))
        if evaluate is not None:
            was, now = dict(evaluate(before)), dict(evaluate(after))
            report.metrics = {name: (value, now[name]) for name, value in was.items() if name in now}


def latency(before: nn.Module, after: nn.Module, inputs: Tensor) -> tuple[float, float]:
    """Milliseconds of wall time a call takes, both models in turns: medians over the turns."""
    first = [_seconds(model, inputs, 1) for model in (before, after)]
    repeats = [max(1, math.ceil(_SHORTEST / max(seconds, 1e-9))) for seconds in first]
    turns = [
        [_seconds(model, inputs, number) for model, number in zip((before, after), repeats, strict=True)]
        for _ in range(_ROUNDS if max(first) < _LONG else _FEW)
    ]
    was, now = (statistics.median(column) * 1e3 for column in zip(*turns, strict=True))
    return was, now


def output_error(before: Any, after: Any) -> float:
    """|after - before| / |before|, over all tensors of the outputs."""
    pairs = list(zip(_tensors(before), _tensors(after), strict=True))
    error = sum(float((b.double() - a.double()).square().sum()) for a, b in pairs)
    size = sum(float(a.double().square().sum()) for a, _ in pairs)
    return math.sqrt(error / size) if size else math.sqrt(error)


def resized(inputs: Tensor, size: int) -> Tensor:
    """So many samples: the first ones, repeated if there are too few."""
    repeats = -(-size // len(inputs))
    return inputs.repeat(repeats, *[1] * (inputs.ndim - 1))[:size]


def remarks(selection: Selection) -> list[str]:
    """What a reader of the figures has to know."""
    if selection.share >= 0.5:
        return []
    return [f"Only {selection.share:.1%} of the parameters are in quantized layers; the rest is as it was."]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within it the model is in evaluation mode; after it, each of its modules is as it was."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _seconds(model: nn.Module, inputs: Tensor, repeats: int) -> float:
    on_gpu = inputs.device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize(inputs.device)
    start = time.perf_counter()
    for _ in range(repeats):
        model(inputs)
    if on_gpu:
        torch.cuda.synchronize(inputs.device)
    return (time.perf_counter() - start) / repeats


def _tensors(outputs: Any) -> Iterator[Tensor]:
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, Mapping):
        for value in outputs.values():
            yield from _tensors(value)
    elif isinstance(outputs, list | tuple):
        for value in outputs:
            yield from _tensors(value)
