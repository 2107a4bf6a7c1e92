"""What the optimizers are compared with, and a small problem to compare them on."""

from __future__ import annotations

import torch
from torch import Tensor


class Lion:
    """Lion straight from Algorithm 2 of Chen et al. 2023."""

    def __init__(self, groups: list[dict]) -> None:
        self.param_groups = groups
        self.momenta = [[torch.zeros_like(p) for p in group["params"]] for group in groups]

    @torch.no_grad()
    def step(self) -> None:
        for group, momenta in zip(self.param_groups, self.momenta, strict=True):
            beta1, beta2 = group["betas"]
            for p, m in zip(group["params"], momenta, strict=True):
                c = beta1 * m + (1 - beta1) * p.grad
                p -= group["lr"] * (torch.sign(c) + group["weight_decay"] * p)
                m.copy_(beta2 * m + (1 - beta2) * p.grad)


def parameters(dtype: torch.dtype = torch.float64) -> list[torch.nn.Parameter]:
    """Three parameters of different shapes, the same every time."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((5, 3), (7,), (2, 3, 2))
    return [torch.nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64).to(dtype)) for s in shapes]


def set_gradients(params: list[torch.nn.Parameter], step: int) -> None:
    """Gradients that differ from step to step: those of a bent quadratic, and noise."""
    generator = torch.Generator().manual_seed(step)
    for p in params:
        noise = torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype)
        p.grad = (p.detach() * (1 + 0.1 * p.detach() ** 2) + 0.5 * noise).clone()


def two_groups(params: list[torch.nn.Parameter], **second: object) -> list[dict]:
    """The first parameter, and the others with options of their own."""
    return [{"params": params[:1]}, {"params": params[1:], **second}]


def clone_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in state.items()}
