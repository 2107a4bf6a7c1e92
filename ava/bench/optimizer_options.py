"""What the options that every optimizer has cost: a step with each, over the plain step of the same rounds.

`sam_rho` and `fused_backward` are not here: they change when gradients are taken, not what a step does with them.
"""

from __future__ import annotations

import functools
import statistics
from typing import Any

import torch

from ava.bench.arms.peer_optimizers import Named
from ava.bench.parameter_sets import ParameterSet
from ava.bench.rules import RULES, Arm
from ava.bench.steps import Measured, compare
from ava.optimization import get_optimizer

COLUMNS = {
    "set": "set", "rule": "rule", "option": "option", "ratio": "CPU / plain", "spread": "quartiles",
    "wall_ratio": "wall / plain", "cpu_ms": "CPU ms", "state_bytes": "state B/param",
}  # fmt: skip
OPTIMIZERS = ("adamw", "lion")
"""Measured where `--only` says nothing else."""

PLAIN = "plain"
OPTIONS: dict[str, dict[str, Any]] = {
    "state=bf16": {"state": "bf16"},
    "state=int8": {"state": "int8"},
    "state=factored": {"state": "factored"},
    "cautious": {"cautious": True},
    "grams": {"grams": True},
    "atan2": {"atan2": True},
    "orthograd": {"orthograd": True},
    "ademamix": {"ademamix": True},
    "centralise": {"centralise": True},
    "normalise": {"normalise": True},
    "standardise": {"standardise": True},
    "denoise": {"denoise": True},
    "noise=0.01": {"noise": 0.01},
    "weight_decay=0.1": {"weight_decay": 0.1},
    "weight_decay=0.1 decay=coupled": {"weight_decay": 0.1, "decay": "coupled"},
    "weight_decay=0.1 decay=cautious": {"weight_decay": 0.1, "decay": "cautious"},
    "lookahead=6": {"lookahead": 6},
    "layer_lr_decay=0.8": {"layer_lr_decay": 0.8},
    "groups=[*.bias]": {"groups": ({"match": "*.bias", "lr": 5e-4},)},
    "max_norm=1": {"max_norm": 1.0},
    "unit_norm": {"unit_norm": True},
    "non_negative": {"non_negative": True},
}
"""By the name that the table uses. Decays stand beside `weight_decay=0.1`, since plain Lion does not decay."""
OF_HALVED: dict[str, dict[str, Any]] = {"stochastic_rounding": {"stochastic_rounding": True}}
"""The same where weights and gradients are bfloat16."""


def measure(rules: list[str], parameter_set: ParameterSet, rounds: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Each rule plainly and with each option.

    Args:
        rules: keys of `ava.bench.rules.RULES`.
        parameter_set: what each optimizer gets its own copy of.
        rounds: turns that count.

    Returns:
        One row an arm, the plain one of a rule first, and what is refused, with the reason.
    """
    rows: list[dict[str, Any]] = []
    missing: list[str] = []
    for rule in rules:
        for label, halved, options in ((rule, False, OPTIONS), (f"{rule}, bf16 weights", True, OF_HALVED)):
            base, *arms = [_arm(rule, label, name, own, halved) for name, own in {PLAIN: {}, **options}.items()]
            measured = compare(arms, parameter_set, rounds, missing.append, base)
            rows += [_row(parameter_set.name, result) for result in measured]
    return rows, missing


def _arm(rule: str, label: str, option: str, options: dict[str, Any], halved: bool) -> Arm:
    return Arm(label, option, functools.partial(_build, rule, options, halved))


def _build(rule: str, options: dict[str, Any], halved: bool, named: Named) -> torch.optim.Optimizer:
    """The rule's optimizer with further options, over the parameters, made bfloat16 before if they are to be."""
    for _, parameter in named if halved else ():
        assert parameter.grad is not None
        gradient, parameter.grad = parameter.grad.bfloat16(), None
        parameter.data = parameter.data.bfloat16()
        parameter.grad = gradient
    return get_optimizer(RULES[rule].optimizer)(named, **{**RULES[rule].options, **options})


def _row(name: str, result: Measured) -> dict[str, Any]:
    cost = result.cost
    ratios = [mine / base for mine, base in zip(cost.cpu, result.base.cpu, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return {
        "set": name, "rule": result.arm.rule, "option": result.arm.library,
        "ratio": round(cost.ratio(result.base), 3), "spread": f"{low:.2f} to {high:.2f}",
        "wall_ratio": round(cost.wall_ratio(result.base), 3), "cpu_ms": round(statistics.median(cost.cpu) * 1e3, 3),
        "state_bytes": round(result.state, 3), "rounds": len(cost.cpu),
    }  # fmt: skip
