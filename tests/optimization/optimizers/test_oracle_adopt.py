"""ADOPT against its paper; what pytorch_optimizer and adv_optm do otherwise, measured."""

from __future__ import annotations

import pytest
import pytorch_optimizer
import torch

from ava.errors import InputError
from ava.optimization import get_optimizer
from tests.optimization.optimizers.oracles import parameters, set_gradients, two_groups
from tests.optimization.optimizers.test_oracles import ENGINES, train_both


class Adopt:
    """Algorithm 2 of Taniguchi et al. 2024 with the clip of its section 4: c_t = t^(1/4), t = 1 at the first update."""

    def __init__(self, groups: list[dict]) -> None:
        self.param_groups = groups
        self.step_number = 0
        self.v = [[torch.zeros_like(p) for p in group["params"]] for group in groups]
        self.m = [[torch.zeros_like(p) for p in group["params"]] for group in groups]

    @torch.no_grad()
    def step(self) -> None:
        for group, vs, ms in zip(self.param_groups, self.v, self.m, strict=True):
            beta1, beta2 = group["betas"]
            for p, v, m in zip(group["params"], vs, ms, strict=True):
                g = p.grad + (group["weight_decay"] * p if group["coupled"] else 0)
                if self.step_number == 0:
                    v.copy_(g * g)
                    continue
                if not group["coupled"]:
                    p -= group["lr"] * group["weight_decay"] * p
                limit = self.step_number**0.25
                normalised = (g / v.sqrt().clamp(min=group["eps"])).clamp(-limit, limit)
                m.copy_(beta1 * m + (1 - beta1) * normalised)
                p -= group["lr"] * m
                v.copy_(beta2 * v + (1 - beta2) * g * g)
        self.step_number += 1


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("betas", [(0.9, 0.9999), (0.0, 0.9)])
def test_adopt_equals_the_paper(engine, weight_decay, coupled, betas):
    mine, yours = parameters(), parameters()
    options = {"lr": 1e-2, "betas": betas, "eps": 1e-6, "weight_decay": weight_decay}
    second = {**options, "lr": 3e-3, "weight_decay": 0.3, "eps": 1e-1}
    decay = "coupled" if coupled else None
    ours = get_optimizer("adopt")(two_groups(mine, **second), **options, decay=decay, engine=engine)
    groups = [{"params": yours[:1], **options}, {"params": yours[1:], **second}]
    theirs = Adopt([{**group, "coupled": coupled} for group in groups])
    assert train_both(ours, mine, theirs, yours) < 1e-12


def test_pytorch_optimizer_counts_one_further():
    """Its clip at the first update is 2^(1/4), not 1: with a wide clip it is the same algorithm, else it is not."""
    for clip, low, high in ((lambda step: (step - 1) ** 0.25, 0.0, 1e-12), (None, 1e-4, 1.0)):
        mine, yours = parameters(), parameters()
        ours = get_optimizer("adopt")(mine, lr=1e-2)
        options = {} if clip is None else {"clip_lambda": clip}
        theirs = pytorch_optimizer.ADOPT(yours, lr=1e-2, foreach=False, **options)
        assert low <= train_both(ours, mine, theirs, yours) < high


@pytest.mark.parametrize("engine", ENGINES)
def test_the_first_step_moves_nothing(engine):
    """Nor does the decay, for the rule has not begun."""
    params = parameters()
    before = [p.detach().clone() for p in params]
    optimizer = get_optimizer("adopt")(params, lr=0.1, weight_decay=0.5, engine=engine)
    set_gradients(params, 0)
    optimizer.step()
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))
    torch.testing.assert_close(optimizer.state[params[0]]["exp_avg_sq"], params[0].grad ** 2)


def test_atan2_updates_from_the_first_step():
    """|atan2(g, |g|)| is pi / 4, so every coordinate takes the same step, whatever the gradient's scale."""
    params = parameters()
    before = [p.detach().clone() for p in params]
    optimizer = get_optimizer("adopt")(params, lr=0.1, betas=(0.0, 0.99), atan2=True)
    set_gradients(params, 0)
    optimizer.step()
    for p, b in zip(params, before, strict=True):
        torch.testing.assert_close(b - p, 0.1 * 1.27 * torch.pi / 4 * p.grad.sign())


def test_adopt_needs_a_least_divisor():
    with pytest.raises(InputError, match="eps"):
        get_optimizer("adopt")(parameters(), eps=0.0)
