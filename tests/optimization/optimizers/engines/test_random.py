"""Random numbers from a hash: uniform, and of each parameter, step and stream their own."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from ava.optimization.optimizers.engines import random

LIKE = torch.empty(2**16)
BITS = pytest.mark.parametrize("bits", [random.words])


def key(seed=0, number=0, step=1, stream=0):
    return random.stream_key(seed, number, step, stream)


@BITS
@pytest.mark.parametrize("half", ["low", "high"])
def test_uniform(bits, half):
    """Chi square over 256 cells of each half, which two slots are rounded with; 5 deviations."""
    for start in (key(), key(seed=7, number=3, step=1000, stream=15)):
        drawn = bits(start, LIKE)
        value = (drawn if half == "low" else drawn >> 16) & 0xFFFF
        counts = torch.bincount(value >> 8, minlength=256).double()
        expected = LIKE.numel() / 256
        chi = ((counts - expected) ** 2 / expected).sum().item()
        assert abs(chi - 255) < 5 * math.sqrt(2 * 255)


@BITS
def test_each_bit_is_fair_and_no_two_go_together(bits):
    drawn = bits(key(seed=3), LIKE)
    flags = ((drawn[:, None] >> torch.arange(32)) & 1).double()
    assert (flags.mean(0) - 0.5).abs().max() < 5 * 0.5 / math.sqrt(LIKE.numel())
    correlation = torch.corrcoef(flags.T) - torch.eye(32, dtype=torch.float64)
    assert correlation.abs().max() < 6 / math.sqrt(LIKE.numel())


def neighbours():
    base = {"seed": 5, "number": 9, "step": 20, "stream": 1}
    for name in base:
        for other in (1, 2, 256):
            yield pytest.param(base, {**base, name: base[name] + other}, id=f"{name}+{other}")


@BITS
@pytest.mark.parametrize(("one", "other"), list(neighbours()))
def test_neighbours_have_nothing_in_common(bits, one, other):
    a, b = bits(key(**one), LIKE), bits(key(**other), LIKE)
    assert (a == b).double().mean() < 1e-3
    halves = [(x >> shift) & 0xFFFF for x in (a, b) for shift in (0, 16)]
    for x, y in itertools.combinations(halves, 2):
        assert torch.corrcoef(torch.stack([x, y]).double())[0, 1].abs() < 5 / math.sqrt(LIKE.numel())


@BITS
def test_an_element_and_the_next_are_independent(bits):
    value = (bits(key(), LIKE) & 0xFFFF).double()
    for lag in (1, 2, 3, 8, 256):
        assert torch.corrcoef(torch.stack([value[lag:], value[:-lag]]))[0, 1].abs() < 5 / math.sqrt(LIKE.numel())


def test_keys_do_not_repeat():
    """Of parameters, steps and streams as a training has them: no more meet than chance lets."""
    keys = {key(number=n, step=s, stream=k) for n in range(200) for s in range(1, 51) for k in (0, 1, 15, 17)}
    total = 200 * 50 * 4
    expected = total**2 / 2 / 2**32
    assert total - len(keys) <= expected + 6 * math.sqrt(expected) + 1


def test_places_do_not_repeat():
    """Of one parameter, each of the first elements draws another number: the hash is one to one."""
    assert random.words(key(), LIKE).unique().numel() == LIKE.numel()


def test_a_step_in_a_tensor_is_the_same():
    step = torch.tensor(12)
    assert int(random.stream_key(3, 4, step, 5)) == random.stream_key(3, 4, 12, 5)
    assert torch.equal(random.words(random.stream_key(3, 4, step, 5), LIKE), random.words(key(3, 4, 12, 5), LIKE))


def test_seeds_differ():
    """In their upper half too: 64 bits are folded, not cut."""
    assert len({random.stream_key(seed, 0, 1, 0) for seed in (*range(1000), 2**45, 2**62)}) == 1002


@pytest.mark.parametrize("shift", [0, 16])
def test_an_elements_roundings_are_uniform_over_the_steps(shift):
    """Chi square over 64 cells of 4096 steps, for a few elements; 5 deviations. Its halves have no relation."""
    like = torch.empty(512)
    drawn = torch.stack([random.draws(key(seed=1, step=step), like)[::100] for step in range(1, 4097)])
    value = (drawn >> shift) & 0xFFFF
    for element in value.T:
        counts = torch.bincount(element >> 10, minlength=64).double()
        assert abs(((counts - 64) ** 2 / 64).sum().item() - 63) < 5 * math.sqrt(2 * 63)
    halves = torch.corrcoef(torch.stack([drawn[:, 1] & 0xFFFF, drawn[:, 1] >> 16]).double())[0, 1]
    assert halves.abs() < 5 / math.sqrt(4096)


@pytest.mark.parametrize("shift", [0, 16])
def test_a_steps_roundings_are_spread_evenly(shift):
    """Each of 256 cells gets its share of a parameter's numbers, much closer than by chance."""
    value = (random.draws(key(seed=2), LIKE) >> shift) & 0xFFFF
    counts = torch.bincount(value >> 8, minlength=256)
    assert (counts - 256).abs().max() <= 8
