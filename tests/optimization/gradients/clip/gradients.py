"""Parameters with gradients of a given norm."""

from __future__ import annotations

import torch


def with_norm(norm, shape=(4, 3), seed=0):
    """One parameter whose gradient has that norm."""
    generator = torch.Generator().manual_seed(seed)
    parameter = torch.nn.Parameter(torch.zeros(shape))
    gradient = torch.randn(shape, generator=generator, dtype=torch.float64)
    parameter.grad = (gradient * (norm / gradient.norm())).float()
    return parameter


def clipped_norms(clip, norms):
    """What a clip leaves of gradients of these norms, one step each."""
    left = []
    for norm in norms:
        parameter = with_norm(norm)
        clip([parameter])
        left.append(parameter.grad.double().norm().item())
    return left


def noisy_norms(count, seed=0, spread=0.2):
    """Norms as of a training: log-normal about 1."""
    generator = torch.Generator().manual_seed(seed)
    return torch.exp(spread * torch.randn(count, generator=generator, dtype=torch.float64)).tolist()
