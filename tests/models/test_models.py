"""Every registered model: shapes, gradients, state and options."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from ava.data.source import ImageSpec, TokenSpec
from ava.registry import model as models

CONF = Path(__file__).parents[2] / "conf" / "model"
DIGITS = ImageSpec(channels=1, height=8, width=8, num_classes=10)
TOKENS = TokenSpec(vocab_size=20, context=12)
SMALL = {
    "mlp": {"width": 16},
    "convnet": {"width": 4},
    "resnet": {"layers": 10, "width": 4},
    "vit": {"layers": 2, "width": 16},
    "gpt": {"layers": 2, "heads": 2, "width": 16},
}
"""Options that make a model quick to test; a new model is tested at its defaults until it stands here."""


def build(name: str, **options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    entry = models[name]
    spec = TOKENS if entry.tags["kind"] == "tokens" else DIGITS
    return entry.load()(spec, **{**SMALL.get(name, {}), **options})


def batch(name: str, size: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    if models[name].tags["kind"] == "tokens":
        return torch.randint(0, TOKENS.vocab_size, (size, TOKENS.context), generator=generator)
    return torch.randn(size, DIGITS.channels, DIGITS.height, DIGITS.width, generator=generator)


def logits_shape(name: str, size: int = 3) -> tuple[int, ...]:
    tokens = models[name].tags["kind"] == "tokens"
    return (size, TOKENS.context, TOKENS.vocab_size) if tokens else (size, DIGITS.num_classes)


@pytest.mark.parametrize("name", models.names())
def test_yaml_lists_every_option_with_its_default(name):
    written = yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8"))
    assert written == {"name": name, **models[name].defaults}


def test_every_yaml_is_a_model():
    assert sorted(path.stem for path in CONF.glob("*.yaml")) == models.names()


@pytest.mark.parametrize("name", models.names())
def test_logits_have_the_shape_of_the_contract(name):
    assert build(name)(batch(name)).shape == logits_shape(name)


@pytest.mark.parametrize("name", models.names())
def test_it_has_blocks(name):
    blocks = build(name).blocks
    assert isinstance(blocks, torch.nn.ModuleList | torch.nn.Sequential)
    assert len(blocks) >= 2


@pytest.mark.parametrize("name", models.names())
def test_gradient_reaches_every_parameter(name):
    """Also those behind weights that start at zero, after one step has moved these."""
    net = build(name)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        net(batch(name)).square().sum().backward()
        optimizer.step()
    unreached = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert unreached == []


@pytest.mark.parametrize("name", models.names())
def test_bf16_autocast_gives_nearly_the_same_logits(name):
    net, inputs = build(name), batch(name)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = net(inputs)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), net(inputs).detach(), rtol=0.1, atol=0.05)


@pytest.mark.parametrize("name", models.names())
def test_state_dict_round_trip(name):
    first = build(name)
    torch.manual_seed(7)
    second = models[name].load()(first.spec if name == "gpt" else DIGITS, **SMALL.get(name, {}))
    assert not torch.equal(first(batch(name)), second(batch(name)))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(batch(name)), second(batch(name)))


@pytest.mark.parametrize("name", models.names())
def test_the_seed_decides_the_weights(name):
    first, second = build(name).state_dict(), build(name).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", models.names())
def test_a_sample_does_not_see_its_batch(name):
    """Logits of a sample are the same alone and among others: micro-batches and ranks change nothing."""
    net, inputs = build(name), batch(name, 4)
    torch.testing.assert_close(net(inputs)[1:2], net(inputs[1:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", models.names())
def test_training_mode_changes_nothing_by_default(name):
    """Dropout is off and nothing normalises over the batch."""
    net = build(name)
    assert torch.equal(net.train()(batch(name)), net.eval()(batch(name)))
