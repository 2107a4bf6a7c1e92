"""What codecs promise: means stay right, zeros stay zeros, sums of rows and columns are kept."""

from __future__ import annotations

import math

import pytest
import torch

from ava.optimization.optimizers.engines import random
from ava.optimization.optimizers.sentence import Slot
from ava.optimization.optimizers.storage.bfloat16 import round_at_random
from ava.optimization.optimizers.storage.choice import CODECS, codec_name
from ava.optimization.optimizers.storage.factored import pack, square_shape, unpack
from ava.optimization.optimizers.storage.int8 import BLOCK

SIGNED, POSITIVE = Slot("m"), Slot("v", signed=False)
SLOTS = pytest.mark.parametrize("slot", [SIGNED, POSITIVE], ids=["signed", "positive"])
EACH = pytest.mark.parametrize("name", CODECS)
# One, primes, a block and its neighbours, a square, an elongated matrix, nothing.
SIZES = [0, 1, 2, 3, 7, 8, 9, 255, 256, 257, 1000, 1009, 4096, 7919]


def normal(size, slot=SIGNED, dtype=torch.float32, seed=0):
    value = torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (value if slot.signed else value.square()).to(dtype)


def draws(seed, like):
    key = random.stream_key(seed, 0, 1, 0)
    return random.draws(key, like) & 0xFFFF


def there_and_back(name, value, slot, seed=1):
    codec = CODECS[name]
    parts = codec.encode(value, slot, lambda: draws(seed, value))
    assert set(parts) == set(codec.keys(slot))
    return codec.decode(parts, slot, value)


@EACH
@SLOTS
@pytest.mark.parametrize("size", SIZES)
def test_shape_type_and_sign_come_back(name, slot, size):
    for dtype in (torch.float32, torch.float64):
        value = normal(size, slot, dtype)
        back = there_and_back(name, value, slot)
        assert (back.shape, back.dtype) == (value.shape, dtype)
        assert (back * value >= 0).all()


@EACH
@SLOTS
@pytest.mark.parametrize("shape", [(7, 11), (3, 1, 5), (), (1, 300)])
def test_any_shape(name, slot, shape):
    back = there_and_back(name, normal(shape, slot), slot)
    assert back.shape == shape
    assert back.isfinite().all()


@EACH
@SLOTS
@pytest.mark.parametrize("size", SIZES)
def test_zeros_are_exact(name, slot, size):
    assert torch.equal(there_and_back(name, torch.zeros(size), slot), torch.zeros(size))


@pytest.mark.parametrize("name", ["bf16", "int8"])
@SLOTS
def test_a_zero_among_others_is_exact(name, slot):
    value = normal(1009, slot)
    value[::3] = 0
    assert (there_and_back(name, value, slot)[::3] == 0).all()


@pytest.mark.parametrize("name", ["bf16", "int8"])
@SLOTS
def test_what_is_stored_is_stored_again(name, slot):
    """What was decoded is nearly itself when it is encoded again: in 8 bits a block's scale may be rounded anew."""
    value = there_and_back(name, normal(1009, slot), slot)
    again = there_and_back(name, value, slot, seed=2)
    torch.testing.assert_close(again, value, rtol=0 if name == "bf16" else 0.07, atol=3e-4 * value.abs().max().item())


@pytest.mark.parametrize("name", ["bf16", "int8"])
@SLOTS
def test_rounding_is_right_in_the_mean(name, slot):
    """The mean of many roundings is the value, within 4 standard errors of what was drawn, for each of 500."""
    value = normal(500, slot)
    if name == "int8":
        value = value[value > 0.01] if not slot.signed else value  # below the first step it is raised, see below
    trials = 2000
    codec = CODECS[name]
    codes = [codec.decode(codec.encode(value, slot, lambda s=s: draws(s, value)), slot, value) for s in range(trials)]
    results = torch.stack(codes).double()
    error = results.mean(0) - value.double()
    deviation = results.std(0) / math.sqrt(trials)
    # Where one neighbour is drawn a few times at most, the deviation of what was drawn says little.
    gap = (value.abs() + value.abs().max() / 200) / 16
    assert (error.abs() <= 4.5 * deviation + gap.double() * 8 / trials).all()
    assert error.sum().abs() <= 4 * (deviation.square().sum().sqrt()) + 1e-4


@pytest.mark.parametrize("name", ["bf16", "int8"])
def test_a_slow_mean_stays_where_it_belongs(name):
    """With odds that are wrong by a thousandth, a mean with decay 0.999 would wander off in a thousand steps."""
    wanted = torch.linspace(0.01, 1, 256)
    mean, ends = wanted.clone(), []
    for step in range(3000):
        mean = there_and_back(name, 0.999 * mean + 0.001 * wanted, POSITIVE, seed=step)
        if step >= 1000:
            ends.append(mean)
    share = torch.stack(ends).mean(0) / wanted
    assert abs(share.mean() - 1) < 0.03
    assert (share - 1).abs().max() < 0.5


@pytest.mark.parametrize("size", [1000, 7919])
def test_positive_never_becomes_zero_in_8_bits(size):
    value = normal(size, POSITIVE)
    value[5] = 1e-12
    value[6] = 1e-30
    for seed in range(20):
        back = there_and_back("int8", value, POSITIVE, seed)
        assert (back > 0).all()


@SLOTS
def test_8_bit_error_is_a_sixteenth(slot):
    """Within the range that a block's scale serves, a code is off by less than a step: a 16th, even at the bottom."""
    value = normal(4096, slot)
    back = there_and_back("int8", value, slot)
    scale = value.reshape(-1, BLOCK).abs().amax(1).repeat_interleave(BLOCK)
    floor = 1.125 * 2.0 ** (-8 if slot.signed else -16)
    assert ((back - value).abs() <= (value.abs() + floor * scale) / 16 * 1.01).all()
    assert (back.abs().reshape(-1, BLOCK).amax(1) >= 0.93 * value.abs().reshape(-1, BLOCK).amax(1)).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_rounding_goes_to_a_neighbour(dtype):
    value = torch.cat([normal(1000), normal(1000) * 1e-3, torch.tensor([0.0, -0.0, 1.0, -2.0])])
    for seed in range(5):
        rounded = round_at_random(value, dtype, draws(seed, value))
        nearest = value.to(dtype)
        step = (nearest.float() * torch.finfo(dtype).eps).abs() + torch.finfo(dtype).smallest_normal
        assert ((rounded.float() - value).abs() <= step).all()
        assert torch.equal(rounded[-4:].float(), value[-4:])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_rounding_keeps_what_is_not_finite(dtype):
    limit = torch.finfo(dtype).max
    value = torch.tensor([math.inf, -math.inf, math.nan, limit, -limit, 0.999999 * limit])
    for seed in range(20):
        rounded = round_at_random(value, dtype, draws(seed, value)).float()
        assert torch.equal(rounded[:2], value[:2])
        assert rounded[2].isnan()
        assert rounded[3:].isfinite().all()


@SLOTS
@pytest.mark.parametrize("size", [1, 7, 8, 60, 1009, 4096, 7919])
def test_factors_keep_the_sums_of_rows_and_columns(slot, size):
    value = normal(size, slot, torch.float64)
    rows, columns = square_shape(size)
    back = there_and_back("factored", value, slot).abs()
    padded = [torch.nn.functional.pad(x.abs(), (0, rows * columns - size)).view(rows, columns) for x in (value, back)]
    if rows * columns == size:  # what is cut off of a padded matrix is not in the sums
        torch.testing.assert_close(padded[1].sum(1), padded[0].sum(1), rtol=1e-6, atol=0)
        torch.testing.assert_close(padded[1].sum(0), padded[0].sum(0), rtol=1e-6, atol=0)
    else:
        assert padded[1].sum() <= padded[0].sum() * (1 + 1e-6)
        assert padded[1].sum() >= padded[0].sum() * 0.9


def test_a_rank_1_matrix_is_exact():
    value = torch.outer(normal(64, POSITIVE), normal(64, POSITIVE))
    torch.testing.assert_close(there_and_back("factored", value, POSITIVE), value, rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_factors_of_16_bit_values(dtype):
    """A state begins in the parameter's type: 16 bits must not make zeros NaN, nor sums coarse."""
    assert torch.equal(there_and_back("factored", torch.zeros(9, dtype=dtype), SIGNED), torch.zeros(9, dtype=dtype))
    value = normal(4096, POSITIVE).to(dtype)
    parts = CODECS["factored"].encode(value, POSITIVE, lambda: draws(0, value))
    torch.testing.assert_close(parts["v.row"].sum(), value.float().sum(), rtol=1e-5, atol=0)
    assert {part.dtype for part in parts.values()} == {torch.float32}


@pytest.mark.parametrize("size", [*range(1, 200), 1009, 4096, 7919, 32768, 10**6 + 3])
def test_the_square_holds_all_and_little_more(size):
    rows, columns = square_shape(size)
    assert rows >= columns - 1
    assert size <= rows * columns < size + columns
    assert rows <= 17 * columns + 1


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 64, 1009])
def test_bits_are_packed_lowest_first(size):
    flags = normal(size) > 0
    packed = pack(flags)
    assert packed.numel() == -(-size // 8)
    assert torch.equal(unpack(packed, size), flags)
    if size >= 8:
        assert packed[0] == sum(int(flag) << place for place, flag in enumerate(flags[:8]))


def test_which_codec_stores_a_slot():
    assert codec_name(SIGNED, "int8", is_small=False) == "int8"
    assert codec_name(SIGNED, "int8", is_small=True) == "dense"
    assert codec_name(SIGNED, "factored", is_small=True) == "factored"
    for kept in (Slot("slow_weights", exact=True), Slot("row", shape="row")):
        assert codec_name(kept, "factored", is_small=False) == "dense"
