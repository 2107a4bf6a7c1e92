"""The handler follows the model's parameters and the loop, whatever becomes of either."""

import copy
import io
import pickle

import pytest
import torch
import torch.distributed as dist
from torch import nn

from ava.optimization import FP8Handler, FP8ModelWrapper, get_optimizer
from tests.optimization.precision.float8.trainings import MLP

ADAMW = {"torch": torch.optim.AdamW, "ava": get_optimizer("adamw")}


def wrapped(**options):
    torch.manual_seed(0)
    return FP8ModelWrapper(MLP(), FP8Handler(emulate=True, device="cpu", **options))


def train(model, optimizer, steps=3, context=True, factor=1.0, scaler=None):
    for _ in range(steps):
        optimizer.zero_grad()
        with model.fp8_handler.context() if context else torch.enable_grad():
            loss = factor * model(torch.randn(16, 32)).float().square().mean()
        if scaler is None:
            loss.backward()
            optimizer.step()
        else:
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()


def num_steps(model):
    """After what was still to be counted."""
    model.fp8_handler.state_dict()
    return model.up.scaling.num_steps


def saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda model: pickle.loads(pickle.dumps(model)), "save": saved}


@pytest.mark.parametrize("context", [True, False], ids=["context", "bare"])
@pytest.mark.parametrize("way", COPIES.values(), ids=COPIES)
def test_a_copy_has_a_handler_of_its_own(way, context):
    model = wrapped()
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), 1)
    twin = way(model)
    assert twin.fp8_handler is not model.fp8_handler
    assert twin.up.weight is twin.wrapped.up.weight is not model.up.weight
    before = num_steps(model), num_steps(twin)
    scale = twin.up.scaling.scale.clone()
    train(twin, torch.optim.SGD(twin.parameters(), lr=0.1), context=context)
    assert (num_steps(model), num_steps(twin)) == (before[0], before[1] + (3 if context else 2))
    assert not torch.equal(twin.up.scaling.scale, scale)


def test_a_copy_of_one_of_two_models_holds_no_other():
    handler = FP8Handler(emulate=True, device="cpu")
    first, _ = FP8ModelWrapper(MLP(), handler), FP8ModelWrapper(MLP(), handler)
    assert len(copy.deepcopy(first).fp8_handler.state_dict()["models"]) == 1
    assert len(copy.deepcopy(handler).state_dict()["models"]) == 2


def test_parameters_that_were_loaded_in_place_of_others():
    model = wrapped()
    model.load_state_dict(MLP().state_dict(), assign=True)
    train(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert num_steps(model) == 3


@pytest.mark.parametrize("context", [True, False], ids=["context", "bare"])
def test_sharded_parameters(context):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        model, mesh = wrapped(), init_device_mesh("cpu", (1,))
        for part in (model.up, model):
            fully_shard(part, mesh=mesh)
        train(model, torch.optim.SGD(model.parameters(), lr=0.1), context=context)
        assert num_steps(model) == 3
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("manual", [False, True], ids=["bare", "step"])
def test_a_loop_without_the_context(manual):
    """Each step of two optimizers is one, and has an entry of its own."""
    model = wrapped()
    optimizers = [torch.optim.SGD(part.parameters(), lr=0.1) for part in (model.up, model.down)]
    amaxes = []
    for step in range(4):
        model(torch.full((16, 32), 1.0 + step)).square().mean().backward()
        amaxes.append(1.0 + step)
        for optimizer in optimizers:
            optimizer.step()
        if manual:
            model.fp8_handler.step()
    assert model.up.scaling.num_steps == 4
    assert model.up.scaling.history[:5, model.up.row, 0].tolist() == [*amaxes[::-1], 0.0]
    assert num_steps(model) == 4


def test_a_loop_that_no_longer_enters_the_context():
    model = wrapped()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train(model, optimizer, 2)
    train(model, optimizer, 3, context=False)
    assert model.up.scaling.num_steps == 4


@pytest.mark.parametrize("context", [True, False], ids=["context", "bare"])
@pytest.mark.parametrize("make", ADAMW.values(), ids=ADAMW)
def test_a_step_that_grad_scaler_skipped_leaves_no_trace(make, context):
    """Ava's optimizers are told to skip; torch's are not called, so finite values join the next step's entry."""
    model = wrapped()
    optimizer, scaler = make(list(model.parameters()), lr=1e-3), torch.amp.GradScaler("cpu", init_scale=4.0)
    train(model, optimizer, 2, context, scaler=scaler)
    weight = model.up.weight.clone()
    num_steps(model)
    history = model.up.scaling.history.clone()
    train(model, optimizer, 1, context, factor=torch.inf, scaler=scaler)
    assert torch.equal(model.up.weight, weight)
    num_steps(model)
    assert torch.equal(model.up.scaling.history, history)
    train(model, optimizer, 1, context, scaler=scaler)
    num_steps(model)
    assert torch.equal(model.up.scaling.history[1:], history[:-1])
    assert model.up.scaling.history[0].gt(0).all()
    assert model.fp8_handler.columns()["fp8/nonfinite"] == 2
    assert "fp8/nonfinite" not in model.fp8_handler.columns()


def test_found_inf_is_heard():
    model = wrapped()
    optimizer = get_optimizer("adamw")(list(model.parameters()), lr=1e-3)
    train(model, optimizer, 2)
    num_steps(model)
    history = model.up.scaling.history.clone()
    optimizer.found_inf = torch.ones(1)
    train(model, optimizer, 1, factor=1000.0)
    optimizer.found_inf = None
    assert num_steps(model) == 3
    assert torch.equal(model.up.scaling.history, history)


@pytest.mark.parametrize("recipe", ["delayed", "tensorwise"])
@torch.no_grad()
def test_torchs_fused_encoder_does_not_read_past_the_layers(recipe):
    if recipe != "delayed":
        pytest.importorskip("torchao")
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, dropout=0.0)
    plain, x = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), torch.randn(2, 8, 32)
    model = FP8ModelWrapper(plain, FP8Handler(emulate=True, device="cpu", recipe=recipe), copy=True)
    train_mode, evaluation = model(x), model.eval()(x)
    torch.testing.assert_close(evaluation, train_mode, rtol=1e-5, atol=1e-5)
    assert 1e-3 < (evaluation - plain.eval()(x)).norm() / evaluation.norm() < 0.1
