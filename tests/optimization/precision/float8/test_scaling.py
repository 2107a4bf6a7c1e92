"""Delayed scaling: the formula, its history, and what does not enter it."""

import math

import pytest
import torch

from ava.errors import InputError
from ava.optimization.precision.float8.formats import casts
from ava.optimization.precision.float8.scaling import GRAD, INPUT, INPUT_AGAIN, WEIGHT, DelayedScaling
from tests.optimization.precision.float8.trainings import CPU


def scaling(fp8_format="hybrid", **options):
    return DelayedScaling(["layer"], casts("delayed", fp8_format), CPU, **options)


def see(state, value, operand=INPUT):
    """One micro-batch whose largest magnitude is `value`."""
    tensor = torch.tensor([[0.5 * value, -value]])
    return state.cast(tensor, 0, operand, torch.tensor(abs(value)), record=True)


@pytest.mark.parametrize("margin", [0, 1, 3])
def test_the_scale_by_hand(margin):
    """448 / 7 = 64 for e4m3 and 57344 / 7 = 8192 for e5m2, halved by each unit of margin."""
    state = scaling(margin=margin)
    for operand in (INPUT, WEIGHT, GRAD):
        see(state, 7.0, operand)
    state.step()
    expected = torch.tensor([64.0, 64.0, 8192.0, 64.0]) / 2**margin
    assert torch.equal(state.scale[0], expected)


def test_an_input_that_is_cast_to_two_types_has_a_scale_for_each():
    state = scaling("e5m2")
    see(state, 7.0)
    state.step()
    assert state.scale[0, [INPUT, INPUT_AGAIN]].tolist() == [8192.0, 64.0]


def test_margin_leaves_room():
    """Twice the largest value seen still fits with a margin of one power of two, and saturates without."""
    for margin, expected in ((0, 448.0), (1, 448.0)):
        state = scaling(margin=margin)
        see(state, 7.0)
        state.step()
        cast = see(state, -14.0)
        assert cast.data.float().max() == expected
        assert (cast.data.float() * cast.inverse).max() == (7.0 if margin == 0 else 14.0)


@pytest.mark.parametrize("interval", [1, 2, 3])
def test_scales_are_renewed_every_interval_steps(interval):
    state, renewed = scaling(interval=interval), []
    for step in range(7):
        see(state, 2.0**step)
        before = state.scale.clone()
        state.step()
        renewed.append(not torch.equal(before, state.scale))
    assert renewed == [step % interval == 0 for step in range(7)]


def test_the_largest_value_is_forgotten_after_the_history():
    state = scaling(history=3)
    scales = []
    for value in (8.0, 1.0, 1.0, 1.0, 2.0):
        see(state, value)
        state.step()
        scales.append(448.0 / state.scale[0, INPUT].item())
    assert scales == [8.0, 8.0, 8.0, 1.0, 2.0]


def test_micro_batches_of_a_step_are_one_entry():
    state = scaling(history=2)
    for value in (1.0, 4.0, 2.0):
        see(state, value)
    state.step()
    assert state.history[:, 0, INPUT].tolist() == [4.0, 0.0]


@pytest.mark.parametrize("skipped", [True, torch.tensor(True), torch.tensor(1.0)], ids=["bool", "tensor", "float"])
def test_a_skipped_step_leaves_history_and_scales(skipped):
    state = scaling()
    see(state, 1.0)
    state.step(torch.tensor(0.0))
    before = state.history.clone(), state.scale.clone()
    see(state, 100.0)
    state.step(skipped)
    assert torch.equal(state.history, before[0])
    assert torch.equal(state.scale, before[1])
    assert not state.amax.any()


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_what_is_not_finite_stays_out_of_the_history_and_shows_in_the_result(value):
    state = scaling()
    see(state, 7.0)
    state.step()
    cast = see(state, value)
    assert (cast.data.float() * cast.inverse).isnan().all()
    assert state.nonfinite.tolist() == [[True, False, False]]
    see(state, 14.0)
    state.step()
    assert state.scale[0, INPUT] == 32.0
    assert state.history[:2, 0, INPUT].tolist() == [14.0, 7.0]
    assert state.count_again()[3] == 1
    assert not state.nonfinite.any()


def test_before_there_is_a_history_the_operand_scales_itself():
    state = scaling()
    for value in (1e-30, 1e30):
        cast = see(state, value)
        torch.testing.assert_close(
            (cast.data.float() * cast.inverse).max(), torch.tensor(0.5 * value), rtol=0.04, atol=0
        )
    cast = see(state, 0.0)
    assert torch.equal(cast.data.float() * cast.inverse, torch.zeros(1, 2))


def test_ranks_are_asked_once_per_new_scale():
    asked = []

    def max_over_ranks(tensor):
        asked.append(tensor.shape)
        return tensor * 2

    state = scaling(interval=2, max_over_ranks=max_over_ranks)
    for _ in range(4):
        see(state, 1.0)
        state.step()
    assert asked == [(16, 1, 3)] * 2
    assert state.scale[0, INPUT] == 448.0 / 4


def test_saved_state_of_other_layers_is_refused():
    state = scaling()
    with pytest.raises(InputError, match="other layers"):
        state.load_state_dict(scaling(history=4).state_dict())
    with pytest.raises(InputError, match="other layers"):
        state.load_state_dict({})
