"""Optimizer state on the host: the same training to the bit, whatever the optimizer, and the same state dicts."""

import pytest
import torch
from torch import nn

from ava.errors import InputError
from ava.optimization import get_optimizer
from ava.optimization.catalogue import list_optimizers
from ava.optimization.offload.optimizer import offload_optimizer
from ava.optimization.snapshot import Snapshot

OPTIONS = {
    "int8": {"state": "int8"},
    "bf16 state": {"state": "bf16"},
    "factored": {"state": "factored"},
    "cautious": {"cautious": True},
    "lookahead": {"lookahead": 2},
}


def model(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 20), nn.LayerNorm(20), nn.Tanh(), nn.Linear(20, 7)).to(dtype)


def trained(name, *, offloaded, steps=4, dtype=torch.float32, halt=None, **options):
    """Weights and state dict after some steps; at `halt` a state dict is saved and loaded into a new optimizer."""
    net = model(dtype)

    def build():
        made = get_optimizer(name)(net.parameters(), **options)
        if offloaded:
            offload_optimizer(made)
        return made

    optimizer = build()
    generator = torch.Generator().manual_seed(1)
    for step in range(steps):
        optimizer.zero_grad()
        net(torch.randn(16, 12, generator=generator).to(dtype)).float().square().mean().backward()
        optimizer.grad_scale = torch.tensor(4.0) if step == 1 else None
        optimizer.found_inf = torch.tensor(1.0) if step == 2 else None
        optimizer.step()
        if step == halt:
            saved = optimizer.state_dict()
            optimizer = build()
            optimizer.load_state_dict(saved)
    with optimizer.averaged():
        evaluated = [p.detach().clone() for p in net.parameters()]
    return [p.detach() for p in net.parameters()] + evaluated, optimizer


def same(left, right):
    if isinstance(left, torch.Tensor):
        # NaN is what AGMOHD remembers of a loss that nobody told it.
        return torch.equal(left, right) or torch.allclose(left, right, rtol=0.0, atol=0.0, equal_nan=True)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


@pytest.mark.filterwarnings("ignore:.*was never given an estimate:UserWarning")
@pytest.mark.parametrize("name", list_optimizers())
def test_the_same_training_to_the_bit(name):
    expected, plain = trained(name, offloaded=False)
    found, hosted = trained(name, offloaded=True)
    assert same(found, expected)
    assert same(hosted.state_dict(), plain.state_dict())


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_with_options_and_across_a_state_dict(options):
    expected, plain = trained("adamw", offloaded=False, halt=1, **options)
    found, hosted = trained("adamw", offloaded=True, halt=1, **options)
    assert same(found, expected)
    assert same(hosted.state_dict(), plain.state_dict())


@pytest.mark.parametrize("name", ["adamw", "schedule_free_adamw", "prodigy", "muon"])
def test_a_state_dict_of_either_goes_on_in_the_other(name):
    expected, _ = trained(name, offloaded=False, halt=1)
    found, hosted = trained(name, offloaded=True, halt=1)
    assert same(found, expected)
    plain = get_optimizer(name)(model().parameters())
    plain.load_state_dict(hosted.state_dict())
    assert same(plain.state_dict()["state"], hosted.state_dict()["state"])


def test_16_bit_weights_round_as_ever():
    expected, _ = trained("adamw", offloaded=False, dtype=torch.bfloat16, stochastic_rounding=True)
    found, _ = trained("adamw", offloaded=True, dtype=torch.bfloat16, stochastic_rounding=True)
    assert same(found, expected)


def test_the_twins_are_others():
    """The engine never sees the accelerator's parameters: a device of their own stands for it."""
    net = nn.Linear(4, 4)
    optimizer = get_optimizer("adamw")(net.parameters())
    seen = []
    plain = optimizer.update
    optimizer.update = lambda work, *rest: (seen.extend(p for _, pairs in work for p, _ in pairs), plain(work, *rest))
    offload_optimizer(optimizer)
    net(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    assert len(seen) == 2
    assert not {p.data_ptr() for p in seen} & {p.data_ptr() for p in net.parameters()}
    assert set(optimizer.state) == set(net.parameters())


def test_a_snapshot_goes_back():
    net, batch = model(), torch.ones(3, 12)
    optimizer = get_optimizer("adamw")(net.parameters())
    offload_optimizer(optimizer)

    def step():
        optimizer.zero_grad()
        net(batch).square().mean().backward()
        optimizer.step()
        return [p.detach().clone() for p in net.parameters()]

    step()
    snapshot = Snapshot(net, optimizer)
    expected = [step(), step()]
    snapshot.restore()
    assert same([step(), step()], expected)


def test_weights_and_groups_that_others_change_are_seen():
    results = []
    for offloaded in (False, True):
        net = nn.Linear(4, 4)
        nn.init.ones_(net.weight)
        nn.init.ones_(net.bias)
        optimizer = get_optimizer("adamw")([net.weight], lr=0.1)
        if offloaded:
            offload_optimizer(optimizer)
        for _ in range(2):
            net(torch.ones(1, 4)).sum().backward()
            optimizer.step()
            with torch.no_grad():
                net.weight.mul_(2)
            optimizer.param_groups[0]["lr"] = 0.01
        optimizer.add_param_group({"params": [net.bias]})
        optimizer.step()
        results.append([net.weight.detach(), net.bias.detach()])
    assert same(*results)


def test_refuses_what_it_cannot_do():
    fused = get_optimizer("adamw")(model().parameters(), fused_backward=True)
    with pytest.raises(InputError, match="fused_backward updates during the backward pass"):
        offload_optimizer(fused)
    net = model()
    begun = get_optimizer("adamw")(net.parameters())
    net(torch.ones(1, 12)).sum().backward()
    begun.step()
    with pytest.raises(InputError, match="has state already"):
        offload_optimizer(begun)


def test_what_cannot_be_moved_is_refused():
    parameters = list(nn.Linear(4, 4).parameters())
    with pytest.raises(InputError, match="not of AdamW"):
        offload_optimizer(torch.optim.AdamW(parameters))
    optimizer = get_optimizer("adamw")(parameters)
    offload_optimizer(optimizer)
    with pytest.raises(InputError, match="already"):
        offload_optimizer(optimizer)
