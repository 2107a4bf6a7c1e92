"""Others' optimizers, by the rule that they share with Ava's: the one table of them."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import nn

Named = list[tuple[str, nn.Parameter]]


@dataclass(frozen=True)
class Peer:
    """Someone else's optimizer.

    Attributes:
        rule: what the same rule is called in `ava.bench.rules`.
        library: whose it is, and which variant.
        target: "module:name" of its class; called with the parameters and `options`.
        needs: the package to look for; None takes the module's.
    """

    rule: str
    library: str
    target: str
    options: dict[str, Any] = field(default_factory=dict)
    needs: str | None = None

    @property
    def package(self) -> str:
        """What has to be installed."""
        return self.needs or self.target.split(":")[0].split(".")[0]

    def is_installed(self) -> bool:
        """Whether its package is at hand."""
        return importlib.util.find_spec(self.package) is not None

    def build(self, named: Named) -> torch.optim.Optimizer:
        """The optimizer over the parameters; imports its package."""
        module, name = self.target.split(":")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of imports, which are not ours to mend
            make = getattr(importlib.import_module(module), name)
            parameters: Any = named if make is torch_muon else [parameter for _, parameter in named]
            optimizer: torch.optim.Optimizer = make(parameters, **self.options)
        return optimizer


class _Several(torch.optim.Optimizer):
    """Optimizers that step one after the other, seen as one."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts
        self.param_groups = list(chain.from_iterable(part.param_groups for part in parts))

    @property
    def state(self) -> dict[Any, Any]:  # type: ignore[override]
        """The state of all."""
        return dict(chain.from_iterable(part.state.items() for part in self.parts))

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step of each."""
        for part in self.parts:
            part.step()


def torch_muon(named: Named) -> torch.optim.Optimizer:
    """Muon of torch for hidden matrices, its AdamW for the rest."""
    hidden = [p for name, p in named if p.dim() == 2 and name.startswith("layers.")]
    others = [p for name, p in named if p.dim() != 2 or not name.startswith("layers.")]
    parts: list[torch.optim.Optimizer] = [torch.optim.Muon(hidden)]
    return _Several(*parts, torch.optim.AdamW(others, fused=True)) if others else _Several(*parts)


def sophia_h(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """pytorch_optimizer's SophiaH, whose steps cost what one without an estimate of the curvature costs."""
    optimizer: Any = importlib.import_module("pytorch_optimizer").SophiaH(parameters, update_period=2**62)
    # The first step always wants an estimate; without one it would differentiate twice.
    optimizer.step(hessian=[torch.ones_like(p) for p in parameters])
    for state in optimizer.state.values():
        state.pop("hessian", None)
    return optimizer  # type: ignore[no-any-return]


STEADY: dict[str, Any] = {"lr": 1e-6}
"""For Prodigy, whose estimate of the distance would overflow where gradients never change."""
_HERE = f"{__name__}:"
_po = functools.partial(Peer, library="pytorch_optimizer")
_adv = functools.partial(Peer, library="adv_optm")

PEERS = (
    Peer("adamw", "torch fused", "torch.optim:AdamW", {"fused": True}),
    Peer("adamw", "torch foreach", "torch.optim:AdamW", {"foreach": True}),
    Peer("adamw", "torch loop", "torch.optim:AdamW", {"foreach": False}),
    _adv("adamw", target="adv_optm:AdamW_adv"),
    Peer("adamw", "heavyball", "heavyball:AdamW", {"consume_grad": False, "compile_step": False}),
    Peer("adamw-int8", "torchao", "torchao.optim:AdamW8bit"),
    Peer("adamw-int8", "bitsandbytes", "bitsandbytes.optim:AdamW8bit"),
    _adv("adamw-factored", target="adv_optm:AdamW_adv", options={"nnmf_factor": True}),
    _po("lion", target="pytorch_optimizer:Lion"),
    _adv("lion", target="adv_optm:Lion_adv", options={"nnmf_factor": False}),
    Peer("lion", "lion-pytorch", "lion_pytorch:Lion"),
    _adv("lion-factored", target="adv_optm:Lion_adv", options={"nnmf_factor": True}),
    _po("adopt", target="pytorch_optimizer:ADOPT"),
    _adv("adopt", target="adv_optm:Adopt_adv"),
    _adv("simplified_ademamix", target="adv_optm:Simplified_AdEMAMix"),
    _po("sophia", target=_HERE + "sophia_h", needs="pytorch_optimizer"),
    _po("ademamix", target="pytorch_optimizer:AdEMAMix"),
    _adv("ademamix", target="adv_optm:AdamW_adv", options={"use_AdEMAMix": True}),
    _po("prodigy", target="pytorch_optimizer:Prodigy", options=STEADY),
    _adv("prodigy", target="adv_optm:Prodigy_adv", options=STEADY),
    Peer("prodigy", "prodigyopt", "prodigyopt:Prodigy", STEADY),
    _po("lamb", target="pytorch_optimizer:Lamb"),
    Peer("lamb", "timm", "timm.optim.lamb:Lamb"),
    _po("lars", target="pytorch_optimizer:LARS"),
    Peer("lars", "timm", "timm.optim.lars:Lars"),
    Peer("adafactor", "torch", "torch.optim:Adafactor"),
    Peer("adafactor", "transformers", "transformers.optimization:Adafactor"),
    _po("adafactor", target="pytorch_optimizer:AdaFactor"),
    Peer("schedule_free_adamw", "schedulefree", "schedulefree:AdamWScheduleFree"),
    Peer("muon", "torch", _HERE + "torch_muon", needs="torch"),
    Peer("sgd", "torch fused", "torch.optim:SGD", {"fused": True, "momentum": 0.9}),
)
"""The first is the base of all ratios."""
