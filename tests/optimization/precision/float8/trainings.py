"""The small GPT on the standard library's text, trained in one precision or another on the same batches."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from torch import nn

from ava.bench.workloads import Workload
from ava.optimization.precision.float8.formats import RECIPES
from ava.optimization.precision.float8.training import Float8, prepare_float8

WORKLOADS = {
    "small": Workload(
        "GPT 0.3M", "stdlib_lm", ("stdlib", {"context": 64}),
        ("gpt", {"preset": None, "layers": 5, "heads": 2, "width": 64}), batch_size=8, steps=300,
    ),
    "tiny": Workload(
        "GPT 0.03M", "stdlib_lm", ("stdlib", {"context": 16}),
        ("gpt", {"preset": None, "layers": 1, "heads": 2, "width": 32}), batch_size=8, steps=30,
    ),
}  # fmt: skip
needs_torchao = pytest.mark.skipif(find_spec("torchao") is None, reason="needs torchao")
HERE = [name if name == "delayed" else pytest.param(name, marks=needs_torchao) for name in RECIPES]
"""The recipes, as parameters."""
CPU = torch.device("cpu")


class MLP(nn.Module):
    """Two layers to convert, one with 24 rows an input, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(32, 64)
        self.down = nn.Linear(64, 32)
        self.head = nn.Linear(32, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.down(torch.tanh(self.up(x))))


def mlp(**options: object) -> tuple[MLP, Float8]:
    torch.manual_seed(0)
    model = MLP()
    return model, prepare_float8(model, device=CPU, emulate=True, **options)  # type: ignore[arg-type]


def train(workload: Workload, recipe: str | None, fp8_format: str = "hybrid", autocast: bool = True) -> list[float]:
    """The loss per byte of each step; in bf16 where `recipe` is None, in float32 without `autocast` either."""
    task, model, loader = workload.build()
    prepared = None
    if recipe is not None:
        prepared = prepare_float8(model, device=CPU, recipe=recipe, fp8_format=fp8_format, emulate=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95))
    losses = []
    for batch, _ in zip(workload.batches(loader), range(workload.steps), strict=False):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            total = sum(task.losses(model, batch).values())
        loss = total / task.count(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if prepared is not None:
            prepared.step()
        losses.append(loss.item())
    return losses
