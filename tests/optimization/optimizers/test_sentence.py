"""Rules are ordinary arithmetic: they run on numbers as well as on tensors."""

from __future__ import annotations

import math

import pytest
import torch

from ava import registry
from ava.errors import InputError
from ava.optimization import get_optimizer, list_optimizers
from ava.optimization.optimizers.engines.fused import KERNELS
from ava.optimization.optimizers.sentence import Hyperparameters, Operands, compose, slots_of
from ava.registry import NonNegativeFloat, PositiveFloat, optimizer


class Number(float):
    """An operand that is no tensor and has nothing but what `Operand` promises."""

    def sign(self):
        return Number(math.copysign(1, self) if self else 0)

    def sqrt(self):
        return Number(math.sqrt(self))


for _name in ("add", "radd", "sub", "rsub", "mul", "rmul", "truediv"):
    _method = getattr(float, f"__{_name}__")
    setattr(Number, f"__{_name}__", lambda self, other, _m=_method: Number(_m(self, other)))


@pytest.mark.parametrize("name", list_optimizers())
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_a_rule_knows_no_torch(name, weight_decay):
    entry = registry.optimizer[name]
    group = {**entry.defaults, "lr": 1e-2, "weight_decay": weight_decay}
    sentence = compose(entry.load()(**group))
    state = {slot.name: Number(0) for slot in slots_of(sentence)}
    number, h = Number(1.5), Hyperparameters(group)
    p = torch.nn.Parameter(torch.tensor([1.5], dtype=torch.float64))
    optimizer = get_optimizer(name)([p], lr=1e-2, weight_decay=weight_decay)
    for step in range(1, 6):
        t = Operands(p=number, g=Number(math.cos(step)), step=Number(step), **state)
        for word in sentence:
            word.rule(t, h)
        number, state = t.p, {key: vars(t)[key] for key in state}
        p.grad = torch.tensor([math.cos(step)], dtype=torch.float64)
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


def test_named_optimizers_have_a_kernel():
    """The common cases never fall back to the slow path."""
    for name in ("adamw", "sgd"):
        entry = registry.optimizer[name]
        assert compose(entry.load()(**entry.defaults)) in KERNELS


def test_nesterov_needs_momentum():
    with pytest.raises(InputError, match="momentum"):
        get_optimizer("sgd")([torch.nn.Parameter(torch.ones(1))], nesterov=True, momentum=0.0)


def test_a_plugin_registers_its_own_sentence():
    from ava.optimization.optimizers.stages.decay import decoupled_decay
    from ava.optimization.optimizers.stages.direction import sign
    from ava.optimization.optimizers.stages.write import descend

    @optimizer
    def test_sign_descent(lr: PositiveFloat = 0.1, weight_decay: NonNegativeFloat = 0.0):
        """Sign descent."""
        from ava.optimization.optimizers.stages.direction import along_gradient

        return along_gradient, sign, weight_decay and decoupled_decay, descend

    try:
        p = torch.nn.Parameter(torch.zeros(2))
        p.grad = torch.tensor([3.0, -0.1])
        get_optimizer("test_sign_descent")([p], lr=0.25).step()
        assert torch.equal(p, torch.tensor([-0.25, 0.25]))
        assert get_optimizer("test_sign_descent").__name__ == "TestSignDescent"
    finally:
        registry.optimizer._plugins.clear()
