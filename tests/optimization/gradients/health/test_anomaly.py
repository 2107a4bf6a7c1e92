"""The first operation that makes a NaN or an infinity is found, and nothing else is blamed."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from ava.optimization.gradients.health.anomaly import AnomalyWatch
from ava.optimization.gradients.health.nonfinite_operation import NonFiniteOperation

INF = math.inf


class Rule(nn.Module):
    """What a function makes of a linear layer's output, as a module of its own."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, inputs):
        return self.function(inputs)


def network(function):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 3), Rule(function), nn.Linear(3, 2))


def run(model, loss=torch.Tensor.sum, inputs=None):
    torch.manual_seed(1)
    batch = {"inputs": torch.randn(4, 3) if inputs is None else inputs}
    with AnomalyWatch(model, batch):
        loss(model(batch["inputs"])).backward()


class Halved(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs):
        return inputs * 2

    @staticmethod
    def backward(ctx, gradient):
        return gradient / 0


@pytest.mark.parametrize(
    ("function", "operation", "made", "cause"),
    [
        pytest.param(lambda h: h.log(), "log", "NaN", r"log of values <= 0: smallest input -\d", id="log-negative"),
        pytest.param(lambda h: h.relu().log(), "log", "infinity", "log of values <= 0: smallest input 0", id="log-0"),
        pytest.param(lambda h: h.clone().log_(), "log_", "NaN", "smallest input -", id="log-in-place"),
        pytest.param(lambda h: h / (h - h), "div", "infinity", "division by zero", id="division"),
        pytest.param(lambda h: (h - h) / 0.0, "div", "NaN", "division by zero", id="division-by-number"),
        pytest.param(lambda h: (h * 1e4).exp(), "exp", "infinity", r"overflow: .* ends at exp\(88.72\)", id="exp"),
        pytest.param(lambda h: (h.half() * 20).exp().float(), "exp", "infinity", "float16 ends at exp", id="exp-half"),
        pytest.param(lambda h: (h.half() * 6e4 * 9).float(), "mul", "infinity", "float16 ends at 65504", id="half"),
        pytest.param(lambda h: h.sqrt(), "sqrt", "NaN", "root of negative values", id="sqrt"),
        pytest.param(lambda h: h**0.5, "pow", "NaN", "no power of a negative number", id="power"),
        pytest.param(lambda h: (h - INF).softmax(-1), "softmax", "NaN", "every place of it is masked", id="all-masked"),
        pytest.param(lambda h: (h - INF) * 0.0, "mul", "NaN", r"0 \* infinity", id="zero-times-infinity"),
    ],
)
def test_forward(function, operation, made, cause):
    model = network(function)
    with pytest.raises(NonFiniteOperation, match=cause) as caught:
        run(model)
    found = caught.value
    assert (found.operation, found.made, found.phase, found.module) == (operation, made, "forward", "1")
    assert found.place.startswith(f"{Path(__file__)}:")
    assert "lambda" in found.source
    assert found.inputs


@pytest.mark.parametrize(
    ("function", "forward", "node", "cause"),
    [
        pytest.param(lambda h: (h * 0).sqrt(), "sqrt", "SqrtBackward0", "derivative of sqrt is infinite", id="sqrt"),
        pytest.param(
            lambda h: torch.where(h > 0, (h * 0).sqrt(), 0.0), "sqrt", "SqrtBackward0", "made NaN", id="where"
        ),
        pytest.param(lambda h: (h * 0) ** 0.5, "pow", "PowBackward0", "add a small number to the base", id="power"),
        pytest.param(lambda h: Halved.apply(h), "mul", "HalvedBackward", "division by zero", id="custom"),
        pytest.param(
            lambda h: checkpoint(lambda x: (x * 0).sqrt(), h, use_reentrant=False), "sqrt", "SqrtBackward0",
            "derivative of sqrt", id="checkpoint",
        ),
    ],
)  # fmt: skip
def test_backward(function, forward, node, cause):
    with pytest.raises(NonFiniteOperation, match=cause) as caught:
        run(network(function))
    found = caught.value
    assert (found.phase, found.forward, found.node, found.module) == ("backward", forward, node, "1")
    assert found.place.startswith(f"{Path(__file__)}:")


@pytest.mark.parametrize(
    ("function", "phase", "operation"),
    [
        pytest.param(lambda y: y.sum().sub(1e3).log(), "loss", "log", id="loss"),
        pytest.param(lambda y: (y - y).sum().sqrt(), "backward", "div", id="its-backward"),
    ],
)
def test_the_loss_is_told_from_the_model(function, phase, operation):
    with pytest.raises(NonFiniteOperation) as caught:
        run(network(torch.relu), loss=function)
    assert (caught.value.phase, caught.value.operation, caught.value.module) == (phase, operation, None)


def test_a_derivative_that_a_mask_cuts_off_is_no_anomaly():
    """The root's derivative is infinite where ReLU gave 0, and ReLU's own is 0 there."""
    model = network(lambda h: h.relu().sqrt())
    run(model)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


MASK = torch.ones(4, 3).triu(1).bool()


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda h: h.masked_fill(MASK, -INF).softmax(-1), id="masked_fill"),
        pytest.param(lambda h: (h + torch.full((4, 3), -INF).triu(1)).softmax(-1), id="full"),
        pytest.param(lambda h: torch.where(MASK, -INF, h).softmax(-1), id="where-number"),
        pytest.param(lambda h: torch.where(MASK, torch.tensor(-INF), h).softmax(-1), id="where-tensor"),
        pytest.param(lambda h: h.clone().masked_fill_(MASK, -INF).logsumexp(-1, keepdim=True) + h, id="in-place"),
        pytest.param(lambda h: h.new_full((4, 3), INF).minimum(h), id="new_full"),
        pytest.param(lambda h: h.clamp(-INF, INF), id="clamp"),
        pytest.param(lambda h: scaled_dot_product_attention(h[None], h[None], h[None], is_causal=True)[0], id="causal"),
        pytest.param(
            lambda h: scaled_dot_product_attention(
                h[None], h[None], h[None], torch.zeros(4, 4).masked_fill(torch.ones(4, 4).triu(1).bool(), -INF)
            )[0],
            id="attention-mask",
        ),
        pytest.param(lambda h: h + (h * 0).norm(), id="norm-at-0"),  # its derivative divides by 0, and repairs it
        pytest.param(lambda h: torch.empty_like(h).copy_(h), id="unwritten"),
        pytest.param(lambda h: nn.functional.max_pool1d(h, 3, 1, 1), id="padding"),
        pytest.param(lambda h: h.nan_to_num(), id="nan_to_num"),
    ],
)
def test_nothing_is_blamed(function):
    model = network(function)
    run(model)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_a_mask_in_a_buffer_is_no_anomaly():
    model = network(torch.relu)
    model.register_buffer("mask", torch.full((3, 3), -INF))
    run(model)
    model.mask[0, 0] = math.nan
    with pytest.raises(NonFiniteOperation, match="buffer `mask` held NaN"):
        run(model)


@pytest.mark.parametrize(("value", "made"), [(math.nan, "NaN"), (INF, "infinity"), (-INF, "infinity")])
def test_a_weight_that_is_not_finite(value, made):
    model = network(torch.relu)
    with torch.no_grad():
        model[2].weight[1, 1] = value
    with pytest.raises(NonFiniteOperation, match=rf"parameter `2\.weight` held {made} before the step") as caught:
        run(model)
    assert caught.value.phase == "parameter"


def test_a_batch_that_holds_nan():
    inputs = torch.randn(4, 3)
    inputs[2, 1] = math.nan
    with pytest.raises(NonFiniteOperation, match="NaN came in with the batch's `inputs`") as caught:
        run(network(torch.relu), inputs=inputs)
    assert (caught.value.phase, caught.value.module) == ("input", "0")


def test_labels_that_are_nan_and_left_out_are_no_anomaly():
    model, targets = network(torch.relu), torch.randn(4, 2)
    targets[1, 0] = math.nan
    with AnomalyWatch(model, {"targets": targets}):
        error = model(torch.randn(4, 3)) - targets
        error[~targets.isnan()].square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_labels_that_are_nan_and_left_out_too_late_are_found():
    """The derivative of a square is 0 * NaN where the square is left out."""
    targets = torch.full((4, 2), math.nan)

    def loss(outputs):
        return torch.where(targets.isnan(), 0.0, (outputs - targets).square()).mean()

    with pytest.raises(NonFiniteOperation, match="NaN came in with a constant or a tensor from before this step"):
        run(network(torch.relu), loss)


def test_numbers_do_not_change_and_nothing_stays_behind():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.GELU(), nn.Flatten(), nn.Linear(4 * 36, 3))
    inputs, targets = torch.randn(6, 1, 8, 8), torch.randint(3, (6,))
    gradients = []
    for context in (AnomalyWatch(model), torch.enable_grad()):
        model.zero_grad()
        with context:
            cross_entropy(model(inputs), targets).backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_hooks_go_also_where_it_raised():
    model = network(torch.log)
    with pytest.raises(NonFiniteOperation):
        run(model)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_message_says_what_and_where():
    with pytest.raises(NonFiniteOperation) as caught:
        run(network(lambda h: h.log()))
    message = str(caught.value)
    for part in ("`log` in the forward made NaN in module `1` at ", "Cause: log of values", "float32[4, 3] of -"):
        assert part in message


def test_compiled_networks_run_uncompiled():
    model = network(lambda h: h - h)
    compiled = torch.compile(model, backend="eager")
    inputs = torch.randn(4, 3)
    compiled(inputs)
    with AnomalyWatch(model):
        compiled(inputs).sum().backward()
    with pytest.raises(NonFiniteOperation) as caught, AnomalyWatch(model):
        compiled(inputs).mul(0).log().sum().backward()
    assert caught.value.phase == "loss"
