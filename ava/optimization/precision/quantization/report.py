"""What a quantization changed: size, latency, outputs, and what the caller measures."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ava.errors import InputError
from ava.optimization.precision.fused_encoders import forbid_fused_encoders
from ava.optimization.precision.quantization.inputs import Inputs
from ava.optimization.precision.quantization.selection import Selection, counted, quoted

Evaluate = Callable[[nn.Module], Mapping[str, float]]
BATCH_SIZES = (1, 64)
_ROUNDS, _FEW, _SHORTEST, _LONG = 7, 3, 2e-3, 0.5
"""Turns of each model; turns where one takes more than `_LONG` seconds; the seconds that one takes at least."""

_CACHE = "past_key_values"


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
        output_error: |quantized - before| / |before| of the outputs, or of the `logits` among them, root mean square.
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
        title = f"{counted(len(self.layers), 'layer')}, {percent(self.share)} of the parameters"
        lines = [f"{self.scheme}, run by {self.backend}: {title}", *self.notes]
        for row in self.rows():
            cells = ("" if row[key] is None else f"{row[key]:.4g}" for key in ("before", "after", "ratio"))
            lines.append("{:16} {:>10} {:>10} {:>7}".format(row[""], *cells))
        lines += [f"{quoted(name)} stays: it {reason}" for name, reason in self.skipped.items()]
        return "\n".join(lines)


def measure(
    report: QuantizationReport, before: nn.Module, after: nn.Module, inputs: Inputs | None, evaluate: Evaluate | None
) -> None:
    """Fill in what needs both models to run, which may change their buffers and modes.

    Args:
        report: filled in.
        before: the model as it was.
        after: the quantized one.
        inputs: one call, for latency and outputs; repeated or cut to each batch size. None leaves them out.
        evaluate: the caller's metrics of a model; None leaves them out.

    Raises:
        InputError: the quantized model fails where the other does not, or `evaluate` gives no numbers.
    """
    with evaluating(before), evaluating(after), torch.no_grad():
        if inputs is None:
            report.notes.append("Latency and the error of the outputs were not measured: there are no example_inputs.")
        else:
            _measure_calls(report, before, after, inputs)
    if evaluate is not None:
        with evaluating(before), evaluating(after), torch.no_grad():
            was, now = _metrics(evaluate, before), _checked(lambda: _metrics(evaluate, after))
        report.metrics = {name: (value, now[name]) for name, value in was.items() if name in now}


def _measure_calls(report: QuantizationReport, before: nn.Module, after: nn.Module, inputs: Inputs) -> None:
    expected = inputs.call(_without_fused(before, report.layers))
    report.output_error = output_error(expected, _checked(lambda: inputs.call(after)))
    if report.output_error is None:
        found = type(expected).__name__
        report.notes.append(f"The error of the outputs was not measured: a {found} holds no tensors to compare.")
    if not inputs.batch_size:
        report.notes.append("Latency was not measured: the example_inputs hold no samples.")
        return
    device = next((tensor.device for tensor in before.parameters()), torch.device("cpu"))
    for size in BATCH_SIZES:
        resized = inputs.resized(size).on(device)
        try:
            resized.call(before)
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            report.notes.append(f"Latency at batch {size} was not measured: the model itself fails there ({reason}).")
        else:
            report.latency_ms[size] = _checked(partial(latency, before, after, resized, device))


def _without_fused(model: nn.Module, layers: Iterable[str]) -> nn.Module:
    """A copy over the same parameters that calls `layers` as the quantized model does.

    Torch's fused encoders give other values where there is padding, which is no error of the rounding.
    """
    made = copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})
    forbid_fused_encoders(made, {name: made.get_submodule(name) for name in layers})
    return made


def _metrics(evaluate: Evaluate, model: nn.Module) -> dict[str, float]:
    found = evaluate(model)
    try:
        return {str(name): float(value) for name, value in found.items()}
    except (AttributeError, TypeError, ValueError, RuntimeError):
        problem = "it has to return a mapping of names to numbers."
        hint = "Write `lambda model: {'loss': validate(model)}`."
        raise InputError(problem, key="evaluate", value=type(found).__name__, hint=hint) from None


def _checked(call: Callable[[], Any]) -> Any:
    """What a call of the quantized model gives, where the model it was made of gave something."""
    try:
        return call()
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        problem = f"the quantized model fails where the model itself does not ({reason})."
        hint = "Where the model reads the weights of its layers itself, example_inputs show which, and they stay."
        raise InputError(problem, hint=hint) from error


def latency(before: nn.Module, after: nn.Module, inputs: Inputs, device: torch.device) -> tuple[float, float]:
    """Milliseconds of wall time a call takes, both models in turns: medians over the turns."""
    first = [_seconds(model, inputs, device, 1) for model in (before, after)]
    repeats = [max(1, math.ceil(_SHORTEST / max(seconds, 1e-9))) for seconds in first]
    turns = [
        [_seconds(model, inputs, device, number) for model, number in zip((before, after), repeats, strict=True)]
        for _ in range(_ROUNDS if max(first) < _LONG else _FEW)
    ]
    was, now = (statistics.median(column) * 1e3 for column in zip(*turns, strict=True))
    return was, now


def output_error(before: Any, after: Any) -> float | None:
    """|after - before| / |before|, over the floats of the outputs; None where they hold none, or not the same.

    Where there are `logits` nothing else counts, and what is the same infinity or NaN in both does not either.
    """
    ours, theirs = ([x for x in _tensors(_main(outputs)) if x.is_floating_point()] for outputs in (before, after))
    if not ours or [tensor.shape for tensor in ours] != [tensor.shape for tensor in theirs]:
        return None
    error = size = 0.0
    for a, b in zip(map(Tensor.double, ours), map(Tensor.double, theirs), strict=True):
        counts = a.isfinite() | ~((a == b) | (a.isnan() & b.isnan()))
        error += float((b[counts] - a[counts]).square().sum())
        size += float(a[counts].square().sum())
    return math.sqrt(error / size) if size else math.sqrt(error)


def percent(share: float) -> str:
    """A share in per cent; small ones with the first digit that they have."""
    return f"{share:.1%}" if share >= 0.001 or not share else f"{100 * share:.1g}%"


def remarks(selection: Selection) -> list[str]:
    """What a reader of the figures has to know."""
    if selection.share >= 0.5:
        return []
    return [f"Only {percent(selection.share)} of the parameters are in quantized layers; the rest is as it was."]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Within it the model is in evaluation mode; after it, each of its modules is as it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _seconds(model: nn.Module, inputs: Inputs, device: torch.device, repeats: int) -> float:
    args, kwargs = inputs.args, inputs.kwargs or {}
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(repeats):
        model(*args, **kwargs)
    if on_gpu:
        torch.cuda.synchronize(device)
    return (time.perf_counter() - start) / repeats


def _main(outputs: Any) -> Any:
    """The logits among outputs, else all of them."""
    found = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    return found if isinstance(found, Tensor) else outputs


def _tensors(outputs: Any, seen: frozenset[int] = frozenset()) -> Iterator[Tensor]:
    """All tensors in mappings, sequences, dataclasses and other objects with attributes, but for a decoder's cache."""
    if isinstance(outputs, Tensor):
        yield outputs
        return
    if id(outputs) in seen or isinstance(outputs, type | nn.Module) or callable(outputs):
        return
    parts: Iterable[Any] = ()
    if isinstance(outputs, Mapping):
        parts = [part for name, part in outputs.items() if name != _CACHE]
    elif isinstance(outputs, list | tuple):
        parts = outputs
    elif is_dataclass(outputs):
        parts = [getattr(outputs, item.name, None) for item in fields(outputs) if item.name != _CACHE]
    elif hasattr(outputs, "__dict__"):
        parts = [part for name, part in vars(outputs).items() if name != _CACHE]
    for part in parts:
        yield from _tensors(part, seen | {id(outputs)})
