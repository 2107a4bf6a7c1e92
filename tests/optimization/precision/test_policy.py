"""The precision policy, and what a device can do."""

from __future__ import annotations

import pytest
import torch

from ava.errors import InputError
from ava.optimization import Policy
from ava.optimization.precision.policy import bf16_parameters
from ava.optimization.precision.support import NAMES, choose, obstacle, supported

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_products_run_in_the_policys_type(name, dtype):
    layer = torch.nn.Linear(2, 2)
    with Policy(name, "cpu").autocast():
        assert layer(torch.ones(1, 2)).dtype is dtype
    assert layer(torch.ones(1, 2)).dtype is torch.float32


@pytest.mark.parametrize(
    ("name", "device", "says"),
    [
        ("fp17", "cpu", "fp32, tf32, bf16, fp16, fp8"),
        ("bf16", "meta", "it supports: fp32"),
        ("fp16", "meta", "it supports: fp32"),
        ("tf32", "cpu", "Ampere.*it supports: fp32, bf16, fp16"),
        ("fp8", "cpu", "8.9.*MI300.*it supports: fp32, bf16, fp16.*emulate=true"),
    ],
)
def test_what_cannot_be_is_refused(name, device, says):
    with pytest.raises(InputError, match=says):
        Policy(name, device)


def test_emulation_is_what_fp8_needs_on_a_processor():
    assert Policy("fp8", "cpu", emulate=True).dtype is torch.bfloat16
    assert obstacle("fp8", CPU, emulate=True) is None


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_choice_is_supported_and_explained(device):
    name, why = choose(torch.device(device))
    assert name in supported(torch.device(device))
    assert why
    assert set(supported(torch.device(device))) <= set(NAMES)


def test_only_float16_has_a_scale():
    assert Policy("bf16", "cpu").scale == 1.0
    policy = Policy("fp16", "cpu", init_scale=8.0)
    assert float(policy.scale) == 8.0
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.full((2,), 8.0)
    policy.unscale_([weight])
    assert torch.equal(weight.grad, torch.ones(2))
    reading = policy.update(True, torch.ones(()))
    assert (float(reading.scale), float(policy.scale)) == (8.0, 4.0)
    other = Policy("fp16", "cpu")
    other.load_state_dict(policy.state_dict())
    assert float(other.scale) == 4.0
    assert Policy("bf16", "cpu").state_dict() == {}


def test_batch_norm_and_buffers_keep_float32():
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.GroupNorm(2, 4))
    model.register_buffer("table", torch.full((2,), 1 / 3))
    bf16_parameters(model)
    kinds = [{t.dtype for t in layer.state_dict().values() if t.is_floating_point()} for layer in model]
    assert kinds == [{torch.bfloat16}, {torch.float32}, {torch.bfloat16}]
    assert torch.equal(model.table, torch.full((2,), 1 / 3))
    with Policy("bf16", "cpu").autocast():
        model(torch.ones(2, 1, 5, 5)).float().sum().backward()
    assert model[1].weight.grad.dtype is torch.float32


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fp32", {"init_scale": 8.0}),
        ("bf16", {"growth_interval": 5}),
        ("fp16", {"emulate": True}),
        ("fp32", {"bogus": 1}),
    ],
    ids=str,
)
def test_an_option_of_another_policy_is_refused(name, options):
    with pytest.raises(InputError, match="changes nothing"):
        Policy(name, "cpu", **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="sees no GPU"):
        Policy("fp16", "cuda")
