"""Offloaded activations: the same gradients, memory given back, each storage copied once."""

import gc
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ava.optimization.offload.activations import OffloadedActivations


class Net(nn.Module):
    """Views of one storage, a shared weight, dropout, attention and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.norm, self.drop = nn.Linear(16, 48), nn.LayerNorm(16), nn.Dropout(0.2)
        self.embedding = nn.Embedding(20, 16)

    def forward(self, tokens):
        x = self.embedding(tokens)
        for _ in range(2):
            q, k, v = self.qkv(self.norm(x)).unflatten(-1, (2, 24)).transpose(1, 2).chunk(3, dim=-1)
            x = x + self.drop(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return functional.linear(x.tanh(), self.embedding.weight)


def gradients(context=None, *, recompute=False, dtype=None, passes=1):
    torch.manual_seed(0)
    net = Net()
    tokens = torch.randint(20, (3, 5))
    offloaded = None if context is None else context(net)
    for _ in range(passes):
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            if offloaded is None:
                loss = net(tokens).float().square().mean()
            else:
                with offloaded:
                    out = checkpoint(net, tokens, use_reentrant=False) if recompute else net(tokens)
                    loss = out.float().square().mean()
        loss.backward()
    return [p.grad for p in net.parameters()], offloaded


def offload(net):
    return OffloadedActivations("cpu", net.parameters(), smallest=0)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("options", [{}, {"recompute": True}, {"passes": 2}], ids=["once", "recompute", "accumulate"])
def test_gradients_are_the_same_to_the_bit(options, dtype):
    passes = options.get("passes", 1)
    expected, _ = gradients(dtype=dtype, passes=passes)
    found, offloaded = gradients(offload, dtype=dtype, **options)
    assert all(map(torch.equal, found, expected))
    assert offloaded.moved > 0


def test_second_derivatives_and_a_retained_graph():
    x = torch.randn(40, requires_grad=True)

    def derivatives():
        loss = (x.tanh() * x.exp()).sum()
        (first,) = torch.autograd.grad(loss, x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x, retain_graph=True)
        (again,) = torch.autograd.grad(first.square().sum(), x)
        return first, second, again

    expected = derivatives()
    with OffloadedActivations("cpu", smallest=0):
        found = derivatives()
    assert all(map(torch.equal, found, expected))


def test_the_memory_is_given_back():
    x = torch.randn(1000, requires_grad=True)
    with OffloadedActivations("cpu", smallest=0):
        inner = x * 2
        storage = weakref.ref(inner.untyped_storage())
        loss = inner.tanh().square().sum()
        del inner
    gc.collect()
    assert storage() is None
    loss.backward()
    assert torch.equal(x.grad, torch.autograd.grad((x * 2).tanh().square().sum(), x)[0])


def test_views_of_a_storage_are_copied_once():
    x = torch.randn(64, 32, requires_grad=True)
    with OffloadedActivations("cpu", smallest=0) as offloaded:
        inner = x + 1
        left, right = inner.chunk(2, dim=1)
        loss = (left * right).sum() + inner.t().square().sum() + inner[3:5].exp().sum()
    # exp saves its own result as well.
    assert offloaded.moved == inner.nbytes + inner[3:5].nbytes
    loss.backward()
    assert torch.equal(x.grad, torch.autograd.grad(_views(x), x)[0])


def _views(x):
    inner = x + 1
    left, right = inner.chunk(2, dim=1)
    return (left * right).sum() + inner.t().square().sum() + inner[3:5].exp().sum()


def test_what_was_changed_in_place_is_saved_anew():
    """Each node gets the value that it saw: with autograd's own keeping this would be refused."""
    x = torch.randn(50, requires_grad=True)
    weights = torch.full((50,), 2.0)
    with OffloadedActivations("cpu", smallest=0):
        first = x * weights
        weights.mul_(3)
        loss = (first * weights).sum()
    loss.backward()
    assert torch.equal(x.grad, torch.full((50,), 12.0))


def test_parameters_and_small_tensors_stay():
    layer = nn.Linear(64, 64, bias=False)
    detached = layer.weight.detach()
    x = torch.randn(2, 64, requires_grad=True)
    with OffloadedActivations("cpu", layer.parameters(), smallest=4096) as offloaded:
        loss = layer(x).sum() + (x @ detached.t()).sum()
    assert offloaded.moved == 0
    loss.backward()
    assert layer.weight.grad is not None


def test_no_graph_is_kept_alive():
    """A node's own output, packed as it is, would be a cycle that no collector sees."""
    offloaded = OffloadedActivations("cpu", smallest=1 << 30)
    x = torch.randn(100, requires_grad=True)
    with offloaded:
        y = (x * 1).exp()
    node = weakref.ref(y.untyped_storage())
    del y
    assert node() is None


def test_leaves_the_hooks_as_they_were_after_an_error():
    x = torch.randn(100, requires_grad=True)
    offloaded = OffloadedActivations("cpu", smallest=0)
    with pytest.raises(KeyError), offloaded:
        raise KeyError
    (x * x).sum().backward()
    assert offloaded.moved == 0
