"""`GradientSurgeon` in anybody's loop: shared tensors, heads, reductions, what is not finite, and refusals."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ava import registry
from ava.errors import InputError
from ava.optimization import GradientSurgeon
from ava.optimization.gradients.surgery.binding import bind, needs
from ava.optimization.gradients.surgery.objectives import Objectives

METHODS = registry.surgery.names()
WEIGHERS = [name for name in METHODS if needs(name) != "rows"]
LOSSES = [0.5, 1.5, 2.5]


def rows(num=3, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return [[torch.randn(shape, generator=generator) * scale for shape in ((4, 3), (5,), ())] for _ in range(num)]


def mean(tensors):
    return sum(tensors) / len(tensors)


def total(found):
    return torch.cat([g.flatten() for g in found])


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_a_gradient_of_each_tensor(method):
    combined = GradientSurgeon(method).apply(rows(), LOSSES)
    assert [tuple(g.shape) for g in combined] == [(4, 3), (5,), ()]
    assert total(combined).isfinite().all()


@pytest.mark.parametrize("method", WEIGHERS)
def test_it_is_the_weighted_sum_of_the_method(method):
    given = rows()
    matrix = torch.stack([total(row) for row in given]).double()
    weights = bind(method)(Objectives(matrix @ matrix.T, torch.tensor(LOSSES).double()))
    found = total(GradientSurgeon(method, reduction="sum").apply(given, LOSSES))
    torch.testing.assert_close(found.double(), weights @ matrix, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_the_mean_is_the_sum_over_their_number(method):
    summed, averaged = (total(GradientSurgeon(method, reduction=r).apply(rows(), LOSSES)) for r in ("sum", "mean"))
    torch.testing.assert_close(averaged, summed / 3)


def test_of_two_in_conflict_pcgrad_keeps_the_normal_parts():
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0])
    combined = GradientSurgeon("pcgrad", reduction="sum").apply([[a], [b]])[0]
    torch.testing.assert_close(combined, torch.tensor([0.5, 0.5]) + torch.tensor([0.0, 1.0]))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_heads_and_unused_parameters_get_their_own(method, reduction):
    shared = rows(2)
    head_a, head_b = torch.randn(3), torch.randn(2)
    first, second = [*shared[0], head_a, None, None], [*shared[1], None, head_b, None]
    combined = GradientSurgeon(method, reduction).apply([first, second], LOSSES[:2])
    alone = GradientSurgeon(method, reduction).apply(shared, LOSSES[:2])
    torch.testing.assert_close(combined[:3], alone)
    assert combined[5] is None
    weights = [1.0, 1.0]
    if needs(method) == "losses":
        weights = bind(method)(Objectives(losses=torch.tensor(LOSSES[:2]).double())).tolist()
    scale = 0.5 if reduction == "mean" else 1.0
    torch.testing.assert_close(combined[3:5], [head_a * weights[0] * scale, head_b * weights[1] * scale])


@pytest.mark.parametrize("method", METHODS)
def test_one_objective_and_no_shared_tensor(method):
    given = rows(1)
    if needs(method) != "losses":
        torch.testing.assert_close(GradientSurgeon(method).apply(given, LOSSES[:1]), given[0])
    apart = [[given[0][0], None], [None, given[0][1]]]
    assert [g.shape for g in GradientSurgeon(method).apply(apart, LOSSES[:2])] == [(4, 3), (5,)]


def test_the_guide():
    """The loop of the guide: gradients per task, combined, stepped; the losses fall and agree with a plain mean."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    data, target = torch.randn(64, 4), torch.randn(64, 2)
    optimizer, surgeon = torch.optim.SGD(model.parameters(), lr=0.3), GradientSurgeon(method="pcgrad", reduction="mean")
    history = []
    for _ in range(60):
        output = model(data)
        losses = [(output[:, k] - target[:, k]).square().mean() for k in range(2)]
        gradients = [torch.autograd.grad(loss, model.parameters(), retain_graph=True) for loss in losses]
        for parameter, gradient in zip(model.parameters(), surgeon.apply(gradients), strict=True):
            parameter.grad = gradient
        optimizer.step()
        history.append([loss.item() for loss in losses])
    assert all(after < 0.95 * before for before, after in zip(history[0], history[-1], strict=True))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_shows_and_raises_nothing(method, bad):
    given = rows()
    given[1][0][0, 0] = bad
    combined = GradientSurgeon(method).apply(given, LOSSES)
    assert not combined[0][0, 0].isfinite()
    assert combined[1].isfinite().all()


@pytest.mark.parametrize("method", ["pcgrad", "graddrop"])
def test_draws_follow_seed_and_calls(method):
    def three(seed):
        surgeon = GradientSurgeon(method, seed=seed)
        return torch.stack([total(surgeon.apply(rows(6))) for _ in range(4)])

    first = three(1)
    assert torch.equal(first, three(1))
    assert not torch.equal(first, three(2))
    assert len({tuple(row.tolist()) for row in first}) > 1


@pytest.mark.parametrize("method", METHODS)
def test_resumes_bit_for_bit(method):
    surgeon, resumed = GradientSurgeon(method, seed=3), GradientSurgeon(method, seed=3)
    for k in range(4):
        surgeon.apply(rows(seed=k), LOSSES)
    resumed.load_state_dict(surgeon.state_dict())
    for k in range(4, 7):
        given = rows(seed=k)
        assert torch.equal(total(resumed.apply(given, LOSSES)), total(surgeon.apply(given, LOSSES)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "pcgard"}, "Did you mean `pcgrad`"),
        (
            {"method": "graddrop", "leek": 0.1},
            "graddrop has no option 'leek'; it has: method, reduction, seed, leak, renormalize.*`leak`",
        ),
        ({"method": "graddrop", "leak": 1.5}, "leak=1.5: must be"),
        ({"method": "pcgrad", "every": 2}, "pcgrad has no option 'every'"),
        ({"reduction": "average"}, "reduction=average: must be one of 'sum', 'mean'"),
        ({"seed": -1}, "seed=-1"),
    ],
    ids=["name", "option", "value", "shared option", "reduction", "seed"],
)
def test_what_cannot_be_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        GradientSurgeon(**arguments)


@pytest.mark.parametrize(
    ("gradients", "losses", "message"),
    [
        ([], None, "at least one objective"),
        ([[torch.ones(2)], [torch.ones(2), torch.ones(3)]], None, "objective 1 has gradients of 2 tensors"),
        ([[torch.ones(2)], [torch.ones(3)]], None, r"tensor 0: objective 1 .*\(3,\), and another's \(2,\)"),
        ([[None], [torch.ones(2)], [torch.ones(3)]], None, "tensor 0: objective 2"),
        ([[torch.ones(2)], [torch.ones(2)]], [1.0], "2 objectives, and 1 losses"),
        ([[torch.ones(2)], [torch.ones(2)]], ["a", "b"], "one number for each loss"),
        ([[torch.ones(2)], [torch.ones(2)]], torch.ones(2, 2), "one number for each loss"),
        ({"a": [torch.ones(2)]}, None, "objective 0 has str, and not a tensor or None"),
        ([[1.0], [2.0]], None, "objective 0 has float, and not a tensor or None"),
        ([[torch.ones(2)], [torch.ones(2).to_sparse()]], None, "objective 1 has a gradient that is not dense"),
        ([[torch.ones(2, dtype=torch.int64)]], None, "of type int64, and not of real numbers"),
    ],
    ids=[
        "none",
        "lengths",
        "shapes",
        "shapes beside none",
        "losses",
        "words",
        "matrix",
        "names",
        "floats",
        "sparse",
        "whole numbers",
    ],
)
def test_gradients_that_do_not_fit_are_refused(gradients, losses, message):
    with pytest.raises(InputError, match=message):
        GradientSurgeon("pcgrad").apply(gradients, losses)


def test_losses_may_still_have_their_graph():
    losses = [torch.tensor(value, requires_grad=True) * 1 for value in LOSSES]
    one, other = (GradientSurgeon("famo").apply(rows(), given) for given in (losses, LOSSES))
    assert torch.equal(total(one), total(other))


@pytest.mark.parametrize("method", ["famo", "uncertainty", "gradnorm"])
def test_another_number_of_objectives_or_a_strange_state_is_refused(method):
    surgeon = GradientSurgeon(method)
    surgeon.apply(rows(), LOSSES)
    with pytest.raises(InputError, match=f"{method} has seen 3 objectives, and is told 2"):
        surgeon.apply(rows(2), LOSSES[:2])
    with pytest.raises(InputError, match="the saved one nothing"):
        surgeon.load_state_dict(GradientSurgeon("pcgrad").state_dict())


@pytest.mark.parametrize("method", ["famo", "uncertainty", "gradnorm"])
def test_methods_that_learn_from_losses_ask_for_them(method):
    with pytest.raises(InputError, match=f"{method} learns from the values of the losses.*surgeon.apply"):
        GradientSurgeon(method).apply(rows())
