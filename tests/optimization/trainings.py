"""Small trainings with every kind of optimizer, and a fingerprint of all they hold: what exactness is tested with."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ava.optimization import get_optimizer

Builder = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


def ava(name: str, **options: Any) -> Builder:
    return lambda parameters: get_optimizer(name)(parameters, **options)


def wide_momentum(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """State of another type than the parameters, which load_state_dict would cast."""
    optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9)
    for p in parameters:
        optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p, dtype=torch.float32)
    return optimizer


OPTIMIZERS: dict[str, Builder] = {
    "torch-adamw": lambda ps: torch.optim.AdamW(ps, lr=1e-3),
    "torch-adamw-fused": lambda ps: torch.optim.AdamW(ps, lr=1e-3, fused=True),
    "torch-adamw-tensor-lr": lambda ps: torch.optim.AdamW(ps, lr=torch.tensor(1e-3), foreach=False),
    "torch-sgd": lambda ps: torch.optim.SGD(ps, lr=0.01, momentum=0.9, nesterov=True),
    "torch-sgd-float32-state": wide_momentum,
    "torch-adafactor": lambda ps: torch.optim.Adafactor(ps, lr=1e-2),
    "torch-lbfgs": lambda ps: torch.optim.LBFGS(ps, lr=0.1, max_iter=2),
    "lion-int8": ava("lion", state="int8"),
    "adamw-int8": ava("adamw", state="int8"),
    "adamw-factored": ava("adamw", state="factored", cautious=True),
    "adamw-reference": ava("adamw", engine="reference"),
    "adamw-fused-backward": ava("adamw", fused_backward=True),
    "adamw-sam": ava("adamw", sam_rho=0.05),
    "adafactor": ava("adafactor"),
    "prodigy": ava("prodigy"),
    "schedule_free_adamw": ava("schedule_free_adamw"),
    "muon": ava("muon"),
    "soap": ava("soap"),
}


def make(name: str, dtype: torch.dtype = torch.float32, begun: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A model with statistics and dropout, and its optimizer after some steps."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 3)).to(dtype)
    optimizer = OPTIMIZERS[name](list(model.parameters()))
    train(model, optimizer, range(begun))
    return model, optimizer


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    """Steps with batches and random numbers of their own."""
    for step in steps:
        torch.manual_seed(step)
        x, y = torch.randn(16, 64), torch.randint(3, (16,))

        def closure(x: Tensor = x, y: Tensor = y) -> Tensor:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x.to(next(model.parameters()).dtype)).float(), y)
            loss.backward()
            return loss

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*lr_scheduler.*")
            optimizer.step(closure)


def fingerprint(*parts: Any) -> str:
    """A hash of every byte that modules and optimizers hold."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, nn.Module):
            held: Any = [part.state_dict(keep_vars=True), [m.training for m in part.modules()]]
            held.append([p.grad for p in part.parameters()])
        elif isinstance(part, torch.optim.Optimizer):
            places = {p: i for i, p in enumerate(p for g in part.param_groups for p in g["params"])}
            own = {key: vars(part).get(key) for key in ("judged", "training_weights", "unguided")}
            held = [{places[p]: dict(s) for p, s in part.state.items()}, part.param_groups, own]
        else:
            held = part
        _feed(digest, held)
    return digest.hexdigest()


def _feed(digest: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        local = value.detach().to_local() if hasattr(value, "to_local") else value.detach()
        digest.update(f"{local.dtype}{tuple(local.shape)}".encode())
        digest.update(local.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, Mapping):
        for key, item in value.items():
            digest.update(repr(key).encode())
            _feed(digest, item)
    elif isinstance(value, list | tuple):
        digest.update(str(len(value)).encode())
        for item in value:
            _feed(digest, item)
    else:
        digest.update(repr(value).encode())
