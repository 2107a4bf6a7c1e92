"""`ava bench cross_entropy`: memory and time of the loss over a large vocabulary, by chunks and at once.

    ava bench cross_entropy                                4,096 rows, 50,257 words, width 256, fp32 and bf16
    ava bench cross_entropy --rows 1024 --width 768 --rounds 5 --json cross_entropy.json

An arm is the output layer, the loss and its gradients by both. Memory is the rise of a fresh process's peak over what
it held before, results included; time is processor time on one thread, and a ratio the median over rounds of an arm's
over the plain loss's in the same round. `torch` is torch.nn.functional.linear_cross_entropy by chunks, where there is
one.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ava.bench import machine
from ava.bench.tables import show
from ava.bench.trainings import positive
from ava.optimization.losses.linear_cross_entropy import linear_cross_entropy

COLUMNS = {
    "precision": "precision", "arm": "arm", "peak_mb": "peak MB", "eval_mb": "evaluation MB",
    "ratio": "CPU / plain", "seconds": "CPU s",
}  # fmt: skip
CHUNKS = (256, 1024)
DTYPES = {"fp32": None, "bf16": torch.bfloat16}
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, and write JSON where asked."""
    arguments = _parse(argv)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if arguments.one:
            print(json.dumps(peak(arguments)))
            return 0
        rows = [row for precision in DTYPES for row in measure(arguments, precision)]
        described = machine.describe()
    finally:
        torch.set_num_threads(threads)
    title = f"{described}; {arguments.rows:,} rows, {arguments.vocabulary:,} words, width {arguments.width}"
    show(title, COLUMNS, ("precision", "arm"), rows)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": title, "rows": rows}, indent=2), encoding="utf-8")
    return 0


def arms() -> dict[str, Loss]:
    """Name -> (hidden, weight, targets) -> the summed loss."""

    def by_chunks(chunk: int) -> Loss:
        return lambda hidden, weight, targets: linear_cross_entropy(hidden, weight, targets, chunk=chunk)

    found: dict[str, Loss] = {"plain": plain} | {f"ours, {chunk} rows": by_chunks(chunk) for chunk in CHUNKS}
    if hasattr(functional, "linear_cross_entropy"):
        found[f"torch, {CHUNKS[1]} rows"] = torchs
    return found


def plain(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """All logits at once."""
    return functional.cross_entropy(functional.linear(hidden, weight).float(), targets, reduction="sum")


def torchs(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """The same as torch has it."""
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=CHUNKS[1])
    loss: Tensor = functional.linear_cross_entropy(hidden, weight, targets, reduction="sum", options=options)
    return loss


def measure(arguments: argparse.Namespace, precision: str) -> list[dict[str, Any]]:
    """One row an arm."""
    seconds: dict[str, list[float]] = {name: [] for name in arms()}
    problem = _problem(arguments)
    for number in range(arguments.rounds + 1):
        for name in random.Random(number).sample(list(seconds), len(seconds)):
            start = time.process_time()
            _train(arms()[name], problem, precision)
            if number:  # the first warms up
                seconds[name].append(time.process_time() - start)
    del problem
    return [
        {"precision": precision, "arm": name, **_in_fresh_process(arguments, name, precision)}
        | {
            "ratio": round(statistics.median(a / b for a, b in zip(values, seconds["plain"], strict=True)), 3),
            "seconds": round(statistics.median(values), 2),
        }
        for name, values in seconds.items()
    ]


def _problem(arguments: argparse.Namespace) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    hidden = torch.randn(arguments.rows, arguments.width).requires_grad_()
    weight = torch.empty(arguments.vocabulary, arguments.width).normal_(std=0.02).requires_grad_()
    return hidden, weight, torch.randint(0, arguments.vocabulary, (arguments.rows,))


def _train(loss: Loss, problem: tuple[Tensor, Tensor, Tensor], precision: str) -> None:
    dtype = DTYPES[precision]
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        value = loss(*problem)
    if value.requires_grad:
        torch.autograd.grad(value, problem[:2])


def _in_fresh_process(arguments: argparse.Namespace, arm: str, precision: str) -> dict[str, float]:
    sizes = [f"--{key}={getattr(arguments, key)}" for key in ("rows", "vocabulary", "width")]
    found = {}
    for key, mode in (("peak_mb", "train"), ("eval_mb", "eval")):
        command = [sys.executable, "-m", "ava.bench.cross_entropy", *sizes, "--one", arm, precision, mode]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[key] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def peak(arguments: argparse.Namespace) -> float:
    """MB by which one arm raises this process's peak; on Linux."""
    arm, precision, mode = arguments.one
    problem = _problem(arguments)
    # A small one first: what libraries set up at their first use is no logits.
    small = tuple(part[:8].detach() for part in problem)
    _train(arms()[arm], (small[0], small[1], small[2] % 8), precision)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = _resident("VmRSS")
    with torch.set_grad_enabled(mode == "train"):
        _train(arms()[arm], problem, precision)
    return round(_resident("VmHWM") - before)


def _resident(which: str) -> float:
    """A figure of this process in MB: VmRSS is what it holds, VmHWM the most it has held."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which))
    return int(line.split()[1]) / 1024


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ava bench cross_entropy", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=positive, default=4096, help="tokens (default 4096)")
    parser.add_argument("--vocabulary", type=positive, default=50_257, help="words (default 50257)")
    parser.add_argument("--width", type=positive, default=256, help="of the model (default 256)")
    parser.add_argument("--rounds", type=positive, default=2, help="turns of each arm that count (default 2)")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
