"""What quantization-aware training gains, beside its control: a small byte GPT, the same steps for both.

    base       trained in float32
    PTQ        base, quantized
    control    base and as many float32 steps again, then quantized
    QAT        base and as many steps with rounded weights, then converted

Only QAT against control says what the rounding was worth: more steps make any model better.
"""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from ava.bench.workloads import Workload
from ava.data.loader import Batch, Position, TrainingLoader
from ava.optimization import ModelQuantizer
from ava.optimization.precision.quantization.qat import BITS, prepare_qat
from ava.optimization.precision.quantization.quantizer import convert_qat

COLUMNS = {
    "weight": "weights", "base": "base", "ptq": "base, PTQ", "control_float": "control, fp32",
    "control": "control, PTQ", "qat_fake": "QAT, as trained", "qat": "QAT, converted", "gain": "control - QAT",
    "seeds_better": "seeds better",
}  # fmt: skip
WORDS = ("weight",)
SMALL = Workload(
    "GPT", "stdlib_lm", ("stdlib", {"context": 64}),
    ("gpt", {"preset": None, "layers": 2, "heads": 4, "width": 128, "tied_embeddings": False}),
    batch_size=8, steps=0,
)  # fmt: skip
_FIRST_LR, _SECOND_LR, _WARM_UP = 3e-3, 1e-3, 20
_VALID = 512
"""Validation sequences that are looked at, spread evenly."""


def measure(steps: int, seeds: int) -> list[dict[str, Any]]:
    """One row a number of bits: mean validation losses in nats per byte.

    Args:
        steps: before, and again after.
        seeds: trainings of each.
    """
    found: dict[str, list[dict[str, float]]] = {weight: [] for weight in BITS}
    for seed in range(seeds):
        for weight, losses in _of_one_seed(steps, seed).items():
            found[weight].append(losses)
    rows = []
    for weight, runs in found.items():
        row: dict[str, Any] = {name: round(statistics.mean(run[name] for run in runs), 4) for name in runs[0]}
        row["gain"] = round(statistics.mean(run["control"] - run["qat"] for run in runs), 4)
        better = sum(run["qat"] < run["control"] for run in runs)
        rows.append({"weight": weight} | row | {"seeds_better": f"{better} of {seeds}", "runs": runs})
    return rows


def _of_one_seed(steps: int, seed: int) -> dict[str, dict[str, float]]:
    task, base, _ = SMALL.build()
    torch.manual_seed(seed)
    for layer in base.modules():
        if isinstance(layer, nn.Linear | nn.Embedding):
            nn.init.normal_(layer.weight, std=0.02)
    loader = TrainingLoader(task.data.train, batch_size=SMALL.batch_size, seed=seed)
    places = np.linspace(0, len(task.data.valid) - 1, _VALID).astype(np.int64)
    valid = [task.data.valid.fetch(part, 0) for part in np.array_split(places, 8)]
    loss = partial(_loss, batches=valid)
    last = _train(base, loader, Position(), steps, _FIRST_LR)
    control = copy.deepcopy(base)
    _train(control, loader, last, steps, _SECOND_LR)
    fixed = {"base": loss(base), "control_float": loss(control)}
    return {weight: fixed | _of_one_weight(weight, base, control, loader, last, steps, loss) for weight in BITS}


def _of_one_weight(
    weight: Any, base: nn.Module, control: nn.Module, loader: TrainingLoader, start: Position, steps: int,
    loss: Callable[[nn.Module], float],
) -> dict[str, float]:  # fmt: skip
    trained = copy.deepcopy(base)
    prepare_qat(trained, weight)
    _train(trained, loader, start, steps, _SECOND_LR)
    quantized = {
        name: ModelQuantizer(model, "dynamic", BITS[weight]).quantize()
        for name, model in (("ptq", base), ("control", control))
    }
    converted = convert_qat(trained, weight)
    return {"ptq": loss(quantized["ptq"]), "control": loss(quantized["control"]), "qat_fake": loss(trained),
            "qat": loss(converted)}  # fmt: skip


def _train(model: nn.Module, loader: TrainingLoader, start: Position, steps: int, lr: float) -> Position:
    """AdamW with a short warmup and cosine decay to nothing."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr, weight_decay=0.1)
    position = start
    for step, window in enumerate(loader.windows(start)):
        if step == steps:
            break
        rate = lr * min(1, (step + 1) / _WARM_UP) * (1 + math.cos(math.pi * step / steps)) / 2
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        torch.autograd.backward(_cross_entropy(model, window.batches[0]))
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        position = window.position
    return position


@torch.no_grad()
def _loss(model: nn.Module, batches: list[Batch]) -> float:
    model.eval()
    return statistics.mean(float(_cross_entropy(model, batch)) for batch in batches)


def _cross_entropy(model: nn.Module, batch: Batch) -> torch.Tensor:
    logits = model(batch["inputs"]).float()
    return cross_entropy(logits.flatten(0, 1), batch["targets"].flatten())
