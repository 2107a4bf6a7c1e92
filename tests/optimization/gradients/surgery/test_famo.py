"""FAMO equals its algorithm written with autograd and torch's Adam, and lets losses fall at one rate."""

from __future__ import annotations

import pytest
import torch

from ava.errors import InputError
from ava.optimization.gradients.surgery.binding import bind
from ava.optimization.gradients.surgery.objectives import Objectives


def series(steps, num=3, seed=0):
    return torch.rand(steps, num, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.2


def weights(method, losses):
    return method(Objectives(losses=losses))


class FromThePaper:
    """Algorithm 1, by autograd."""

    def __init__(self, num, lr, gamma):
        self.xi = torch.zeros(num, dtype=torch.float64, requires_grad=True)
        self.adam = torch.optim.Adam([self.xi], lr=lr, weight_decay=gamma)

    def weights(self, losses):
        z = torch.softmax(self.xi.detach(), 0)
        return len(z) * (z / losses) / (z / losses).sum()

    def observe(self, before, after):
        z = torch.softmax(self.xi, 0)
        self.xi.grad = torch.autograd.grad(z, self.xi, grad_outputs=before.log() - after.log())[0]
        self.adam.step()


@pytest.mark.parametrize("is_observed", [True, False])
def test_equals_the_paper(is_observed):
    ours, theirs = bind("famo", lr=0.05, gamma=0.01), FromThePaper(3, 0.05, 0.01)
    losses, after = series(60), series(60, seed=1) if is_observed else series(61)[1:]
    for row, following in zip(losses, after, strict=True):
        torch.testing.assert_close(weights(ours, row), theirs.weights(row), rtol=1e-5, atol=0)
        if is_observed:
            ours.observe(following.tolist())
        theirs.observe(row, following)


def test_weights_are_one_on_average_and_at_first_inverse_to_the_losses():
    losses = torch.tensor([0.5, 2.0, 8.0], dtype=torch.float64)
    first = weights(bind("famo"), losses)
    torch.testing.assert_close(first.sum(), torch.tensor(3.0, dtype=torch.float64))
    torch.testing.assert_close(first * losses, (first * losses).mean().expand(3))
    same = torch.full((4,), 0.7, dtype=torch.float64)
    torch.testing.assert_close(weights(bind("famo"), same), torch.ones(4, dtype=torch.float64))


def test_on_unlike_parabolas_all_fall_at_one_rate():
    """Gradient descent on a_i (x - c_i)^2 + 0.1: with equal weights the steepest falls alone at first."""
    slopes, centres = torch.tensor([1.0, 100.0]).double(), torch.tensor([1.0, -1.0]).double()

    def losses(x):
        return slopes * (x - centres).square() + 0.1

    x, method = torch.tensor(5.0).double(), bind("famo")
    start = losses(x)
    for _ in range(30):
        w = weights(method, losses(x))
        x = x - 1e-2 * (w * 2 * slopes * (x - centres)).sum() / (w * slopes).sum()
        method.observe(losses(x).tolist())
    falls = (losses(x) / start).log()
    assert (falls < -0.3).all()


@pytest.mark.parametrize("is_observed", [True, False])
def test_resumes_bit_for_bit(is_observed):
    losses = series(40)

    def run(method, rows):
        found = []
        for row in rows:
            found.append(weights(method, row))
            if is_observed:
                method.observe((row * 0.9).tolist())
        return torch.stack(found)

    method, resumed = bind("famo"), bind("famo")
    run(method, losses[:25])
    resumed.load_state_dict(method.state_dict())
    assert torch.equal(run(resumed, losses[25:]), run(method, losses[25:]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_losses_that_are_not_finite_teach_nothing(bad):
    method, clean = bind("famo"), bind("famo")
    row = torch.tensor([1.0, 2.0], dtype=torch.float64)
    for each in (method, clean):
        weights(each, row)
        each.observe([0.5, 1.9])
    learned = weights(clean, row)
    assert torch.equal(weights(method, torch.tensor([bad, 1.0], dtype=torch.float64)), torch.ones(2).double())
    method.observe([bad, 1.0])
    assert torch.equal(weights(method, row), learned)


def test_a_loss_at_its_minimum_is_no_error_and_one_below_is():
    losses = torch.tensor([-3.0, 1.0], dtype=torch.float64)
    assert weights(bind("famo", min_loss=-3.0), losses).isfinite().all()
    assert weights(bind("famo", min_loss=(-3.0, 0.5)), losses).isfinite().all()
    with pytest.raises(InputError, match=r"objective 0 has -3\. Set min_loss"):
        weights(bind("famo"), losses)
    with pytest.raises(InputError, match="one of each of the 2 objectives"):
        weights(bind("famo", min_loss=(-3.0, 0.5, 0.5)), losses)


def test_the_number_of_objectives_stays():
    method = bind("famo")
    weights(method, series(1)[0])
    with pytest.raises(InputError, match="3 objectives, and is told 2"):
        method.observe([1.0, 1.0])
