"""What a reconciler keeps from step to step is finite, and of its own method."""

from __future__ import annotations

import pytest
import torch

from ava.errors import InputError
from ava.optimization.gradients.surgery.binding import bind, needs
from ava.optimization.gradients.surgery.decisions import Decisions

GRAM = torch.tensor([[2.0, -0.5], [-0.5, 1.0]], dtype=torch.float64)
LOSSES = torch.tensor([1.0, 2.0], dtype=torch.float64)


def decisions(name, every=1, **options):
    return Decisions(bind(name, **options), needs(name), every, seed=0)


def test_weights_that_are_no_numbers_are_answered_and_not_kept():
    made = decisions("mgda", every=10, normalization="loss")
    assert made.weigh(GRAM, torch.tensor([torch.inf, 1.0], dtype=torch.float64)).isnan().all()
    assert made.weights is None
    assert made.are_due
    assert made.weigh(GRAM, LOSSES).isfinite().all()
    assert made.weights is not None
    made.step = 1
    assert not made.are_due


@pytest.mark.parametrize(("saved", "resumed"), [("pcgrad", "famo"), ("gradnorm", "famo"), ("famo", "gradnorm")])
def test_another_methods_memory_is_refused(saved, resumed):
    with pytest.raises(InputError, match="method that it was saved with"):
        decisions(resumed).load_state_dict(decisions(saved).state_dict())


@pytest.mark.parametrize("name", ["pcgrad", "gradnorm", "famo"])
def test_its_own_is_taken_up(name):
    one, other = decisions(name), decisions(name)
    gram = None if needs(name) == "losses" else GRAM
    one.weigh(gram, LOSSES)
    other.load_state_dict(one.state_dict())
    one.step = other.step = 1
    torch.testing.assert_close(other.weigh(gram, LOSSES / 2), one.weigh(gram, LOSSES / 2), rtol=0, atol=0)
