"""What the stages of `ava bench gpu` share: sizes, runs built from the configuration, and the clock of a device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from ava.config.compose import compose
from ava.config.parts import build_run
from ava.data.loader import Position, Window
from ava.distributed.world import World
from ava.reporting.costs import TRAINING, at_rest, count_flops
from ava.training.state import Run
from ava.training.step import training_step

Tell = Callable[[dict[str, Any]], None]
"""Takes figures as they come; each is written at once."""


@dataclass(frozen=True)
class Scale:
    """Where and how large.

    Attributes:
        device: what is measured.
        tiny: small sizes that show only that every stage runs.
    """

    device: torch.device
    tiny: bool

    def pick(self, full: Any, tiny: Any) -> Any:
        """The size of a full measurement, or of a rehearsal."""
        return tiny if self.tiny else full

    @property
    def compile(self) -> list[str]:
        """A rehearsal does without the compiler."""
        return [] if self.tiny else ["trainer.compile=true"]

    @property
    def fp8(self) -> list[str]:
        """What asks for fp8; a rehearsal emulates it, and takes layers however small."""
        return ["precision=fp8", *(["precision.emulate=true"] if self.tiny else [])]


def build(scale: Scale, overrides: list[str], *, context: int, batch_size: int) -> Run:
    """A GPT on random tokens, in Ava's own step."""
    vocabulary = scale.pick(50304, 256)
    config = compose([
        "plugins=[ava.bench.gpu_data]", "data=random_tokens", f"data.vocab_size={vocabulary}",
        f"data.context={context}", "task=language_model", "model=gpt", "scheduler=constant",
        "scheduler.warmup_steps=0", "trainer.max_steps=1000000000", f"trainer.batch_size={batch_size}",
        "trainer.log_every=1000000", f"trainer.device={scale.device.type}", *overrides,
    ])  # fmt: skip
    run, _ = build_run(config, World(0, 1, scale.device))
    run.network.train()
    return run


def windows(run: Run, count: int) -> list[Window]:
    """Batches fetched ahead, in page-locked memory where the device copies from it."""
    stream: Iterator[Window] = run.loader.windows(Position())
    return [next(stream) for _ in range(count)]


def wait(device: torch.device) -> None:
    """Until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(device: torch.device, work: Callable[[], Any], repeat: int, warmup: int = 3) -> float:
    """Median over five turns of the seconds that `work` takes, `repeat` times in a row each."""
    for _ in range(warmup):
        work()
    turns = []
    for _ in range(5):
        wait(device)
        began = time.perf_counter()
        for _ in range(repeat):
            work()
        wait(device)
        turns.append((time.perf_counter() - began) / repeat)
    return statistics.median(turns)


def step_seconds(run: Run, repeat: int, warmup: int = 5) -> float:
    """The time of one training step, steps one after another without reading anything."""
    window = windows(run, 1)[0]
    return seconds(run.world.device, lambda: training_step(run, window), repeat, warmup)


def flops_per_sample(run: Run) -> int:
    """Model FLOPs of training on one sequence."""
    one = {name: part[:1].to(run.world.device) for name, part in windows(run, 1)[0].batches[0].items()}
    with at_rest(run.model), run.policy.autocast():
        return TRAINING * count_flops(lambda: run.task.losses(run.model, one))


def peak_bytes(device: torch.device) -> int | None:
    """The most that tensors took on the device since the last call."""
    if device.type != "cuda":
        return None
    peak = torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return int(peak)
