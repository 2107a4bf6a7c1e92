"""Going back is exact, as often as one likes, and nothing notices."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from ava.errors import InputError
from ava.optimization import EMA, get_optimizer
from ava.optimization.snapshot import Snapshot
from tests.optimization.trainings import OPTIMIZERS, fingerprint, make, train


def disturb(model, optimizer, steps=5):
    """Train on in another way: rates and modes change, too."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(0.3)
        else:
            group["lr"] = 0.3
        group["initial_lr"] = 0.3
    train(model, optimizer, range(1000, 1000 + steps))
    model[3].eval()


@pytest.mark.parametrize("begun", [0, 20])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_restores_every_byte_any_number_of_times(name, begun):
    model, optimizer = make(name, begun=begun)
    before = fingerprint(model, optimizer)
    snapshot = Snapshot(model, optimizer)
    for steps in (1, 4):
        disturb(model, optimizer, steps)
        assert fingerprint(model, optimizer) != before
        snapshot.restore()
        assert fingerprint(model, optimizer) == before


@pytest.mark.parametrize("begun", [0, 20])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on_as_if_nothing_had_been(name, begun):
    model, optimizer = make(name, begun=begun)
    twin, other = make(name, begun=begun)
    snapshot = Snapshot(model, optimizer)
    disturb(model, optimizer)
    snapshot.restore()
    for network, one in ((model, optimizer), (twin, other)):
        train(network, one, range(50, 54))
    assert fingerprint(model, optimizer) == fingerprint(twin, other)


@pytest.mark.parametrize("name", ["torch-sgd-float32-state", "lion-int8", "adamw-int8", "prodigy", "adamw-factored"])
def test_bf16_parameters_keep_wide_state(name):
    model, optimizer = make(name, torch.bfloat16, begun=20)
    twin, other = make(name, torch.bfloat16, begun=20)
    snapshot = Snapshot(model, optimizer)
    disturb(model, optimizer)
    snapshot.restore()
    assert fingerprint(model, optimizer) == fingerprint(twin, other)
    train(model, optimizer, range(50, 52))
    train(twin, other, range(50, 52))
    assert fingerprint(model, optimizer) == fingerprint(twin, other)


@pytest.mark.parametrize("name", ["lion-int8", "prodigy", "muon", "adamw-reference"])
def test_tensors_stay_where_they_are_and_batches_are_kept(name):
    model, optimizer = make(name, begun=2)
    places = [(t, t.data_ptr()) for t in [*model.parameters(), *model.buffers()]]
    places += [(t, t.data_ptr()) for state in optimizer.state.values() for t in state.values()]
    snapshot, epoch = Snapshot(model, optimizer), optimizer.state.epoch.count
    disturb(model, optimizer)
    snapshot.restore()
    assert optimizer.state.epoch.count == epoch
    assert all(t.data_ptr() == place for t, place in places)


def test_gradients_are_the_same_tensors_and_none_stays_none():
    model = nn.Linear(3, 2)
    model.weight.grad = kept = torch.ones(2, 3)
    snapshot = Snapshot(model)
    kept.zero_()
    model.weight.grad, model.bias.grad = None, torch.ones(2)
    snapshot.restore()
    assert model.weight.grad is kept
    assert torch.equal(kept, torch.ones(2, 3))
    assert model.bias.grad is None


def test_replaced_and_expanded_buffers_come_back():
    model = nn.Module()
    model.register_buffer("count", torch.zeros(()))
    model.register_buffer("same", torch.ones(1).expand(4))
    own = dict(model.named_buffers())
    snapshot = Snapshot(model)
    model.count = model.count + 1
    model.same = torch.zeros(4)
    model.register_buffer("late", torch.zeros(2))
    snapshot.restore()
    assert dict(model.named_buffers()).keys() == own.keys()
    assert all(tensor is own[name] for name, tensor in model.named_buffers())
    assert model.count == 0
    assert torch.equal(model.same, torch.ones(4))


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = [0]

    def get_extra_state(self):
        return self.calls

    def set_extra_state(self, state):
        self.calls = state


def test_extra_state_is_copied():
    model = Counting()
    snapshot = Snapshot(model)
    for _ in range(2):
        model.calls[0] += 1
        snapshot.restore()
        assert model.calls == [0]


def test_other_parts_by_their_state_dict():
    model, optimizer = make("adamw-reference")
    ema = EMA(model, 0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    before = fingerprint(ema.state_dict(), scheduler.state_dict())
    snapshot = Snapshot(model, optimizer, ema, scheduler, None)
    for step in range(3):
        train(model, optimizer, range(step, step + 1))
        ema.update()
        scheduler.step()
    snapshot.restore()
    assert fingerprint(ema.state_dict(), scheduler.state_dict()) == before


def test_a_scaled_step_cut_in_two_can_be_begun_anew():
    model, scaler = nn.Linear(4, 2), torch.amp.GradScaler("cpu", init_scale=8.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    snapshot = Snapshot(model, optimizer, scaler)
    for _ in range(2):
        scaler.scale(model(torch.ones(1, 4)).sum()).backward()
        scaler.unscale_(optimizer)
        snapshot.restore()
    assert scaler.get_scale() == 8.0


def test_a_fused_step_cut_in_two_can_be_begun_anew():
    model, optimizer = make("adamw-fused-backward")
    snapshot = Snapshot(model, optimizer)
    for _ in range(2):
        model(torch.ones(2, 64)).sum().backward()
        snapshot.restore()


GENERATORS = {"torch": torch.Generator(), "python": random.Random(3), "numpy": np.random.default_rng(3)}


@pytest.mark.parametrize("generator", GENERATORS.values(), ids=GENERATORS)
def test_generators_are_rewound(generator):
    def draw():
        if isinstance(generator, torch.Generator):
            return torch.rand(1, generator=generator).item()
        return float(generator.random())

    snapshot = Snapshot(generator)
    first = [draw() for _ in range(3)]
    for _ in range(2):
        snapshot.restore()
        assert [draw() for _ in range(3)] == first


class Wrapped(torch.optim.Optimizer):
    """An optimizer around another, as lookahead and sharpness-aware ones are."""

    def __init__(self, base):
        self.base_optimizer = base
        super().__init__(base.param_groups, {})

    def step(self, closure=None):
        return self.base_optimizer.step(closure)


def test_an_optimizer_inside_another_is_kept():
    model, optimizer = make("torch-adamw", begun=3)
    outer, before = Wrapped(optimizer), fingerprint(model, optimizer)
    snapshot = Snapshot(model, outer)
    train(model, outer, range(5))
    snapshot.restore()
    assert fingerprint(model, optimizer) == before


def test_evaluating_averages_are_a_state_too():
    model, optimizer = make("schedule_free_adamw", begun=5)
    optimizer.eval()
    before = fingerprint(model, optimizer)
    snapshot = Snapshot(model, optimizer)
    optimizer.train()
    train(model, optimizer, range(3))
    snapshot.restore()
    assert fingerprint(model, optimizer) == before
    with pytest.raises(InputError, match="after eval"):
        optimizer.step()


@pytest.fixture(scope="module")
def mesh():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


@pytest.mark.parametrize("name", ["adamw", "lion", "muon"])
def test_sharded_parameters_and_state(name, mesh):
    torch.manual_seed(0)
    parameters = [nn.Parameter(distribute_tensor(torch.randn(6, 4), mesh, [Shard(0)])) for _ in range(2)]
    model = nn.ParameterList(parameters)
    optimizer = get_optimizer(name)(parameters)

    def step(seed):
        torch.manual_seed(seed)
        for p in parameters:
            p.grad = distribute_tensor(torch.randn(6, 4), mesh, [Shard(0)])
        optimizer.step()

    step(1)
    before = fingerprint(model, optimizer)
    snapshot = Snapshot(model, optimizer)
    step(2)
    after = fingerprint(model, optimizer)
    snapshot.restore()
    assert fingerprint(model, optimizer) == before
    step(2)
    assert fingerprint(model, optimizer) == after


def test_what_has_no_state_is_refused():
    with pytest.raises(InputError, match=r"object cannot be kept.*state_dict"):
        Snapshot(nn.Linear(2, 2), object())


def test_lazy_modules_are_refused():
    with pytest.raises(InputError, match="Run one batch"):
        Snapshot(nn.LazyLinear(3))


@pytest.mark.parametrize("begun", [0, 20])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_taken_again_it_keeps_what_is_there_now(name, begun):
    model, optimizer = make(name, begun=begun)
    snapshot = Snapshot(model, optimizer)
    for steps in (1, 3):
        train(model, optimizer, range(steps))
        before = fingerprint(model, optimizer)
        snapshot.retake()
        for _ in range(2):
            disturb(model, optimizer)
            snapshot.restore()
            assert fingerprint(model, optimizer) == before


@pytest.mark.parametrize("name", ["adamw-reference", "lion-int8", "adamw-factored", "torch-adamw", "muon", "prodigy"])
def test_the_same_memory_is_used_again(name):
    model, optimizer = make(name, begun=3)
    snapshot = Snapshot(model, optimizer, gradients=False)
    other = snapshot.another()
    places = [copy.data_ptr() for one in (snapshot, other) for copy in one._copies.copies]
    train(model, optimizer, range(4))
    first = fingerprint(model.state_dict())
    snapshot.retake()
    train(model, optimizer, range(2))
    second = fingerprint(model.state_dict())
    other.retake()
    assert [copy.data_ptr() for one in (snapshot, other) for copy in one._copies.copies] == places
    for one, expected in ((snapshot, first), (other, second), (snapshot, first)):
        one.restore()
        assert fingerprint(model.state_dict()) == expected


def replaced_parameter(model):
    model[0].weight = nn.Parameter(torch.ones(64, 64))


def moved_data(model):
    model[0].weight.data = torch.full((64, 64), 2.0)


def another_buffer(model):
    model[1].register_buffer("late", torch.zeros(3))


def another_module(model):
    model.append(nn.Linear(3, 3))


@pytest.mark.parametrize("change", [replaced_parameter, moved_data, another_buffer, another_module])
def test_a_change_of_structure_is_noticed(change):
    model, optimizer = make("adamw-reference", begun=2)
    snapshot = Snapshot(model, optimizer, gradients=False)
    change(model)
    snapshot.retake()
    before = fingerprint(model.state_dict())
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.zero_()
    snapshot.restore()
    assert fingerprint(model.state_dict()) == before


def test_gradients_can_be_left_out():
    model = nn.Linear(3, 2)
    model.weight.grad = torch.ones(2, 3)
    whole, part = Snapshot(model), Snapshot(model, gradients=False)
    assert whole.nbytes - part.nbytes == model.weight.nbytes
    model.weight.grad = grad = torch.zeros(2, 3)
    part.restore()
    assert model.weight.grad is grad


def test_the_contents_of_one_tensor_can_be_asked_for():
    model = nn.Linear(3, 2)
    snapshot = Snapshot(model)
    before = model.weight.detach().clone()
    with torch.no_grad():
        model.weight.zero_()
    assert torch.equal(snapshot.copy_of(model.weight), before)
    assert snapshot.copy_of(torch.zeros(1)) is None
