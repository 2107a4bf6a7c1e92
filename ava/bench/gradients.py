"""Memory of gradients: all at once for a plain step, one by one where the backward pass updates.

python -m ava.bench.gradients fused_backward mlp lion
"""

from __future__ import annotations

import inspect
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ava import registry
from ava.bench.rules import RULES
from ava.bench.steps import begin_training, held_bytes
from ava.data.source import ImageSpec, TokenSpec
from ava.optimization import get_optimizer

COLUMNS = {
    "model": "model", "rule": "rule", "arm": "arm", "parameters": "parameters B", "gradients": "gradients B (peak)",
    "state": "state B", "share": "gradients / parameters", "peak_mb": "peak RSS MB",
}  # fmt: skip
ARMS = ("plain", "fused_backward")
STEPS = 3


def _mlp(width: int, depth: int) -> tuple[nn.Module, Tensor]:
    model = registry.model["mlp"].load()(ImageSpec(1, 8, 8, 10), width=width, depth=depth)
    return model, torch.randn(32, 1, 8, 8)


def _gpt(preset: str) -> tuple[nn.Module, Tensor]:
    model = registry.model["gpt"].load()(TokenSpec(256, 128), preset=preset)
    return model, torch.randint(256, (4, 128))


MODELS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "mlp": lambda: _mlp(1024, 24),
    "gpt": lambda: _gpt("10m"),
    "tiny": lambda: _mlp(16, 3),
}
"""Name -> the model and a batch of inputs."""


def measure(models: list[str], rules: list[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Train each model with each rule, plainly and with `fused_backward`, in processes of their own.

    Args:
        models: keys of `MODELS`.
        rules: keys of `ava.bench.rules.RULES`.

    Returns:
        One row an arm, and what this version cannot do.
    """
    rows, missing = [], []
    for rule in rules:
        arms = [arm for arm in ARMS if can(arm, rule)]
        missing += [f"{rule} {arm} (no such option)" for arm in ARMS if arm not in arms]
        rows += [_measure_one(arm, model, rule) for model in models for arm in arms]
    return rows, missing


def can(arm: str, rule: str) -> bool:
    """Whether the rule's optimizer has the option that the arm needs."""
    return arm == "plain" or arm in inspect.signature(get_optimizer(RULES[rule].optimizer)).parameters


def _measure_one(arm: str, model: str, rule: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "ava.bench.gradients", arm, model, rule]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    row: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return row


def train(arm: str, model: str, rule: str) -> dict[str, Any]:
    """Take some steps in this process.

    Args:
        arm: one of `ARMS`.
        model: a key of `MODELS`.
        rule: a key of `ava.bench.rules.RULES`.

    Returns:
        The row: bytes of parameters, of gradients at their peak and of state, and the process's peak memory.
    """
    torch.manual_seed(0)
    network, inputs = MODELS[model]()
    parameters = list(network.parameters())
    peak = _watch(parameters)  # before the optimizer's own hooks, which take the gradients away
    fused: dict[str, Any] = {"fused_backward": True} if arm == "fused_backward" else {}
    optimizer = get_optimizer(RULES[rule].optimizer)(parameters, **RULES[rule].options, **fused)
    begin_training(optimizer)
    for _ in range(STEPS):
        logits = network(inputs).flatten(0, -2)
        functional.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    elements, size = sum(p.numel() for p in parameters), _bytes(parameters)
    return {
        "model": model, "rule": rule, "arm": arm, "parameters": size, "gradients": peak[0],
        "state": round(held_bytes(optimizer) * elements), "share": round(peak[0] / size, 4),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }  # fmt: skip


def _watch(parameters: list[nn.Parameter]) -> list[int]:
    """The most bytes of `p.grad` seen at once, in a list of one, kept up to date by the backward pass."""
    peak = [0]

    def look(_: Tensor) -> None:
        peak[0] = max(peak[0], _bytes([p.grad for p in parameters if p.grad is not None]))

    for parameter in parameters:
        parameter.register_post_accumulate_grad_hook(look)  # type: ignore[no-untyped-call]
    return peak


def _bytes(tensors: list[nn.Parameter] | list[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


if __name__ == "__main__":
    print(json.dumps(train(*sys.argv[1:4])))
