"""GradNorm equals its algorithm written with autograd and torch's Adam."""

from __future__ import annotations

import pytest
import torch

from ava.errors import InputError
from ava.optimization.gradients.surgery.binding import bind
from ava.optimization.gradients.surgery.objectives import Objectives


def gram_of(norms):
    return torch.diag(torch.as_tensor(norms, dtype=torch.float64).square())


def series(steps, num=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    losses = torch.rand(steps, num, generator=generator, dtype=torch.float64) + 0.2
    norms = torch.rand(steps, num, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 3.0, 0.3]) + 0.1
    return list(zip(losses, norms, strict=True))


def run(method, rows):
    return torch.stack([method(Objectives(gram_of(norms), losses)) for losses, norms in rows])


def from_the_paper(rows, alpha, lr):
    w = torch.ones(3, dtype=torch.float64, requires_grad=True)
    adam, found = torch.optim.Adam([w], lr=lr), []
    for losses, norms in rows:
        found.append(w.detach().clone())
        lengths = w * norms
        rates = losses / rows[0][0]
        target = lengths.mean().detach() * (rates / rates.mean()) ** alpha
        w.grad = torch.autograd.grad((lengths - target).abs().sum(), w)[0]
        adam.step()
        w.data *= 3 / w.data.sum()
    return torch.stack(found)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.5])
def test_equals_the_paper(alpha):
    rows = series(100)
    found = run(bind("gradnorm", alpha=alpha, lr=0.01), rows)
    torch.testing.assert_close(found, from_the_paper(rows, alpha, 0.01), rtol=1e-6, atol=0)
    torch.testing.assert_close(found.sum(1), torch.full((100,), 3.0, dtype=torch.float64))


def test_unlike_gradients_become_of_one_length():
    norms, losses = torch.tensor([1.0, 3.0, 0.5], dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    last = run(bind("gradnorm", lr=0.005), [(losses, norms)] * 800)[-1]
    torch.testing.assert_close(last * norms, (last * norms).mean().expand(3), rtol=0.05, atol=0)


def test_the_one_that_lags_gets_more():
    norms, first = torch.ones(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    later = torch.tensor([0.9, 0.3], dtype=torch.float64)
    last = run(bind("gradnorm"), [(first, norms), *[(later, norms)] * 60])[-1]
    assert last[0] > 1.3 > last[1]


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_scale_of_the_gradients_does_not_matter(scale):
    rows = series(30)
    found = run(bind("gradnorm"), [(losses, norms * scale) for losses, norms in rows])
    torch.testing.assert_close(found, run(bind("gradnorm"), rows), rtol=1e-9, atol=0)


def test_a_large_rate_makes_no_weight_negative():
    found = run(bind("gradnorm", lr=3.0), series(50))
    assert (found >= 0).all()
    assert found.isfinite().all()


def test_resumes_bit_for_bit():
    rows, method, resumed = series(40), bind("gradnorm"), bind("gradnorm")
    run(method, rows[:25])
    resumed.load_state_dict(method.state_dict())
    assert torch.equal(run(resumed, rows[25:]), run(method, rows[25:]))


def test_zero_gradients_and_losses_that_are_not_finite_move_nothing():
    method, ones = bind("gradnorm"), torch.ones(2, dtype=torch.float64)
    bad = torch.tensor([float("nan"), 1.0], dtype=torch.float64)
    for losses, norms in [(ones, ones * 0), (bad, ones), (ones * 0, ones * 0), (ones, ones * 0)]:
        assert torch.equal(method(Objectives(gram_of(norms), losses)), ones)


def test_the_first_losses_are_positive_and_known():
    gram = gram_of([1.0, 1.0])
    with pytest.raises(InputError, match="objective 1 has -2"):
        bind("gradnorm")(Objectives(gram, torch.tensor([1.0, -2.0], dtype=torch.float64)))
    with pytest.raises(InputError, match="gradnorm learns from the values of the losses"):
        bind("gradnorm")(Objectives(gram))
