"""Activation checkpointing: the same training to the bit, whatever else is switched on; less is kept."""

import functools

import pytest
import torch
from torch import nn
from torch.nn import functional

from ava.bench.activations import Counted
from ava.data.source import TokenSpec
from ava.errors import InputError
from ava.models.gpt import GPT
from ava.training.memory_saving import KEPT, _draws, checkpoint_activations
from ava.training.step import training_step
from tests.training.helpers import small_run

GPT_SMALL = ["task=stdlib_lm", "data.context=16", "model.preset=null", "model.layers=3", "model.width=16",
             "model.heads=2", "trainer.batch_size=4"]  # fmt: skip
CASES = {
    "dropout": [*GPT_SMALL, "model.dropout=0.2"],
    "dropout, bf16": [*GPT_SMALL, "model.dropout=0.2", "precision=bf16"],
    "micro-batches, fp16": [*GPT_SMALL, "trainer.accumulate=2", "precision=fp16"],
    "vit": ["model=vit", "model.width=16", "model.layers=2", "model.heads=2", "model.dropout=0.1"],
    "resnet, batch norm": ["model=resnet", "model.layers=10", "model.width=8", "model.norm=batch"],
    "convnet": ["model.width=8"],
    "mlp": ["model=mlp"],
    "surgery": ["task=digits_multitask", "model=mlp", "surgery=pcgrad", "surgery.level=parameters"],
    "surgery of features": ["task=digits_multitask", "model=mlp", "surgery=pcgrad", "surgery.level=features"],
    "fused backward": [*GPT_SMALL, "optimizer.fused_backward=true", "trainer.clip=none"],
    "sam": [*GPT_SMALL, "optimizer.sam_rho=0.05"],
    "second derivatives": [*GPT_SMALL, "optimizer=sophia", "optimizer.estimator=hutchinson"],
    "every layer watched": [*GPT_SMALL, "health.detail_every=1"],
    "anomalies watched": [*GPT_SMALL, "health.anomaly=true"],
}
HOW = [True, 2, "selective"]
SEVERAL_PASSES = ("surgery", "second derivatives")
"""What torch's selective contexts are not made for; the configuration refuses it."""


def after_two_steps(how, overrides):
    run, _ = small_run(*overrides)
    checkpoint_activations(run.model, how)
    torch.manual_seed(3)
    run.network.train()
    for window, _ in zip(run.loader.windows(run.position), range(2), strict=False):
        report = training_step(run, window)
    return [*run.model.parameters(), *run.model.buffers(), *report.losses.values(), report.health.norm]


@functools.cache
def without(case):
    return after_two_steps(False, CASES[case])


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("case", CASES)
def test_the_same_training_to_the_bit(case, how):
    if how == "selective" and case in SEVERAL_PASSES:
        with pytest.raises(RuntimeError, match="only allowed to backward once"):
            after_two_steps(how, CASES[case])
        return
    assert all(map(torch.equal, after_two_steps(how, CASES[case]), without(case)))


def gpt(how=False, dropout=0.0):
    torch.manual_seed(0)
    model = GPT(TokenSpec(50, 32), preset=None, layers=4, heads=2, width=32, dropout=dropout)
    checkpoint_activations(model, how)
    return model


def kept(how):
    """Bytes that the forward pass leaves for the backward pass."""
    model, tokens = gpt(how), torch.randint(50, (4, 32))
    with Counted() as counted:
        loss = functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten())
        left = counted.held
    loss.backward()
    return left


def test_less_is_kept():
    found = {how: kept(how) for how in (False, True, 1, "full", 2, 3, 4, "selective")}
    assert found[True] == found["full"] == found[1]
    assert found[True] < 0.3 * found[False]
    assert found[1] < found[2] < found[3] == found[4] < found[False]
    assert found[True] < found["selective"] < 0.75 * found[False]


def test_names_evaluation_and_copies_are_untouched():
    plain, saved = gpt(), gpt("selective")
    assert plain.state_dict().keys() == saved.state_dict().keys()
    tokens = torch.randint(50, (2, 8))
    with torch.no_grad():
        assert torch.equal(plain.eval()(tokens), saved.eval()(tokens))


@pytest.mark.parametrize("how", HOW)
def test_one_hook_more_in_the_second_run_leaves_statistics_alone(how):
    """Without care, a recomputed BatchNorm would count every batch twice."""
    norm = nn.BatchNorm1d(3)
    model = nn.Module()
    model.blocks = nn.ModuleList([nn.Identity(), nn.Sequential(nn.Linear(3, 3), norm, nn.Tanh(), nn.Linear(3, 3))])
    checkpoint_activations(model, how)
    model.blocks[1](torch.randn(5, 3, requires_grad=True)).sum().backward()
    assert norm.num_batches_tracked == 1


def test_selective_keeps_results_and_computes_no_product_twice():
    calls = []

    class Products(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            calls.extend([func] if func._schema.name in KEPT else [])
            return func(*args, **(kwargs or {}))

    counts = {}
    for how in (False, "selective", True):
        model, tokens = gpt(how), torch.randint(50, (2, 8))
        calls.clear()
        with Products():
            model(tokens).sum().backward()
        counts[how] = len(calls)
    assert counts[False] == counts["selective"] < counts[True]


def test_attention_that_drops_out_is_not_kept():
    schema = torch.ops.aten._scaled_dot_product_efficient_attention.default._schema
    q = torch.zeros(1)
    assert _draws(schema, (q, q, q, None, True, 0.1), {})
    assert _draws(schema, (q, q, q, None, True), {"dropout_p": 0.1})
    assert not _draws(schema, (q, q, q, None, True), {})
    assert not _draws(torch.ops.aten.mm.default._schema, (q, q), {})


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (5, "recomputes one block in 5, and GPT has 4. Give a number from 1"),
        (0, "must be true, false, a number from 1, full or selective"),
        ("all", "trainer.activation_checkpointing=all: must be true, false"),
    ],
)
def test_refuses_what_it_cannot_do(how, told):
    with pytest.raises(InputError, match=told.replace("(", r"\(")):
        gpt(how)


@pytest.mark.parametrize("blocks", [None, nn.ModuleList()], ids=["none", "empty"])
def test_refuses_a_model_without_blocks(blocks):
    model = nn.Linear(2, 2)
    model.blocks = blocks
    with pytest.raises(InputError, match="Linear has no `blocks`"):
        checkpoint_activations(model)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", HOW)
def test_compiled_up_to_rounding(how):
    """The compiler fuses other operations where it recomputes."""
    overrides = [*GPT_SMALL, "trainer.compile=true"]
    expected, found = after_two_steps(False, overrides), after_two_steps(how, overrides)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
