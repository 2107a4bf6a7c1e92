"""What the family's authors admit: Prodigy that does not raise its rate, and rates that upset factored momentum.

Prodigy's estimate stands still for two reasons, and both are cured. Its second moments are of the order of
(d0 g)^2, so that a guard against empty factors that is not far below them makes them many times too small: the first
steps are then too long, and prove nothing. And 16-bit parameters do not move by d0 = 1e-6 where they are rounded to
nearest: what does not travel proves no distance.
"""

from __future__ import annotations

import itertools

import pytest
import torch

from ava.optimization import get_optimizer

STATES = ["dense", "factored"]


def adapters(dtype=torch.float32):
    """Least squares by a low-rank adapter of a frozen matrix, B = 0 at first, on batches of 8."""
    generator = torch.Generator().manual_seed(1)
    normal = lambda *shape: torch.randn(shape, generator=generator)  # noqa: E731
    frozen, change = normal(128, 128) / 128**0.5, normal(128, 2) @ normal(2, 128) / 256
    inputs = normal(256, 128)
    targets = inputs @ (frozen + change) + 0.02 * normal(256, 128)
    a = torch.nn.Parameter(((torch.rand(128, 4, generator=generator) * 2 - 1) / 128**0.5).to(dtype))
    b = torch.nn.Parameter(torch.zeros(4, 128, dtype=dtype))

    def loss(rows):
        low_rank = (inputs[rows].to(dtype) @ a @ b).float()
        return (inputs[rows] @ frozen + low_rank - targets[rows]).square().mean()

    return [a, b], loss


def matrix(dtype=torch.float32):
    """Least squares by a whole matrix that is nearly right at first, as in finetuning."""
    generator = torch.Generator().manual_seed(1)
    inputs, right = torch.randn(256, 64, generator=generator), torch.randn(64, 64, generator=generator) / 8
    weight = torch.nn.Parameter((right + torch.randn(64, 64, generator=generator) / 16).to(dtype))
    targets = inputs @ right
    return [weight], lambda rows: ((inputs[rows].to(dtype) @ weight).float() - targets[rows]).square().mean()


def train(problem, name, steps, batch=8, dtype=torch.float32, **options):
    """The optimizer, and the losses over all rows before and after."""
    params, loss = problem(dtype)
    optimizer = get_optimizer(name)(params, **options)
    with torch.no_grad():
        first = loss(slice(None)).item()
    for step in range(steps):
        rows = torch.randint(256, (batch,), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss(rows).backward()
        optimizer.step()
    with torch.no_grad():
        return optimizer, first, loss(slice(None)).item()


EAGER = {"d_coef": 1.0, "bias_correction": False, "safeguard_warmup": False}
"""Options by which d grows at once: 150 steps are few."""


def estimate(optimizer):
    return float(optimizer.param_groups[0]["d"])


@pytest.mark.parametrize("problem", [adapters, matrix])
@pytest.mark.parametrize("d0", [1e-6, 1e-8])
def test_prodigy_raises_its_rate_as_far_with_factored_state(problem, d0):
    """On the adapters d reached 2.4e-4 (dense: 3.9e-3) while the guard against empty factors was 1e-12."""
    (dense, first, by_dense), (factored, _, by_factored) = (
        train(problem, "prodigy", 150, d0=d0, state=state, **EAGER) for state in STATES
    )
    assert estimate(factored) > 0.5 * estimate(dense)
    assert estimate(factored) > 100 * d0
    assert by_factored < 0.3 * first
    assert by_dense < 0.3 * first


@pytest.mark.parametrize("problem", [adapters, matrix])
def test_the_accumulator_raises_its_rate_too(problem):
    options = {"d0": 1e-7, "betas": (0.99, 0.999), "simplified_ademamix": True, **EAGER}
    (dense, _, _), (factored, first, last) = (
        train(problem, "prodigy_adv", 150, state=state, **options) for state in STATES
    )
    assert estimate(factored) > 0.5 * estimate(dense) > 10e-7
    assert last < 0.3 * first


@pytest.mark.parametrize("name", ["prodigy", "prodigy_adv"])
@pytest.mark.parametrize("state", STATES)
def test_bfloat16_parameters_travel(name, state):
    """Rounded to nearest, the weights stay where they are, and d with them; at random, the default, they do not."""
    optimizer, first, last = train(matrix, name, 150, dtype=torch.bfloat16, state=state, **EAGER)
    assert estimate(optimizer) > 1e-3
    assert last < 0.1 * first
    still, first, last = train(matrix, name, 50, dtype=torch.bfloat16, state="dense", stochastic_rounding=False)
    assert estimate(still) < 1e-5
    assert last > 0.9 * first


@pytest.mark.parametrize("name", ["adam_adv", "lion_adv", "adopt_adv"])
def test_high_rates_upset_factored_momentum_no_sooner(name):
    """At each rate that dense momentum stands, factored momentum does; its best rate is rather a higher one.

    A rank-1 magnitude with the elements' own signs is on the whole a shorter momentum, so that an update is too.
    """
    scale = 0.1 if name == "lion_adv" else 1.0
    losses = {
        (state, rate): train(matrix, name, 200, batch=32, state=state, lr=scale * rate)[2]
        for state, rate in itertools.product(STATES, (1e-2, 1e-1, 1.0))
    }
    for rate in (1e-1, 1.0):
        assert losses["factored", rate] < 1.5 * losses["dense", rate]


@pytest.mark.parametrize("name", ["adam_adv", "prodigy"])
def test_factors_of_tiny_moments_have_the_right_size(name):
    """Gradients of 1e-9, as a large model's often are, give the same steps as those of 1."""
    steps = []
    for scale in (1.0, 1e-9):
        p = torch.nn.Parameter(torch.zeros(16, 16, dtype=torch.float64))
        optimizer = get_optimizer(name)([p], lr=1.0, eps=0.0, state="factored")
        for step in range(10):
            gradient = torch.randn(16, 16, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
            p.grad = scale * gradient
            optimizer.step()
        steps.append(p.detach().clone())
    torch.testing.assert_close(steps[1], steps[0], rtol=1e-5, atol=0)
