"""The optimizers of matrices against independent implementations."""

from __future__ import annotations

import pytest
import torch
from pytorch_optimizer import MARS, SOAP

from ava.errors import InputError
from ava.optimization import get_optimizer
from ava.optimization.optimizers.matrices.eigenbasis import from_basis, learn, to_basis
from ava.optimization.optimizers.matrices.newton_schulz import newton_schulz
from tests.optimization.optimizers.test_oracles import train_both


def matrices(dtype=torch.float64, shapes=((6, 4), (3, 7), (5, 5))):
    generator = torch.Generator().manual_seed(1)
    return [torch.nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64).to(dtype)) for s in shapes]


def worst_difference(name, theirs, steps=40, shapes=((6, 4), (3, 7), (5, 5)), dtype=torch.float64, **options):
    mine, yours = matrices(dtype, shapes), matrices(dtype, shapes)
    return train_both(get_optimizer(name)(mine, **options), mine, theirs(yours), yours, steps)


class InDouble:
    """Torch, where what asks for float32 gets float64: so that an oracle's casts do not hide a difference."""

    float32 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_muon_equals_torch(nesterov, weight_decay, monkeypatch):
    """Torch orthogonalises in bfloat16; kept in float64, it must agree to rounding."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda x: x.clone())
    options = {"lr": 0.02, "momentum": 0.9, "nesterov": nesterov, "weight_decay": weight_decay, "ns_steps": 5}
    assert worst_difference("muon", lambda params: torch.optim.Muon(params, **options), **options) < 1e-12


def test_muon_equals_torch_within_its_own_precision():
    options = {"lr": 0.02, "momentum": 0.95, "weight_decay": 0.1}
    worst = worst_difference("muon", lambda p: torch.optim.Muon(p, **options), 1, dtype=torch.float32, **options)
    assert worst < 0.02 * 2 * 0.03  # of an update at lr 0.02 * (1 + sin 0), whose elements are up to 1, 3 %


def test_muon_follows_adamw_where_there_is_no_matrix():
    shapes = ((7,), (1,), ())
    options = {"betas": (0.9, 0.95), "eps": 1e-6, "weight_decay": 0.1}
    ours = {"lr": 0.02, "adamw_lr_ratio": 0.5, "adamw_betas": (0.9, 0.95), "adamw_eps": 1e-6, "weight_decay": 0.1}
    mine, yours = matrices(shapes=shapes), matrices(shapes=shapes)
    one, other = get_optimizer("muon")(mine, **ours), torch.optim.AdamW(yours, lr=0.01, **options)
    for step in range(20):
        for p, q in zip(mine, yours, strict=True):
            p.grad, q.grad = torch.cos(p.detach() + step), torch.cos(q.detach() + step)
        one.step()
        other.step()
    for p, q in zip(mine, yours, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-13)


def test_use_muon_turns_a_group_into_adamw():
    mine, yours = matrices(), matrices()
    one = get_optimizer("muon")([{"params": mine, "use_muon": False}], lr=0.1, adamw_lr_ratio=0.1, weight_decay=0.0)
    other = torch.optim.AdamW(yours, lr=0.01, betas=(0.9, 0.95), weight_decay=0.0)
    for p, q in zip(mine, yours, strict=True):
        p.grad, q.grad = p.detach().clone(), q.detach().clone()
    one.step()
    other.step()
    assert all(torch.allclose(p, q, atol=1e-14) for p, q in zip(mine, yours, strict=True))
    assert set(one.state[mine[0]]) == {"step", "exp_avg", "exp_avg_sq"}


def test_newton_schulz_makes_singular_values_alike():
    x = torch.randn(12, 5, 3, generator=torch.Generator().manual_seed(0))
    y = newton_schulz(x, 5)
    values = torch.linalg.svdvals(y.flatten(1))
    assert y.shape == x.shape
    assert values.min() > 0.6
    assert values.max() < 1.3
    assert torch.equal(newton_schulz(torch.zeros(3, 2), 5), torch.zeros(3, 2))
    torch.testing.assert_close(newton_schulz(x.flatten(1).mT, 5), y.flatten(1).mT)


@pytest.mark.parametrize("clipped", [1.0, 1e-2], ids=["clipped", "whole"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_mars_equals_its_oracle(clipped, weight_decay, monkeypatch):
    """Gradients above the norm of 1 and below it; vectors follow AdamW with betas of their own.

    The oracle adds 1e-15 to the mean square, and eps to the root before its bias correction, the authors afterwards:
    both are left out.
    """
    monkeypatch.setattr(MARS, "apply_ams_bound", staticmethod(lambda ams_bound, square, *_: square.sqrt()))
    shapes = ((6, 4), (7,), (2, 3, 2))
    common = {"lr": 1e-2, "betas": (0.95, 0.99), "gamma": 0.025, "eps": 0.0, "weight_decay": weight_decay}
    mine, yours = matrices(shapes=shapes), matrices(shapes=shapes)
    ours = get_optimizer("mars")(mine, adamw_lr_ratio=0.5, adamw_betas=(0.9, 0.95), **common)
    theirs = MARS(yours, lr_1d=5e-3, betas_1d=(0.9, 0.95), weight_decay_1d=weight_decay, foreach=False, **common)
    for step in range(30):
        for p, q in zip(mine, yours, strict=True):
            p.grad, q.grad = (clipped * (x.detach() + torch.cos(step + x.detach())) for x in (p, q))
        ours.step()
        theirs.step()
        for p, q in zip(mine, yours, strict=True):
            torch.testing.assert_close(p, q, rtol=0, atol=1e-12)


SOAP_OPTIONS = {"lr": 1e-2, "betas": (0.9, 0.95), "precondition_frequency": 3}


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("limit", [10000, 5, 1], ids=["both-sides", "one-side", "no-side"])
def test_soap_equals_its_oracle(weight_decay, limit, monkeypatch):
    monkeypatch.setattr("pytorch_optimizer.optimizer.soap.torch", InDouble())
    options = {**SOAP_OPTIONS, "weight_decay": weight_decay, "max_precondition_dim": limit}
    shapes = ((6, 4), (3, 7), (5, 5), (4,))
    worst = worst_difference("soap", lambda params: SOAP(params, **options), shapes=shapes, **options)
    assert worst < 1e-9


def test_soap_keeps_nothing_for_a_side_beyond_the_limit():
    (p,) = matrices(shapes=((6, 4),))
    p.grad = p.detach().clone()
    optimizer = get_optimizer("soap")([p], max_precondition_dim=5)
    optimizer.step()
    state = optimizer.state[p]
    assert [state[key].numel() for key in ("left", "left_basis", "right", "right_basis")] == [0, 0, 16, 16]


def test_soap_sees_a_kernel_as_a_matrix():
    mine, yours = (
        matrices(shapes=((5, 2, 3),)),
        [torch.nn.Parameter(matrices(shapes=((5, 2, 3),))[0].detach().flatten(1))],
    )
    one, other = (get_optimizer("soap")(params, **SOAP_OPTIONS) for params in (mine, yours))
    for step in range(8):
        for p in (*mine, *yours):
            p.grad = torch.cos(step + p.detach())
        one.step()
        other.step()
    torch.testing.assert_close(mine[0].flatten(1), yours[0], rtol=0, atol=1e-13)


def test_the_first_step_of_soap_only_looks():
    params = matrices(shapes=((6, 4), (3,)))
    before = [p.detach().clone() for p in params]
    optimizer = get_optimizer("soap")(params, weight_decay=0.5)
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))
    basis = optimizer.state[params[0]]["left_basis"]
    torch.testing.assert_close(basis.mT @ basis, torch.eye(6, dtype=torch.float64))


def test_a_step_that_may_not_be_read_gives_the_same_bases():
    """As on an accelerator: after the first basis, whose sort of search differs, number and tensor agree."""
    generator = torch.Generator().manual_seed(0)
    ends = []
    for kind in (int, torch.tensor):
        square, moments = (
            torch.zeros(4, 3, dtype=torch.float64),
            [torch.zeros(n, n, dtype=torch.float64) for n in (4, 3)],
        )
        bases = [torch.zeros_like(m) for m in moments]
        for step in range(1, 60):
            g = torch.randn(4, 3, generator=generator.manual_seed(step), dtype=torch.float64) * torch.tensor(
                [9.0, 3, 1]
            )
            square, moments, bases = learn(g, square, moments, bases, kind(step), (3, 0.9))
        ends.append((to_basis(g, bases), from_basis(to_basis(g, bases), bases), moments[1]))
    torch.testing.assert_close(ends[0][0].abs(), ends[1][0].abs(), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(ends[0][1:], ends[1][1:])
    torch.testing.assert_close(ends[0][1], g)


def test_what_matrices_cannot_do_is_refused():
    with pytest.raises(InputError, match="precondition_frequency"):
        get_optimizer("soap")(matrices(), precondition_frequency=0)
    with pytest.raises(InputError, match="ns_steps"):
        get_optimizer("muon")(matrices(), ns_steps=0)
