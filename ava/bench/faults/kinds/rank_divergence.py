"""A process whose weights are not those of the others."""

import torch

from ava.bench.faults.fault import kind
from ava.bench.faults.injection import Injection
from ava.bench.faults.places import generator


@kind(duration=1, size=0.5, rank=1)
def rank_divergence(injection: Injection) -> None:
    """On one rank noise is added to the weights, `size` times each parameter's root mean square; several ranks only."""
    parameters = injection.placed()

    def diverge() -> None:
        random = generator(injection.fault.seed)
        for parameter in parameters.values():
            noise = torch.randn(parameter.shape, generator=random).to(parameter)
            parameter.add_(noise, alpha=injection.fault.size * float(parameter.square().mean().sqrt()))

    injection.before_forward(diverge)
