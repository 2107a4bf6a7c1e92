"""What every registered optimizer and schedule keeps to: a new one is tested by existing."""

from __future__ import annotations

import copy
import inspect
import io
import pickle
import typing
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from ava import registry
from ava.errors import InputError
from ava.optimization import SchedulerFactory, get_optimizer, list_optimizers, list_schedulers, state_bytes
from ava.optimization.learning_rate import course
from ava.optimization.optimizers import composition
from ava.optimization.optimizers.sentence import own_slots
from tests.optimization.optimizers.oracles import parameters, set_gradients, two_groups

CONF = Path(__file__).parents[3] / "conf"
each = pytest.mark.parametrize("name", list_optimizers())
pytestmark = pytest.mark.filterwarnings("ignore:.*never given an estimate")  # Sophia is stepped without one here
ENGINES = pytest.mark.parametrize("engine", ["auto", "reference"])


def train(optimizer, params, first, last):
    for step in range(first, last):
        set_gradients(params, step)
        optimizer.step()


@each
@pytest.mark.parametrize("schedule", list_schedulers())
def test_every_pair_constructs_and_steps(name, schedule):
    params = parameters(torch.float32)
    optimizer = get_optimizer(name)(params)
    scheduler = SchedulerFactory.create(schedule, optimizer, 8, warmup_steps=2)
    before = [p.detach().clone() for p in params]
    for step in range(10):
        set_gradients(params, step)
        optimizer.step()
        scheduler.step()
    assert all(p.isfinite().all() and not torch.equal(p, b) for p, b in zip(params, before, strict=True))


@each
@ENGINES
def test_gradient_is_left_alone(name, engine):
    params = parameters()
    optimizer = get_optimizer(name)(params, engine=engine)
    set_gradients(params, 0)
    gradients = [(p.grad, p.grad.clone()) for p in params]
    optimizer.step()
    for p, (same, value) in zip(params, gradients, strict=True):
        assert p.grad is same
        assert torch.equal(same, value)


@each
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_every_engine_equals_the_reference(name, dtype, weight_decay):
    fast, slow = parameters(dtype), parameters(dtype)
    second = {"lr": 3e-3, "weight_decay": weight_decay}
    a = get_optimizer(name)(two_groups(fast, **second), lr=1e-2)
    b = get_optimizer(name)(two_groups(slow, **second), lr=1e-2, engine="reference")
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype]
    for step in range(20 if dtype != torch.bfloat16 else 1):
        set_gradients(fast, step)
        for p, q in zip(fast, slow, strict=True):
            q.grad = p.grad.clone()
        a.step()
        b.step()
    for p, q in zip(fast, slow, strict=True):
        torch.testing.assert_close(p, q, rtol=tolerance, atol=tolerance)


@each
@ENGINES
@pytest.mark.parametrize("skipped", [0, 3], ids=["first", "later"])
def test_found_inf_changes_nothing(name, engine, skipped):
    """A skipped step leaves no trace: training goes on as if it had not been."""
    params, twins = parameters(), parameters()
    optimizer, twin = (get_optimizer(name)(ps, engine=engine) for ps in (params, twins))
    optimizer.found_inf = twin.found_inf = torch.tensor(0.0)
    train(optimizer, params, 0, skipped)
    optimizer.found_inf = torch.tensor(2.0)
    for p in params:
        p.grad = torch.full_like(p, float("nan"))
    optimizer.step()
    optimizer.found_inf = torch.tensor(0.0)
    train(optimizer, params, skipped, 8)
    train(twin, twins, 0, 8)
    for p, q in zip(params, twins, strict=True):
        assert torch.equal(p, q)
        assert all(torch.equal(optimizer.state[p][key], twin.state[q][key]) for key in twin.state[q])


@each
@ENGINES
def test_grad_scale_divides_the_gradient(name, engine):
    params, twins = parameters(), parameters()
    optimizer, twin = (get_optimizer(name)(ps, engine=engine) for ps in (params, twins))
    optimizer.grad_scale = torch.tensor(1024.0)
    for step in range(5):
        set_gradients(params, step)
        for p, q in zip(params, twins, strict=True):
            q.grad, p.grad = p.grad.clone(), p.grad * 1024
        scaled = [p.grad.clone() for p in params]
        optimizer.step()
        twin.step()
    for p, q, g in zip(params, twins, scaled, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)
        if engine == "reference":
            assert torch.equal(p.grad, g)


@each
def test_grad_scaler_skips_and_unscales(name):
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    params = parameters(torch.float32)
    optimizer = get_optimizer(name)(params)
    before = [p.detach().clone() for p in params]
    scaler.scale(sum(p.sum() for p in params)).backward()
    params[0].grad[0, 0] = float("inf")
    scaler.step(optimizer)
    scaler.update()
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))
    assert scaler.get_scale() == 2.0


@each
@ENGINES
def test_resume_is_bitwise(name, engine):
    params, twins = parameters(torch.float32), parameters(torch.float32)
    optimizer = get_optimizer(name)(two_groups(params, lr=1e-3), engine=engine)
    train(optimizer, params, 0, 5)
    file = io.BytesIO()
    torch.save({"weights": params, "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    with torch.no_grad():
        for q, value in zip(twins, loaded["weights"], strict=True):
            q.copy_(value)
    twin = get_optimizer(name)(two_groups(twins, lr=0.5), engine=engine)
    twin.load_state_dict(loaded["optimizer"])
    train(optimizer, params, 5, 10)
    train(twin, twins, 5, 10)
    assert all(torch.equal(p, q) for p, q in zip(params, twins, strict=True))
    assert twin.param_groups[1]["lr"] == 1e-3


@each
@pytest.mark.parametrize(
    "clone", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))], ids=["copy", "pickle"]
)
def test_copies_train_alike_and_apart(name, clone):
    params = parameters()
    optimizer = get_optimizer(name)(params, engine="reference")
    train(optimizer, params, 0, 3)
    twins, twin = clone((params, optimizer))
    assert type(twin) is type(optimizer)
    assert twin.engine == "reference"
    train(optimizer, params, 3, 6)
    assert not torch.equal(params[0], twins[0])
    train(twin, twins, 3, 6)
    assert all(torch.equal(p, q) for p, q in zip(params, twins, strict=True))


@each
def test_closure_returns_the_loss(name):
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = get_optimizer(name)([p])

    def closure():
        optimizer.zero_grad()
        loss = (p**2).sum()
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(3)]
    assert losses[2] < losses[0] == 3.0


@each
def test_named_parameters_and_late_groups(name):
    model = torch.nn.Linear(3, 2)
    optimizer = get_optimizer(name)(model.named_parameters())
    assert optimizer.param_groups[0]["param_names"] == ["weight", "bias"]
    late = torch.nn.Parameter(torch.ones(2))
    optimizer.add_param_group({"params": [("late", late)], "lr": 0.5})
    late.grad = torch.ones(2)
    optimizer.step()
    optimizer.step()  # the first one of ADOPT's moves nothing
    assert not torch.equal(late, torch.ones(2))
    assert set(optimizer.state) <= {late}
    with pytest.raises(InputError, match="lr"):
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))], "lr": float("nan")})
    assert len(optimizer.param_groups) == 2


@each
def test_state_is_what_the_sentence_says(name):
    params = parameters(torch.float32)
    optimizer = get_optimizer(name)(params, state="dense")
    assert state_bytes(optimizer) == 0
    train(optimizer, params, 0, 1)
    matrices, others = optimizer._grammar.sentences(optimizer.param_groups[0])
    for p in params:
        own = own_slots(matrices if p.ndim >= 2 else others)
        state = {key: value for key, value in optimizer.state[p].items() if key != "step"}
        assert state.keys() == {slot.name for slot in own}
        assert all(state[slot.name].shape == p.shape for slot in own if slot.shape == "full")
    held = [v for state in optimizer.state.values() for v in state.values() if v.dim()]
    assert state_bytes(optimizer) == sum(4 * v.numel() for v in held) / sum(p.numel() for p in params)


@each
def test_signature_is_the_builders(name):
    parameters_ = list(inspect.signature(get_optimizer(name)).parameters.items())
    assert parameters_[0][0] == "params"
    assert parameters_[-1][0] == "engine"
    assert {k: p.default for k, p in parameters_[1:-1]} == registry.optimizer[name].defaults
    with pytest.raises(TypeError, match="weight_dcay"):
        get_optimizer(name)(parameters(), weight_dcay=0.1)


@each
@pytest.mark.parametrize(
    "bad",
    [
        {"lr": -1e-3}, {"lr": float("nan")}, {"lr": float("inf")}, {"lr": "fast"}, {"lr": None}, {"lr": True},
        {"lr": torch.tensor(-1.0)}, {"lr": torch.tensor(float("nan"))}, {"lr": torch.ones(2)},
        {"weight_decay": -0.1}, {"engine": "warp"},
    ],
    ids=str,
)  # fmt: skip
def test_impossible_values_are_refused(name, bad):
    if bad == {"lr": None} and type(None) in typing.get_args(registry.optimizer[name].parameters["lr"][0]):
        pytest.skip("it can find its rate itself")
    with pytest.raises(InputError, match=next(iter(bad))):
        get_optimizer(name)(parameters(), **bad)


@each
def test_unusable_tensors_are_refused(name):
    with pytest.raises(InputError, match="complex64"):
        get_optimizer(name)([torch.nn.Parameter(torch.ones(2, dtype=torch.complex64))])
    embedding = torch.nn.Embedding(4, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(InputError, match="dense"):
        get_optimizer(name)(embedding.parameters()).step()


@each
@ENGINES
def test_tensor_learning_rate(name, engine):
    params, twins = parameters(), parameters()
    tensor = torch.tensor(0.125, dtype=torch.float64)
    train(get_optimizer(name)(params, lr=tensor, engine=engine), params, 0, 5)
    train(get_optimizer(name)(twins, lr=0.125, engine=engine), twins, 0, 5)
    for p, q in zip(params, twins, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)


@each
@ENGINES
def test_nothing_is_read_back_from_the_device(name, engine):
    """Tensors of the meta device have no values: whoever asks for one fails."""
    params = [torch.nn.Parameter(torch.empty(3, 2, device="meta")), torch.nn.Parameter(torch.empty(2, device="meta"))]
    optimizer = get_optimizer(name)(params, engine=engine)
    for scalars in ({}, {"found_inf": torch.empty((), device="meta"), "grad_scale": torch.empty((), device="meta")}):
        vars(optimizer).update(scalars)
        for p in params:
            p.grad = torch.empty_like(p)
        optimizer.step()
    assert all(value.is_meta for state in optimizer.state.values() for value in state.values())


@each
def test_foreign_shapes_are_refused_before_anything_changes(name):
    params = parameters()
    optimizer = get_optimizer(name)(params)
    train(optimizer, params, 0, 2)
    other = [torch.nn.Parameter(torch.ones(1, 2)) for _ in range(3)]
    target = get_optimizer(name)(other)
    with pytest.raises(InputError, match="shape"):
        target.load_state_dict(optimizer.state_dict())
    assert not target.state


@pytest.mark.parametrize("sort", ["optimizer", "scheduler"])
def test_yaml_equals_the_signature(sort):
    entries = registry.REGISTRIES[sort + "s"]
    files = {path.stem: path for path in (CONF / sort).glob("[!_]*.yaml")}
    builtin = [entry for entry in entries if entry.module.startswith("ava.")]
    assert set(files) == {entry.name for entry in builtin}
    for entry in builtin:
        text = files[entry.name].read_text()
        listed = {*entry.own, *entry.tags.get("defaults", {})}  # and what differs from the shared file
        expected = {k: v for k, v in entry.defaults.items() if k in listed}
        assert read_yaml(text) == {"name": entry.name, **spelled(expected)}
        assert text.startswith("#")


@pytest.mark.parametrize(("sort", "extend"), [("optimizer", composition.extend), ("scheduler", course.extend)])
def test_the_shared_yaml_equals_the_signature_of_extend(sort, extend):
    signature = inspect.signature(extend).parameters
    expected = {name: p.default for name, p in signature.items() if p.kind is not p.POSITIONAL_ONLY}
    assert read_yaml((CONF / sort / "_shared.yaml").read_text()) == spelled(expected)


def read_yaml(text):
    """As Hydra does: YAML 1.1 would read 1e-3 as a text."""
    return OmegaConf.to_container(OmegaConf.create(text))


def spelled(options):
    return {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}
