"""State dicts travel to torch.optim's class of the same name and back."""

from __future__ import annotations

import pytest
import torch

from ava.errors import InputError
from ava.optimization import get_optimizer
from tests.optimization.optimizers.oracles import parameters, set_gradients

PAIRS = [
    ("adamw", torch.optim.AdamW, {"lr": 1e-2, "weight_decay": 0.1}),
    ("sgd", torch.optim.SGD, {"lr": 1e-2, "momentum": 0.9, "weight_decay": 0.1}),
    ("sgd", torch.optim.SGD, {"lr": 1e-2, "momentum": 0.9, "dampening": 0.5}),
    ("sgd", torch.optim.SGD, {"lr": 1e-2, "momentum": 0.0}),
]


@pytest.mark.parametrize(("name", "theirs", "options"), PAIRS)
@pytest.mark.parametrize("switch", [{"foreach": False}, {"fused": True}], ids=["loop", "fused"])
@pytest.mark.parametrize("to_ours", [True, False])
def test_training_goes_on_in_the_other_class(name, theirs, options, switch, to_ours):
    params, unbroken = parameters(), parameters()
    classes = [lambda ps: theirs(ps, **options, **switch), lambda ps: get_optimizer(name)(ps, **options)]
    first, second = classes if to_ours else classes[::-1]
    before, whole = first(params), theirs(unbroken, **options, **switch)
    for step in range(10):
        if step == 5:
            after = second(params)
            after.load_state_dict(before.state_dict())
        for optimizer, ps in ((before if step < 5 else after, params), (whole, unbroken)):
            set_gradients(ps, step)
            optimizer.step()
    for p, q in zip(params, unbroken, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-12)


@pytest.mark.parametrize("switch", ["maximize", "amsgrad"])
def test_a_rule_that_is_not_ours_is_refused(switch):
    theirs = torch.optim.AdamW(parameters(), **{switch: True})
    with pytest.raises(InputError, match=switch):
        get_optimizer("adamw")(parameters()).load_state_dict(theirs.state_dict())
