"""`ava bench activations`: what activation checkpointing saves, and what it costs.

    ava bench activations                             GPT 1M and 3M, every mode
    ava bench activations --models 3m --batch 4 --context 512 --rounds 10 --json activations.json

"kept" is what the forward pass leaves for the backward pass, "peak" the most that forward and backward pass hold beyond
weights, gradients and batch: tensors are counted as they come and go, each piece of memory once. A ratio of time is the
median over rounds of a mode's processor time for both passes over that without checkpointing in the same round, on one
thread.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from ava.bench import machine
from ava.bench.tables import show
from ava.bench.trainings import positive
from ava.data.source import TokenSpec
from ava.models.gpt import GPT
from ava.training.memory_saving import How, checkpoint_activations

COLUMNS = {
    "model": "model", "mode": "activation_checkpointing", "kept_mb": "kept MB", "kept_ratio": "kept / none",
    "peak_mb": "peak MB", "peak_ratio": "peak / none", "time_ratio": "CPU ratio", "cpu_ms": "CPU ms",
}  # fmt: skip
WORDS = ("model", "mode")
MODES: dict[str, How] = {"false": False, "full": "full", "2": 2, "selective": "selective"}
WARM_UP = 2
VOCABULARY = 256


class Counted(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context that counts the memory of all tensors made within it, in bytes, for as long as they live.

    Attributes:
        held: now.
        peak: at most.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # What comes in was there before, or is known.
        old = {id(one.untyped_storage()) for one in tree_iter((args, kwargs)) if isinstance(one, torch.Tensor)}
        made = func(*args, **(kwargs or {}))
        for one in tree_iter(made):
            if isinstance(one, torch.Tensor) and id(one.untyped_storage()) not in old:
                self._count(one.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.held += size
        self.peak = max(self.peak, self.held)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.held -= size


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, and write JSON where asked."""
    arguments = _parse(argv)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = [row for name in arguments.models for row in measure(name, arguments)]
        described = machine.describe()
    finally:
        torch.set_num_threads(threads)
    show(f"{described}; batch {arguments.batch}, context {arguments.context}", COLUMNS, WORDS, rows)
    if arguments.json:
        found = {"machine": described, "batch": arguments.batch, "context": arguments.context, "rows": rows}
        arguments.json.write_text(json.dumps(found, indent=2), encoding="utf-8")
    return 0


def measure(preset: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a mode."""
    arms = {name: _Arm(preset, how, arguments.batch, arguments.context, arguments.bf16) for name, how in MODES.items()}
    memory = {name: arm.memory() for name, arm in arms.items()}
    costs = take_turns({name: arm.step for name, arm in arms.items()}, arguments.rounds)
    kept, peak = memory["false"]
    return [
        {
            "model": f"GPT {preset}", "mode": name, "kept_mb": round(own[0] / 1e6, 1),
            "kept_ratio": round(own[0] / kept, 3), "peak_mb": round(own[1] / 1e6, 1),
            "peak_ratio": round(own[1] / peak, 3), "cpu_ms": round(statistics.median(costs[name]) * 1e3, 1),
            "time_ratio": round(statistics.median(a / b for a, b in zip(costs[name], costs["false"], strict=True)), 3),
        }
        for name, own in memory.items()
    ]  # fmt: skip


class _Arm:
    """A model in one mode, with its batch."""

    def __init__(self, preset: str, how: How, batch: int, context: int, bf16: bool) -> None:
        torch.manual_seed(0)
        self.model: nn.Module = GPT(TokenSpec(VOCABULARY, context), preset=preset)  # type: ignore[arg-type]
        checkpoint_activations(self.model, how)
        self.tokens, self.bf16 = torch.randint(VOCABULARY, (batch, context)), bf16
        self.step()  # gradients are there from now on

    def forward(self) -> torch.Tensor:
        """The mean loss."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            return functional.cross_entropy(self.model(self.tokens).flatten(0, 1), self.tokens.flatten())

    def step(self) -> None:
        """Forward and backward pass; gradients add up."""
        self.forward().backward()  # type: ignore[no-untyped-call]

    def memory(self) -> tuple[int, int]:
        """Bytes kept for the backward pass, and the peak of both passes."""
        with Counted() as counted:
            loss = self.forward()
            kept = counted.held
            loss.backward()  # type: ignore[no-untyped-call]
        return kept, counted.peak


def take_turns(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Processor seconds of each step, one value a round; the first rounds warm up and do not count."""
    costs: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + WARM_UP):
        # In a new order each round: who follows whom decides whose data is still in the caches.
        for name in random.Random(number).sample(list(steps), len(steps)):
            start = time.process_time()
            steps[name]()
            if number >= WARM_UP:
                costs[name].append(time.process_time() - start)
    return costs


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ava bench activations", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--models", nargs="+", choices=["1m", "3m", "10m"], default=["1m", "3m"], help="GPT presets (default 1m 3m)")
    add("--batch", type=positive, default=8, help="sequences (default 8)")
    add("--context", type=positive, default=256, help="tokens of a sequence (default 256)")
    add("--bf16", action="store_true", help="under bf16 autocast")
    add("--rounds", type=positive, default=11, help="turns of each mode that count (default 11)")
    add("--json", type=Path, help="write the figures here as well")
    return parser.parse_args(argv)
