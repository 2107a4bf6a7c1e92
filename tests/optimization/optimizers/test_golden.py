"""Every optimizer's numbers as they were: a change to one that nobody meant becomes a diff.

`python -m tests.optimization.optimizers.test_golden` writes golden.json anew; show old and new where a number changes.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ava import registry
from ava.optimization import get_optimizer
from tests.optimization.optimizers.oracles import parameters, set_gradients

GOLDEN = Path(__file__).with_name("golden.json")
STEPS = 20
NAMES = [entry.name for entry in registry.optimizer if entry.module.startswith("ava.")]


def numbers(name: str) -> list[float]:
    """The beginning of the first parameter, and the sum of each, after 20 steps with default options."""
    params = parameters(torch.float64)
    optimizer = get_optimizer(name)(params, engine="reference")
    for step in range(STEPS):
        set_gradients(params, step)
        if registry.optimizer[name].tags.get("estimates"):
            optimizer.take_estimate({p: p.grad**2 for p in params})
        optimizer.step()
    values = [*params[0].detach().flatten()[:4], *(p.detach().sum() for p in params)]
    return [float(value) for value in values]


@pytest.mark.parametrize("name", NAMES)
def test_numbers_are_as_they_were(name):
    expected = json.loads(GOLDEN.read_text()).get(name)
    assert expected is not None, f"run `python -m {__spec__.name}`"
    assert numbers(name) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_nothing_else_is_in_the_table():
    assert set(json.loads(GOLDEN.read_text())) == set(NAMES)


if __name__ == "__main__":
    lines = [f"  {json.dumps(name)}: {json.dumps(numbers(name))}" for name in NAMES]
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")
