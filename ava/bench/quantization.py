"""`ava bench quantization`: what rounding to int8 and int4 saves in time and size, and what training for it gains.

    ava bench quantization                                four feed-forward blocks of width 1024, every format
    ava bench quantization --width 512 --rounds 25 --json quantization.json
    ava bench quantization --compile                      torchao's int8 compiled as well (a minute more)
    ava bench quantization --training                     QAT beside its control, at int8, int4 and int2

A time is the median over rounds of the processor time of a call, all formats alternating within this process; a ratio
is the median of float32's time over this format's in the same round. Size is what a file holds, over float32's. The
error is that of the outputs for a normal input, root mean square, over the outputs.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ava.bench import machine, quantization_training
from ava.bench.tables import show
from ava.bench.trainings import positive
from ava.optimization import ModelQuantizer
from ava.optimization.precision.quantization.file import stored_tensors
from ava.optimization.precision.quantization.report import output_error
from ava.optimization.precision.quantization.scheme import num_bytes

COLUMNS = {
    "format": "format", "backend": "backend", "ms_1": "ms, batch 1", "ratio_1": "fp32 / it", "target_1": "target",
    "ms_64": "ms, batch 64", "ratio_64": "fp32 / it", "target_64": "target", "size": "size / fp32",
    "target_size": "target", "error": "error",
}  # fmt: skip
WORDS = ("format", "backend")
BATCHES = (1, 64)
TARGETS = {"int8 dynamic": {"1": 3.0, "64": 3.5, "size": 0.26}, "int4": {"size": 0.14}}
WARM_UP, SHORTEST = 2, 0.01
"""Rounds that do not count; seconds that a turn takes at least."""


@dataclass(frozen=True)
class Arm:
    """A model in one format.

    Attributes:
        format: what its weights and inputs are.
        backend: what runs it.
        model: what is called with (B, width) inputs of `dtype`.
        size: bytes of a file with it.
        dtype: of inputs.
    """

    format: str
    backend: str
    model: Callable[[Tensor], Tensor]
    size: int
    dtype: torch.dtype = torch.float32


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, and write JSON where asked."""
    arguments = _parse(argv)
    torch.set_num_threads(arguments.threads)
    if arguments.training:
        rows = quantization_training.measure(arguments.steps, arguments.seeds)
        show(machine.describe(), quantization_training.COLUMNS, quantization_training.WORDS, rows)
    else:
        rows = measure(arms(arguments.width, arguments.compile), arguments.width, arguments.rounds)
        show(machine.describe(), COLUMNS, WORDS, rows)
    if arguments.json:
        found = {"machine": machine.describe(), "rows": rows}
        arguments.json.write_text(json.dumps(found, indent=2), encoding="utf-8")
    return 0


def feed_forward(width: int) -> nn.Sequential:
    """Four blocks of [layer norm, width -> 4 width, GELU, 4 width -> width], without a residual."""
    block = (nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
    layers = [copy.deepcopy(layer) for _ in range(4) for layer in block]
    for layer in layers:
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    return nn.Sequential(*layers).eval()


def arms(width: int, compiled: bool) -> list[Arm]:
    """Every format of the same model, float32 first."""
    torch.manual_seed(0)
    model = feed_forward(width)
    halved = copy.deepcopy(model).bfloat16()
    found = [Arm("fp32", "torch", model, _size(model)),
             Arm("bf16", "torch", halved, _size(halved), torch.bfloat16)]  # fmt: skip
    batches = [torch.randn(64, width) for _ in range(4)]
    for name, quantization_type, bits, backend in (
        ("int8 dynamic", "dynamic", 8, "torch.ao"), ("int8 dynamic", "dynamic", 8, "torchao"),
        ("int8 static", "static", 8, "torch.ao"), ("int8 static", "static", 8, "torchao"),
        ("int4", "dynamic", 4, "torchao"), ("int2", "dynamic", 2, "auto"),
    ):  # fmt: skip
        loader = batches if quantization_type == "static" else None
        kind: Any = quantization_type
        choice: Any = backend
        weight: Any = bits
        quantizer = ModelQuantizer(model, kind, weight, loader, backend=choice)
        quantized = quantizer.quantize()
        assert quantizer.report is not None
        found.append(Arm(name, str(quantizer.backend), quantized, quantizer.report.size[1]))
        if compiled and backend == "torchao" and bits == 8:
            fast: Any = torch.compile(copy.deepcopy(quantized))
            found.append(Arm(name, "torchao, compiled", fast, quantizer.report.size[1]))
    return found


@torch.no_grad()
def measure(chosen: list[Arm], width: int, rounds: int) -> list[dict[str, Any]]:
    """One row an arm.

    Args:
        chosen: the arms, float32 first.
        width: of the inputs.
        rounds: that count.
    """
    generator = torch.Generator().manual_seed(1)
    inputs = {batch: torch.randn(batch, width, generator=generator) for batch in BATCHES}
    outputs = [arm.model(inputs[64].to(arm.dtype)).float() for arm in chosen]
    seconds: dict[tuple[int, int], list[float]] = {}
    for batch in BATCHES:
        repeats = [_repeats(arm, inputs[batch]) for arm in chosen]
        for number in range(rounds + WARM_UP):
            for place in random.Random(number).sample(range(len(chosen)), len(chosen)):
                spent = _turn(chosen[place], inputs[batch], repeats[place])
                if number >= WARM_UP:
                    seconds.setdefault((place, batch), []).append(spent)
    return [
        _row(arm, {batch: seconds[place, batch] for batch in BATCHES}, {b: seconds[0, b] for b in BATCHES},
             arm.size / chosen[0].size, output_error(outputs[0], outputs[place]))
        for place, arm in enumerate(chosen)
    ]  # fmt: skip


def _row(
    arm: Arm, mine: dict[int, list[float]], base: dict[int, list[float]], size: float, error: float | None
) -> dict[str, Any]:
    # Targets are for the fastest implementation, which `auto` takes.
    target = {} if arm.format == "int8 dynamic" and arm.backend != "torch.ao" else TARGETS.get(arm.format, {})
    row: dict[str, Any] = {"format": arm.format, "backend": arm.backend}
    for batch in BATCHES:
        ratio = statistics.median(theirs / ours for ours, theirs in zip(mine[batch], base[batch], strict=True))
        row[f"ms_{batch}"] = round(statistics.median(mine[batch]) * 1e3, 2)
        row[f"ratio_{batch}"], row[f"target_{batch}"] = round(ratio, 2), target.get(str(batch))
    row |= {"size": round(size, 4), "target_size": target.get("size"), "error": error and float(f"{error:.2g}")}
    return row | {"rounds": len(mine[BATCHES[0]])}


def _repeats(arm: Arm, inputs: Tensor) -> int:
    _turn(arm, inputs, 1)
    return max(1, round(SHORTEST / max(_turn(arm, inputs, 1), 1e-6)))


def _turn(arm: Arm, inputs: Tensor, repeats: int) -> float:
    """Processor seconds a call."""
    inputs = inputs.to(arm.dtype)
    start = time.process_time()
    for _ in range(repeats):
        arm.model(inputs)
    return (time.process_time() - start) / repeats


def _size(model: nn.Module) -> int:
    return num_bytes(list(stored_tensors(model)[0].values()))


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ava bench quantization", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--width", type=positive, default=1024, help="of the model (default 1024)")
    add("--rounds", type=positive, default=11, help="turns of each format that count (default 11)")
    add("--threads", type=positive, default=1, help="torch threads (default 1)")
    add("--compile", action="store_true", help="also compile torchao's int8")
    add("--training", action="store_true", help="measure quantization-aware training beside its control")
    add("--steps", type=positive, default=300, help="with --training: steps before, and again after (default 300)")
    add("--seeds", type=positive, default=3, help="with --training: trainings of each (default 3)")
    add("--json", type=Path, help="write the figures here as well")
    return parser.parse_args(argv)
