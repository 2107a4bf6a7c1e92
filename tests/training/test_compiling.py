import copy
import itertools

import numpy as np
import pytest
import torch

from ava import rng
from ava.data.loader import Position, TrainingLoader
from ava.errors import InputError
from ava.optimization import get_optimizer
from ava.training.compiling import compile_losses
from ava.training.evaluation import evaluate
from ava.training.step import training_step
from tests.training.helpers import small_run, weights

MODELS = {
    "convnet": ["model.width=8"],
    "mlp": ["model=mlp", "model.width=16"],
    "resnet": ["model=resnet", "model.width=8"],
    "vit": ["model=vit", "model.layers=1", "model.width=16", "model.heads=2"],
    "gpt": ["task=stdlib_lm", "model.preset=null", "model.width=16", "model.layers=1", "model.heads=2",
            "data.context=8"],
}  # fmt: skip


class Few:
    """The first samples of a split."""

    def __init__(self, split, length):
        self.split, self.length = split, length

    def __len__(self):
        return self.length

    def fetch(self, indices, epoch):
        return self.split.fetch(indices, epoch)


def run_of(model, *overrides, samples=21, batch_size=8, accumulate=3):
    run, _ = small_run("optimizer=adamw", *MODELS[model], *overrides)
    run.loader = TrainingLoader(Few(run.task.data.train, samples), batch_size=batch_size, accumulate=accumulate)
    run.network.train()
    return run


def compiled(run, backend="aot_eager", mode="default"):
    run.network, run.compilation = compile_losses(run, mode, backend)
    return run


def losses(run, steps):
    windows = itertools.islice(run.loader.windows(Position()), steps)
    return [float(training_step(run, window).losses["loss"]) for window in windows]


@pytest.mark.parametrize("model", ["convnet", "mlp", "vit", "gpt"])
def test_nothing_is_compiled_after_the_start(model):
    """Over two epochs of windows of 8, 8 and 5 in three parts: 3, 3, 2 and 2, 2, 1 samples."""
    run = compiled(run_of(model, "scheduler=onecycle", "trainer.ema_decay=0.9"), backend="eager")
    losses(run, 6)
    assert run.compilation.recompiles == 0
    assert run.compilation.graph_breaks == 0


@pytest.mark.parametrize("overrides", [["optimizer.sam_rho=0.05"], ["trainer.activation_checkpointing=true"],
                                       ["precision=bf16"], ["health.detail_every=2"]],
                         ids=["sam", "checkpointing", "bf16", "detail"])  # fmt: skip
def test_what_stands_around_it_recompiles_nothing(overrides):
    run = compiled(run_of("mlp", *overrides), backend="eager")
    losses(run, 3)
    evaluate(run)
    losses(run, 3)
    assert run.compilation.recompiles == 0


def test_what_the_plan_does_not_name_is_counted():
    run = compiled(run_of("mlp"), backend="eager")
    batch = run.loader.split.fetch(np.arange(3), 0)
    run.network(batch)
    assert run.compilation.recompiles == 0
    run.network(batch | {"inputs": batch["inputs"].requires_grad_()})
    assert run.compilation.recompiles == 1


@pytest.mark.parametrize(
    ("model", "precision", "backend"),
    [
        ("mlp", "fp32", "aot_eager"),
        ("mlp", "bf16", "aot_eager"),
        ("convnet", "fp32", "eager"),
        ("gpt", "bf16", "eager"),
    ],
)
def test_compiled_equals_eager(model, precision, backend):
    plain = losses(run_of(model, f"precision={precision}"), 20)
    run = compiled(run_of(model, f"precision={precision}"), backend)
    assert losses(run, 20) == pytest.approx(plain, rel=1e-3 if precision == "fp32" else 3e-2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*script_method.*:DeprecationWarning")
@pytest.mark.parametrize("model", ["convnet", "mlp", "gpt", "vit"])
def test_inductor_equals_eager(model):
    plain = losses(run_of(model), 20)
    run = compiled(run_of(model), backend="inductor")
    assert losses(run, 20) == pytest.approx(plain, rel=1e-3)
    assert run.compilation.recompiles == 0


def test_compiling_changes_nothing_of_the_run():
    """Batch norm counts samples, and dropout draws numbers."""
    run = run_of("resnet", "model.norm=batch", samples=8, accumulate=1)
    before, random = copy.deepcopy(run.model.state_dict()), rng.capture()
    compiled(run, backend="eager")
    assert all(torch.equal(value, before[name]) for name, value in run.model.state_dict().items())
    assert torch.equal(rng.capture()["torch"], random["torch"])
    assert all(p.grad is None for p in run.parameters)
    assert run.is_compiled
    assert not any("_orig_mod" in name for name in run.model.state_dict())


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_compiling_leaves_delayed_scales_as_they_were():
    """The stand-ins' values are not those of a training."""
    options = ("precision=fp8", "precision.recipe=delayed", "precision.emulate=true")
    run, _ = small_run("model=mlp", *options)
    before = copy.deepcopy(run.policy.state_dict())
    compiled(run, backend="eager")
    after = run.policy.state_dict()
    assert str(before) == str(after)


@pytest.mark.parametrize("samples", [7, 16, 33, 64])
@pytest.mark.parametrize(("batch_size", "accumulate", "ranks"), [(8, 1, 1), (8, 3, 1), (32, 5, 2), (5, 5, 3)])
def test_the_plan_names_every_size(samples, batch_size, accumulate, ranks):
    for rank in range(ranks):
        loader = TrainingLoader(
            Few(None, samples), batch_size=batch_size, accumulate=accumulate, rank=rank, world_size=ranks
        )
        plans = itertools.islice(loader.plans(Position()), loader.steps_per_epoch)
        met = {len(share) for plan in plans for share in plan.shares}
        assert set(loader.batch_sizes()) == met


def _broken(graph, inputs):
    raise RuntimeError("no such instruction\nand two hundred lines more")


def test_what_cannot_be_compiled_is_told_in_one_line():
    with pytest.raises(InputError, match=r"trainer.compile=true: .* no such instruction") as caught:
        compile_losses(run_of("mlp"), backend=_broken)
    assert "\n" not in str(caught.value)
    assert "trainer.compile=false" in str(caught.value)


@pytest.mark.filterwarnings("ignore:.*script_method.*:DeprecationWarning")
def test_without_a_compiler_the_remedy_is_named():
    from torch._inductor import config

    with (
        config.patch({"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True}),
        pytest.raises(InputError, match=r"needs a C\+\+ compiler.*Install g\+\+"),
    ):
        compile_losses(run_of("mlp"), backend="inductor")


@pytest.mark.parametrize("engine", ["auto", "reference"])
def test_a_compiled_training_step_with_our_optimizer(engine):
    """The graph breaks at the optimizer, also with a changing rate; the numbers are the same."""
    results = []
    inputs, targets = torch.randn(8, 6, generator=torch.Generator().manual_seed(0)), torch.zeros(8, 3)
    for is_compiled in (False, True):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.GELU(), torch.nn.Linear(8, 3))
        optimizer = get_optimizer("adamw")(model.parameters(), lr=1e-2, engine=engine)

        def step(model=model, optimizer=optimizer):
            loss = (model(inputs) - targets).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        call = torch.compile(step, backend="eager") if is_compiled else step
        for _ in range(4):
            call()
            optimizer.param_groups[0]["lr"] *= 0.9
        results.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*results)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*script_method.*:DeprecationWarning")
@pytest.mark.parametrize("mode", ["reduce-overhead", "max-autotune"])
def test_other_modes_equal_eager(mode):
    plain = losses(run_of("mlp"), 6)
    run = compiled(run_of("mlp"), "inductor", mode)
    assert run.is_compiled
    assert losses(run, 6) == pytest.approx(plain, rel=1e-3)
    assert run.compilation.recompiles == 0


def test_weights_are_those_of_the_model():
    run = compiled(run_of("mlp"))
    before = weights(run)
    losses(run, 1)
    assert not torch.equal(weights(run), before)
    assert np.isfinite(weights(run).numpy()).all()
