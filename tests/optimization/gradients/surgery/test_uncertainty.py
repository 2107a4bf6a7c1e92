"""Uncertainty weighting equals autograd's and torch's Adam, and ends at one over the loss."""

from __future__ import annotations

import pytest
import torch

from ava.errors import InputError
from ava.optimization.gradients.surgery.binding import bind
from ava.optimization.gradients.surgery.objectives import Objectives


def series(steps, num=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(steps, num, generator=generator, dtype=torch.float64) * torch.tensor([0.1, 1.0, 10.0])[:num] + 0.1


def run(method, losses):
    return torch.stack([method(Objectives(losses=row, step=k)) for k, row in enumerate(losses)])


def test_equals_autograd():
    losses, s = series(200), torch.zeros(3, dtype=torch.float64, requires_grad=True)
    adam, expected = torch.optim.Adam([s], lr=0.03), []
    for row in losses:
        expected.append(torch.exp(-s.detach()))
        adam.zero_grad()
        (torch.exp(-s) * row + s).sum().backward()
        adam.step()
    torch.testing.assert_close(run(bind("uncertainty", lr=0.03), losses), torch.stack(expected), rtol=1e-10, atol=0)


def test_steady_losses_end_at_their_inverse():
    losses = torch.tensor([0.2, 1.0, 5.0], dtype=torch.float64)
    weights = run(bind("uncertainty", lr=0.05), losses.expand(600, 3))
    assert torch.equal(weights[0], torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(weights[-1], 1 / losses, rtol=1e-3, atol=0)


def test_resumes_bit_for_bit():
    losses, method, resumed = series(40), bind("uncertainty"), bind("uncertainty")
    run(method, losses[:25])
    resumed.load_state_dict(method.state_dict())
    assert torch.equal(run(resumed, losses[25:]), run(method, losses[25:]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_losses_that_are_not_finite_move_nothing(bad):
    method, clean = bind("uncertainty"), bind("uncertainty")
    losses = series(10)
    run(method, losses[:5])
    weights = method(Objectives(losses=torch.tensor([bad, 1.0, 1.0], dtype=torch.float64)))
    assert weights.isfinite().all()
    run(clean, losses[:5])
    assert torch.equal(run(method, losses[5:]), run(clean, losses[5:]))


def test_without_losses_it_says_so():
    with pytest.raises(InputError, match="uncertainty learns from the values of the losses"):
        bind("uncertainty")(Objectives(gram=torch.eye(2, dtype=torch.float64)))
