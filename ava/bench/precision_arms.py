"""What `ava bench precision` compares: each precision in Ava's loop, and bf16 in the loop that a tutorial writes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from ava.bench.turns import Gate
from ava.bench.workloads import Workload
from ava.config.compose import compose
from ava.config.parts import build_run
from ava.data.loader import Batch, Position, TrainingLoader, Window
from ava.distributed.world import World
from ava.training.accounting import Accounting
from ava.training.loop import Plan, Trainer
from ava.training.state import Run
from ava.training.step import training_step

BASE = "fp32"
BY_HAND = "bf16 by hand"
OVERRIDES = {
    "digits": ("task.label_smoothing=0.0", "trainer.batch_size=32", "trainer.log_every=50"),
    "gpt": ("task=stdlib_lm", "data.context=128", "trainer.batch_size=8"),
}
"""Workload -> what makes it from the default configuration."""
_COMMON = ("scheduler=constant", "scheduler.warmup_steps=0", "trainer.max_steps=1000000000", "trainer.device=cpu")


@dataclass(frozen=True)
class Arm:
    """One precision.

    Attributes:
        name: what the table calls it.
        overrides: what asks for it, as on the command line.
    """

    name: str
    overrides: tuple[str, ...]

    def build(self, workload: str) -> Run:
        """A training in this precision that nobody watches.

        Raises:
            InputError: this precision cannot be had here.
        """
        config = compose([*OVERRIDES[workload], *_COMMON, *self.overrides])
        return build_run(config, World(0, 1, torch.device("cpu")))[0]


ARMS = (
    Arm(BASE, ("precision=fp32",)),
    Arm("bf16", ("precision=bf16",)),
    Arm("fp16", ("precision=fp16",)),
    Arm("bf16, bf16 weights", (
        "precision=bf16", "precision.parameters=bf16", "optimizer.stochastic_rounding=true",
    )),
)  # fmt: skip
FP8 = tuple(
    Arm(f"fp8 {recipe}, emulated", (
        "precision=fp8", f"precision.recipe={recipe}", "precision.emulate=true", "precision.include=[blocks.*]",
    ))
    for recipe in ("tensorwise", "rowwise", "rowwise_with_gw_hp", "delayed")
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """A short training that is not timed.

    Attributes:
        loss: mean of the last tenth of the steps.
        facts: as `Accounting.facts` tells them.
    """

    loss: float
    facts: dict[str, object]


def train(run: Run, steps: int) -> Outcome:
    """Take `steps` steps."""
    run.network.train()
    accounting, losses = Accounting(run), []
    for window in run.loader.windows(Position()):
        with accounting.watching(window):
            report = training_step(run, window)
        losses.append(sum(part.item() for part in report.losses.values()) * report.weight)
        if run.step == steps:
            break
    last = losses[-max(1, steps // 10) :]
    return Outcome(sum(last) / len(last), accounting.facts(run.seconds))


class _Gated(TrainingLoader):
    """A loader that gives what the gate lets through."""

    gate: Gate[Window]

    def windows(self, start: Position) -> Iterator[Window]:
        return iter(self.gate)


def in_our_loop(workload: Workload, run: Run, gate: Gate[Window]) -> None:
    """Train in Ava's loop until the windows end; the journal is read as in a default run, and told to nobody."""
    gated = _Gated(run.loader.split, batch_size=run.loader.batch_size)
    gated.gate, run.loader = gate, gated
    plan = Plan(
        10**9, log_every=workload.log_every, eval_every=0, checkpoint_every=0, keep_last=1, keep_best=False,
        monitor=run.task.monitor, mode=run.task.mode,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        Trainer(run, plan, Path(folder), []).train()


def by_hand(workload: Workload, model: torch.nn.Module, batches: Gate[Batch]) -> None:
    """The same training as a tutorial writes it: autocast around model and loss, torch's fused AdamW and clipping."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=workload.lr, weight_decay=0.01, fused=True)
    model.train()
    for step, batch in enumerate(batches, start=1):
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(batch["inputs"])
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, -2).float(), batch["targets"].flatten())
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % workload.log_every == 0:
            loss.item()
