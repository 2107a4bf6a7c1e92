"""Which optimizers are measured, as what, and what they are to cost."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ava.bench.arms.peer_optimizers import PEERS, STEADY, Named
from ava.errors import InputError
from ava.optimization import get_optimizer, list_optimizers


@dataclass(frozen=True)
class Rule:
    """One of Ava's optimizers, with options.

    Attributes:
        optimizer: its registered name.
        options: what it is built with.
        target: the CPU time that a step on `gpt` may take, over torch's fused AdamW's.
        target_bytes: bytes of state per parameter that it may hold on `gpt`.
        small: the same as `target` on `small`.
    """

    optimizer: str
    options: dict[str, Any] = field(default_factory=dict)
    target: float | None = None
    target_bytes: float | None = None
    small: float | None = None

    def target_on(self, parameter_set: str) -> float | None:
        """The target on one of `ava.bench.parameter_sets`."""
        return {"gpt": self.target, "small": self.small}.get(parameter_set)

    def build(self, named: Named) -> torch.optim.Optimizer:
        """The optimizer over the parameters."""
        return get_optimizer(self.optimizer)(named, **self.options)


RULES = {
    "lion": Rule("lion", target=0.72, target_bytes=4.0, small=0.35),
    "lion-factored": Rule("lion", {"state": "factored"}, 0.75, 0.15),
    "adamw": Rule("adamw", target=0.93, target_bytes=8.0, small=0.35),
    "adamw-int8": Rule("adamw", {"state": "int8"}, 0.80, 2.1),
    "adamw-factored": Rule("adamw", {"state": "factored"}, 0.80, 0.16),
    "adamw-bf16": Rule("adamw", {"state": "bf16"}),
    "adopt": Rule("adopt", target=1.1, target_bytes=8.0),
    "simplified_ademamix": Rule("simplified_ademamix", target=1.1, target_bytes=8.0),
    "sophia": Rule("sophia", target=1.1, target_bytes=8.0),
    "ademamix": Rule("ademamix", target=1.4, target_bytes=12.0),
    "prodigy": Rule("prodigy", STEADY, target=1.6, target_bytes=16.0),
    "lamb": Rule("lamb", target=1.5, target_bytes=8.0),
    "lars": Rule("lars", target=1.5, target_bytes=4.0),
    "adafactor": Rule("adafactor", target=1.5, target_bytes=0.05),
    "schedule_free_adamw": Rule("schedule_free_adamw", target=1.5, target_bytes=8.0),
    "muon": Rule("muon"),
    "sgd": Rule("sgd"),
}
"""By the name that the command line and the table use."""


@dataclass(frozen=True)
class Arm:
    """What is timed: an implementation of a rule.

    Attributes:
        rule: a key of `RULES`.
        library: "ava", or whose it is.
        build: makes the optimizer over (name, parameter) pairs.
    """

    rule: str
    library: str
    build: Callable[[Named], torch.optim.Optimizer]


BASE = Arm("adamw", "torch fused", PEERS[0].build)


def choose_arms(rules: list[str], peers: bool) -> tuple[list[Arm], list[str]]:
    """The arms of the rules that can be built here.

    Args:
        rules: keys of `RULES`.
        peers: whether others' implementations are wanted.

    Returns:
        The arms, in the order of `RULES` with Ava's first, and what cannot be built, with the reason.
    """
    arms, missing = [], []
    for name in (name for name in RULES if name in rules):
        if reason := _why_not(RULES[name]):
            missing.append(f"ava {name} ({reason})")
        else:
            arms.append(Arm(name, "ava", RULES[name].build))
        for peer in PEERS if peers else ():
            if peer.rule == name and not peer.is_installed():
                missing.append(f"{peer.library} {name} (not installed)")
            elif peer.rule == name and peer.build != BASE.build:
                arms.append(Arm(name, peer.library, peer.build))
    return arms, missing


def _why_not(rule: Rule) -> str | None:
    """Why this version of Ava cannot build an optimizer, if it cannot."""
    if rule.optimizer not in list_optimizers():
        return "no such optimizer"
    if unknown := rule.options.keys() - inspect.signature(get_optimizer(rule.optimizer)).parameters.keys():
        return f"no option {', '.join(sorted(unknown))}"
    try:
        rule.build([("layers.0.weight", nn.Parameter(torch.zeros(2, 2)))])
    except InputError as error:
        return error.problem
    return None
