"""The moving average of the weights."""

from __future__ import annotations

import pytest
import torch
from torch import distributed, nn

from ava.errors import InputError
from ava.optimization import EMA


def model():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    net.register_buffer("count", torch.zeros((), dtype=torch.int64))
    return net


def move(net, step):
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for p in net.parameters():
            p += torch.randn(p.shape, generator=generator)
        net.count += 1


def test_average_follows_the_formula():
    net = model()
    ema = EMA(net, 0.5)
    expected = {n: p.detach().clone() for n, p in net.named_parameters()}
    for step in range(12):
        move(net, step)
        ema.update()
        d = min(0.5, (1 + step) / (10 + step))
        expected = {n: d * expected[n] + (1 - d) * p.detach() for n, p in net.named_parameters()}
    saved = ema.state_dict()["averages"]
    for name, value in expected.items():
        torch.testing.assert_close(saved[name], value)
    assert saved["count"] == 12


def test_swapped_gives_the_averages_and_gives_back_bitwise():
    net = model()
    ema = EMA(net, 0.9)
    for step in range(3):
        move(net, step)
        ema.update()
    own = {n: t.clone() for n, t in net.state_dict().items()}
    with ema.swapped():
        averages = ema.state_dict()["averages"]
        assert all(torch.equal(t, averages[n]) for n, t in net.state_dict().items())
        assert not torch.equal(net[0].weight, own["0.weight"])
    assert all(torch.equal(t, own[n]) for n, t in net.state_dict().items())


def test_resume_is_bitwise():
    net, twin = model(), model()
    ema, other = EMA(net, 0.9), EMA(twin, 0.9)
    for step in range(6):
        if step == 3:
            twin.load_state_dict(net.state_dict())
            other.load_state_dict(ema.state_dict())
        move(net, step)
        ema.update()
        if step >= 3:
            move(twin, step)
            other.update()
    a, b = ema.state_dict(), other.state_dict()
    assert a["updates"] == b["updates"] == 6
    assert all(torch.equal(a["averages"][n], b["averages"][n]) for n in a["averages"])


def test_names_are_the_plain_modules():
    """Through torch.compile and DistributedDataParallel, in either order."""
    net = model()
    names = EMA(net, 0.9).state_dict()["averages"].keys()
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        parallel = nn.parallel.DistributedDataParallel(net)
        for outer in (parallel, torch.compile(net, backend="eager"), torch.compile(parallel, backend="eager")):
            assert EMA(outer, 0.9).state_dict()["averages"].keys() == names
    finally:
        distributed.destroy_process_group()


def test_sixteen_bit_weights_are_averaged_in_float32():
    net = nn.Linear(2, 2).bfloat16()
    ema = EMA(net, 0.999)
    ema.update()
    assert ema.state_dict()["averages"]["weight"].dtype is torch.float32
    with ema.swapped():
        assert net.weight.dtype is torch.bfloat16


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan"), "much"])
def test_impossible_decay_is_refused(decay):
    with pytest.raises(InputError, match="decay"):
        EMA(model(), decay)


def test_another_models_state_is_refused():
    with pytest.raises(InputError, match="weight"):
        EMA(model(), 0.9).load_state_dict(EMA(nn.Linear(2, 2), 0.9).state_dict())
