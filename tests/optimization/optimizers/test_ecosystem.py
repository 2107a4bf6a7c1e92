"""Our optimizers under torch's and other libraries' tools."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import distributed, nn

from ava.optimization import get_optimizer

some = pytest.mark.parametrize(
    "name", ["adamw", "agmohd", "lion", "prodigy", "adafactor", "schedule_free_adamw", "muon"]
)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 2))


INPUTS = torch.randn(24, 6, generator=torch.Generator().manual_seed(1))
TARGETS = INPUTS[:, :2] * 0.5


def train(model, optimizer, steps, call=None):
    for _ in range(steps):
        optimizer.zero_grad()
        ((call or model)(INPUTS) - TARGETS).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("name", ["adamw", "agmohd", "prodigy"])
def test_a_compiled_model(name):
    """A graph of its own for forward and backward: the parameters are the same ones."""
    plain, model = network(), network()
    compiled = torch.compile(model, backend="aot_eager")
    train(plain, get_optimizer(name)(plain.parameters(), lr=1e-2), 4)
    train(model, get_optimizer(name)(compiled.parameters(), lr=1e-2), 4, compiled)
    for p, q in zip(plain.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


@some
def test_embeddings(name):
    """Rows without a gradient follow the rule of a zero gradient; momentum carries them on."""
    embedding = nn.Embedding(10, 8)
    before = embedding.weight.detach().clone()
    optimizer = get_optimizer(name)(embedding.parameters(), lr=1e-2, weight_decay=0.0)
    for _ in range(3):
        optimizer.zero_grad()
        embedding(torch.tensor([1, 3, 3])).square().sum().backward()
        optimizer.step()
    assert not torch.equal(embedding.weight[[1, 3]], before[[1, 3]])
    assert embedding.weight.isfinite().all()
    if name != "muon":  # an orthogonal update spreads over all rows
        assert torch.equal(embedding.weight[[0, 9]], before[[0, 9]])


@pytest.mark.parametrize("state", ["dense", "bf16", "int8", "factored"])
def test_grad_scaler_over_steps_with_and_without_overflow(state):
    model, twin = network(), network()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3)
    optimizer, other = (get_optimizer("adamw")(m.parameters(), state=state) for m in (model, twin))
    for step in range(6):
        optimizer.zero_grad()
        other.zero_grad()
        loss = (model(INPUTS) - TARGETS).square().mean()
        scaler.scale(loss * (float("inf") if step == 2 else 1.0)).backward()
        (twin(INPUTS) - TARGETS).square().mean().backward()
        scaler.step(optimizer)
        scaler.update()
        if step != 2:
            other.step()
    assert optimizer.state[model[0].weight]["step"] == 5
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)


@some
def test_accelerate(name):
    accelerate = pytest.importorskip("accelerate")
    model, plain = network(), network()
    accelerator = accelerate.Accelerator(cpu=True)
    optimizer = get_optimizer(name)(model.parameters(), lr=1e-2)
    prepared, wrapped = accelerator.prepare(model, optimizer)
    for _ in range(3):
        wrapped.zero_grad()
        accelerator.backward((prepared(INPUTS) - TARGETS).square().mean())
        wrapped.step()
    train(plain, get_optimizer(name)(plain.parameters(), lr=1e-2), 3)
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(p, q)


class Regression(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": (self.network(x) - labels).square().mean()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adamw", "agmohd", "lion", "prodigy"])
def test_transformers_trainer(name, tmp_path):
    transformers = pytest.importorskip("transformers")
    data = [{"x": x, "labels": y} for x, y in zip(INPUTS, TARGETS, strict=True)]
    model = Regression()
    optimizer = get_optimizer(name)(model.parameters(), lr=1e-2)
    arguments = transformers.TrainingArguments(
        str(tmp_path), max_steps=4, per_device_train_batch_size=8, use_cpu=True, report_to=[], save_steps=2,
        disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = transformers.Trainer(model, arguments, train_dataset=data, optimizers=(optimizer, None))
        trainer.train()
        steps = 4
        assert trainer.state.global_step == steps
        late = Regression()
        again = transformers.Trainer(
            late, arguments, train_dataset=data, optimizers=(get_optimizer(name)(late.parameters(), lr=1e-2), None)
        )
        again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    for p, q in zip(model.parameters(), late.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.fixture
def alone():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.xdist_group("ranks")
@pytest.mark.parametrize("name", ["adamw", "agmohd", "lion", "adafactor", "prodigy"])
@pytest.mark.parametrize(
    "options", [{}, {"state": "factored"}, {"state": "int8"}], ids=lambda o: o.get("state", "dense")
)
def test_distributed_checkpoints_of_sharded_models(name, options, alone):
    """FSDP2 with torch's own functions for state dicts: training goes on bit for bit."""
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (1,))

    def sharded():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 700), nn.Tanh(), nn.Linear(700, 2))
        fully_shard(model, mesh=mesh)
        return model, get_optimizer(name)(model.parameters(), lr=1e-2, **options)

    (model, optimizer), (twin, other) = sharded(), sharded()
    train(model, optimizer, 3)
    twin.load_state_dict(model.state_dict())
    # Like torch.optim, a dense slot is taken as it is, so both would train the same tensors.
    set_optimizer_state_dict(twin, other, copy.deepcopy(get_optimizer_state_dict(model, optimizer)))
    train(model, optimizer, 3)
    train(twin, other, 3)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p.full_tensor(), q.full_tensor())
        assert optimizer.state[p].keys() == other.state[q].keys()
