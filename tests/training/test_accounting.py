"""What a training costs is counted without changing it."""

import pytest
import torch
from torch import nn

from ava import rng
from ava.training.accounting import UNKNOWN, Accounting, arithmetic
from ava.training.step import training_step
from tests.training.helpers import small_run, weights

GPT = ("experiment=gpt_stdlib", "model.layers=2", "model.width=32", "model.heads=2", "data.context=64",
       "trainer.batch_size=4", "scheduler.warmup_steps=0")  # fmt: skip


def train(overrides, watched=True, steps=2):
    run, _ = small_run(*overrides)
    run.network.train()
    accounting = Accounting(run)
    for window in run.loader.windows(run.position):
        if watched:
            with accounting.watching(window):
                training_step(run, window)
        else:
            training_step(run, window)
        if run.step == steps:
            return run, accounting
    raise AssertionError


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("precision=bf16",),
        ("trainer.accumulate=2", "trainer.ema_decay=0.9"),
        ("optimizer.sam_rho=0.05",),
        ("task=digits_multitask", "data=digit_pairs", "surgery=pcgrad"),
        ("optimizer.fused_backward=true", "clip=none"),
        ("model=vit", "model.dropout=0.1"),
        GPT,
    ],
    ids=["plain", "bf16", "accumulate", "sam", "surgery", "fused-backward", "dropout", "gpt"],
)
def test_watching_changes_no_number(overrides):
    plain, _ = train(overrides, watched=False)
    random = rng.capture()
    run, accounting = train(overrides)
    assert torch.equal(weights(plain), weights(run))
    assert torch.equal(random["torch"], rng.capture()["torch"])
    assert accounting.flops_per_sample > 0


def test_the_summary_of_a_language_model():
    run, accounting = train(GPT)
    facts = accounting.facts(accounting._start[1] + 2.0)
    width, layers, length, vocabulary = 32, 2, 64, 256
    products = length * (layers * 12 * width**2 + width * vocabulary)
    attention = layers * 2 * length**2 * width
    assert facts["flops_per_sample"] == 3 * 2 * (products + attention)
    assert facts["tokens_per_second"] == 4 * length / 2.0
    assert facts["tflops"] == pytest.approx(facts["flops_per_sample"] * 2 / 1e12)
    assert facts["mfu"] == UNKNOWN
    memory = facts["memory_by_kind"]
    parameters = sum(p.numel() for p in run.model.parameters())
    assert memory["weights"] == memory["gradients"] == 4 * parameters
    assert memory["state"] == pytest.approx(8 * parameters, rel=0.01)
    assert memory["averages"] == 0
    assert memory["activations"] > 4 * 4 * length * vocabulary
    assert "not_measured" not in facts


def test_micro_batches_and_recomputation_keep_less():
    whole = train(GPT, steps=1)[1].memory()["activations"]
    halved = train((*GPT, "trainer.accumulate=2"), steps=1)[1].memory()["activations"]
    recomputed = train((*GPT, "trainer.activation_checkpointing=true"), steps=1)[1].memory()["activations"]
    assert halved < 0.6 * whole
    assert recomputed < 0.7 * whole


def test_averages_are_told_apart():
    run, accounting = train(("trainer.ema_decay=0.9",), steps=1)
    assert accounting.memory()["averages"] == 4 * sum(p.numel() for p in run.model.parameters())


@pytest.mark.parametrize(
    ("overrides", "missing"),
    [
        (("optimizer.fused_backward=true", "clip=none"), {"gradients"}),
        ((), set()),
    ],
    ids=["fused-backward", "plain"],
)
def test_what_is_not_measured_has_a_reason(overrides, missing):
    _, accounting = train(overrides, steps=1)
    facts = accounting.facts(1.0)
    assert set(facts.get("not_measured", {})) == missing
    assert {kind for kind, value in facts["memory_by_kind"].items() if value is None} == missing


def test_without_a_step_nothing_is_known():
    run, _ = small_run()
    facts = Accounting(run).facts(1.0)
    assert facts["mfu"] == UNKNOWN
    assert facts["tflops"] is None
    assert facts["not_measured"]["activations"] == "no step was taken"


class WithTransform(nn.Module):
    """A model that calls torch.func, which refuses hooks on what autograd saves."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, inputs):
        offset = torch.func.grad(lambda x: x.square().sum())(torch.ones(()))
        return self.inner(inputs) + offset


class OnlyBatches(nn.Module):
    """A model that cannot take one sample."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, inputs):
        if len(inputs) < 2:
            raise ValueError("at least two")
        return self.inner(inputs)


@pytest.mark.parametrize(
    ("wrapper", "missing"), [(WithTransform, "activations"), (OnlyBatches, "flops_per_sample")], ids=["func", "batches"]
)
def test_a_model_that_cannot_be_asked_trains_all_the_same(wrapper, missing):
    run, _ = small_run()
    run.model = run.network = wrapper(run.model)
    accounting = Accounting(run)
    window = next(iter(run.loader.windows(run.position)))
    with accounting.watching(window):
        training_step(run, window)
    facts = accounting.facts(1.0)
    assert list(facts["not_measured"]) == [missing]
    assert run.step == 1


@pytest.mark.parametrize(
    ("overrides", "name"), [((), "fp32"), (("precision=bf16",), "bf16")], ids=["fp32", "bf16"]
)  # fmt: skip
def test_the_arithmetic_has_a_name(overrides, name):
    assert arithmetic(small_run(*overrides)[0]) == name


def test_weights_in_bf16_are_bf16_arithmetic():
    run, _ = small_run()
    run.model.bfloat16()
    assert arithmetic(run) == "bf16"
