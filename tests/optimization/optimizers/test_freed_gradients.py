"""A step lets its gradients go, so that zeroing them gives their memory back."""

from __future__ import annotations

import weakref

import pytest
import torch

from ava.optimization import get_optimizer


@pytest.mark.parametrize("engine", ["auto", "reference"])
@pytest.mark.parametrize(
    "name", ["adamw", "lion", "muon", "soap", "prodigy", "lamb", "schedule_free_adamw", "adafactor"]
)
def test_nothing_keeps_the_gradients(name, engine):
    parameters = [torch.nn.Parameter(torch.randn(8, 8, generator=torch.Generator().manual_seed(i))) for i in range(3)]
    optimizer = get_optimizer(name)(parameters, engine=engine)
    for _ in range(3):
        for p in parameters:
            p.grad = torch.ones_like(p)
        alive = [weakref.ref(p.grad) for p in parameters]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        assert not any(ref() is not None for ref in alive)
