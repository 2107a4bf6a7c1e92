"""Handler and wrapper, used as the guide shows."""

import copy
import gc

import pytest
import torch
from torch import nn
from torch.optim.optimizer import _global_optimizer_post_hooks

from ava.optimization import FP8Handler, FP8ModelWrapper, get_optimizer
from tests.optimization.precision.float8.trainings import HERE, MLP


class Output:
    def __init__(self, logits):
        self.logits = logits


class Guide(nn.Module):
    """Takes a batch as keywords and answers with an object, as in the guide."""

    def __init__(self):
        super().__init__()
        self.net = MLP()
        self.steps = 3
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, inputs, labels):
        self.seen += len(labels)
        return Output(self.net(inputs))


def wrapped(**options):
    torch.manual_seed(0)
    plain = Guide()
    handler = FP8Handler(**({"enabled": True, "emulate": True, "device": "cpu"} | options))
    return plain, handler, FP8ModelWrapper(model=plain, fp8_handler=handler)


def batch(step=0):
    generator = torch.Generator().manual_seed(step)
    return {"inputs": torch.randn(8, 32, generator=generator), "labels": torch.randint(16, (8,), generator=generator)}


def loss_of(handler, model, step=0):
    data = batch(step)
    with handler.context():
        return nn.functional.cross_entropy(model(**data).logits, data["labels"])


@pytest.mark.parametrize("recipe", HERE)
def test_the_guides_loop(recipe):
    _, handler, model = wrapped(recipe=recipe, margin=0, interval=1, fp8_format="hybrid")
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = loss_of(handler, model)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert handler.enabled
    assert losses[-1] < 0.5 * losses[0]
    assert any("FP8 layers (2): net.up, net.down" in line for line in handler.sentences())


def test_disabled_does_nothing_at_all():
    plain, handler, model = wrapped(enabled=False, emulate=False)
    twin = copy.deepcopy(plain)
    with handler.context():
        assert not torch.is_autocast_enabled("cpu")
        found = model(**batch()).logits
    assert torch.equal(found, twin(**batch()).logits)
    assert type(plain.net.up) is nn.Linear
    assert handler.sentences() == []
    assert handler.columns() == {}
    handler.step()


def test_the_context_leaves_gradients_as_they_are_and_restores_autocast():
    _, handler, _ = wrapped()
    with handler.context(), handler.context():
        assert torch.is_grad_enabled()
        assert torch.get_autocast_dtype("cpu") is torch.bfloat16
    assert not torch.is_autocast_enabled("cpu")
    with torch.no_grad(), handler.context():
        assert not torch.is_grad_enabled()
    with torch.autocast("cpu", torch.float16):
        with pytest.raises(ZeroDivisionError), handler.context():
            raise ZeroDivisionError
        assert torch.get_autocast_dtype("cpu") is torch.float16


def test_state_dict_and_names_are_the_models_own():
    plain, _, model = wrapped()
    fresh = Guide()
    assert list(model.state_dict()) == list(fresh.state_dict())
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in fresh.named_parameters()]
    assert [id(p) for p in model.parameters()] == [id(p) for p in plain.parameters()]
    fresh.load_state_dict(model.state_dict())
    changed = {name: value + 1 for name, value in fresh.state_dict().items()}
    model.load_state_dict(changed)
    assert all(torch.equal(value, changed[name]) for name, value in plain.state_dict().items())
    parent = nn.Sequential(model)
    assert list(parent.state_dict()) == [f"0.{name}" for name in changed]
    parent.load_state_dict({f"0.{name}": value for name, value in changed.items()})


def test_the_wrapper_is_the_model_for_everything_else():
    plain, _, model = wrapped()
    assert model.steps == 3
    assert model.net is plain.net
    with pytest.raises(AttributeError):
        _ = model.nothing
    model.eval()
    assert [plain.training, plain.net.training, model.training] == [False] * 3
    model.to(torch.bfloat16)
    assert plain.net.up.weight.dtype is torch.bfloat16
    twin = copy.deepcopy(model)
    assert twin.wrapped is not plain
    assert twin.wrapped.net is twin.net


def test_a_copy_leaves_the_callers_model_alone():
    plain = Guide()
    model = FP8ModelWrapper(plain, FP8Handler(emulate=True, device="cpu"), copy=True)
    assert type(plain.net.up) is nn.Linear
    assert type(model.net.up) is not nn.Linear


@pytest.mark.parametrize("make", [torch.optim.SGD, get_optimizer("adamw")], ids=["torch", "ava"])
def test_steps_are_counted_with_micro_batches(make):
    """Three micro-batches before each optimizer step are one step of delayed scaling."""
    _, handler, model = wrapped()
    optimizer = make(list(model.parameters()), lr=0.01)
    other = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    scaling, amaxes = model.net.up.scaling, []
    for step in range(4):
        optimizer.zero_grad()
        for micro in range(3):
            loss_of(handler, model, 3 * step + micro).backward()
            other.step()
        amaxes.append(scaling.amax[0, 0].item())
        optimizer.step()
    assert scaling.num_steps == 3
    state = handler.state_dict()
    assert scaling.num_steps == 4
    assert scaling.history[:4, 0, 0].tolist() == amaxes[::-1]
    handler.load_state_dict(state)
    handler.step(skipped=True)
    assert scaling.history[:4, 0, 0].tolist() == amaxes[::-1]


def test_a_handler_that_is_gone_listens_no_more():
    gc.collect()
    before = len(_global_optimizer_post_hooks)
    plain, handler, model = wrapped()
    assert len(_global_optimizer_post_hooks) == before + 1
    del plain, handler, model
    gc.collect()
    assert len(_global_optimizer_post_hooks) == before


def test_attributes_that_the_model_has_are_set_there():
    plain, _, model = wrapped()
    model.steps = 5
    assert plain.steps == 5
    model.note = "mine"
    assert not hasattr(plain, "note")
    model.net = MLP()
    assert plain.net is model.net


def test_a_sequence_stays_one():
    layers = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 16))
    model = FP8ModelWrapper(layers, FP8Handler(emulate=True, device="cpu"))
    assert model[0] is layers[0]
    assert len(model) == 3
    assert [*model] == [*layers]
    _, _, other = wrapped()
    assert other
    for refused in (lambda: other[0], lambda: len(other), lambda: iter(other)):
        with pytest.raises(TypeError, match="Guide"):
            refused()
