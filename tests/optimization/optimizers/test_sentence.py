"""Rules are ordinary arithmetic: they run on numbers as well as on tensors."""

from __future__ import annotations

import math

import pytest
import torch

from ava import registry
from ava.errors import InputError
from ava.optimization import get_optimizer, list_optimizers
from ava.optimization.optimizers.engines.fused import KERNELS
from ava.optimization.optimizers.sentence import ByShape, Hyperparameters, Operands, compose, slots_of
from ava.registry import NonNegativeFloat, PositiveFloat, optimizer


class NumberSpace:
    """A parameter of one number: it is its own sum, and its row's and column's mean."""

    def sum(self, x):
        return float(x)

    row_mean = col_mean = sum

    def random(self, stream):
        raise NotImplementedError

    apply = random


def first_value(slot, group, p):
    return p if slot.start == "p" else group[slot.start] if isinstance(slot.start, str) else slot.start


def vector_sentence(entry, group):
    words = entry.load()(**{name: group[name] for name in entry.own})
    return compose(words.others if isinstance(words, ByShape) else words)


@pytest.mark.parametrize("name", list_optimizers())
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_a_rule_knows_no_torch(name, weight_decay):
    entry = registry.optimizer[name]
    group = {**entry.defaults, **entry.tags.get("live", {}), "lr": 1e-2, "weight_decay": weight_decay}
    sentence, h = vector_sentence(entry, group), Hyperparameters(group)
    number = 1.5
    state = {slot.name: first_value(slot, group, number) for slot in slots_of(sentence)}
    p = torch.nn.Parameter(torch.tensor([number], dtype=torch.float64))
    optimizer = get_optimizer(name)([p], lr=1e-2, weight_decay=weight_decay, state="dense", engine="reference")
    for step in range(1, 6):
        gradient = math.cos(step)
        t = Operands(NumberSpace(), p=number, g=gradient, lr=group["lr"], step=step, size=1, rows=1, cols=1, **state)
        for word in sentence:
            word.rule(t, h)
        assert isinstance(t.p, float)
        number, state = t.p, {key: vars(t)[key] for key in state}
        p.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
        assert p.item() == pytest.approx(number, rel=1e-13)


def test_a_sentence_follows_the_live_options():
    """A stage that an option leaves out keeps no state, and comes in when the option does."""
    p = torch.nn.Parameter(torch.ones(2))
    p.grad = torch.ones(2)
    sgd = get_optimizer("sgd")([p], lr=0.1, momentum=0.0)
    sgd.step()
    assert sgd.state[p] == {}
    sgd.param_groups[0]["momentum"] = 0.5
    sgd.step()
    sgd.step()
    torch.testing.assert_close(sgd.state[p]["momentum_buffer"], torch.full((2,), 1.5))


def test_torch_has_a_kernel_for_the_common_cases():
    """Where the native engine cannot run, they still do not fall back to the slow path."""
    for name in ("adamw", "sgd", "adam"):
        entry = registry.optimizer[name]
        assert vector_sentence(entry, entry.defaults) in KERNELS


def test_nesterov_needs_momentum():
    with pytest.raises(InputError, match="momentum"):
        get_optimizer("sgd")([torch.nn.Parameter(torch.ones(1))], nesterov=True, momentum=0.0)


def test_a_plugin_registers_its_own_sentence():
    from ava.optimization.optimizers.stages.decay import decoupled_decay
    from ava.optimization.optimizers.stages.direction import to_sign
    from ava.optimization.optimizers.stages.moments import along_gradient
    from ava.optimization.optimizers.stages.write import descend

    @optimizer
    def test_sign_descent(lr: PositiveFloat = 0.1, weight_decay: NonNegativeFloat = 0.0):
        """Sign descent."""
        return along_gradient, to_sign, weight_decay and decoupled_decay, descend

    try:
        p = torch.nn.Parameter(torch.zeros(2))
        p.grad = torch.tensor([3.0, -0.1])
        get_optimizer("test_sign_descent")([p], lr=0.25).step()
        assert torch.equal(p, torch.tensor([-0.25, 0.25]))
        assert get_optimizer("test_sign_descent").__name__ == "TestSignDescent"
    finally:
        registry.optimizer._plugins.clear()
