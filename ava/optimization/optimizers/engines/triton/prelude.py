"""What printed kernels call: random bits, rounding, codecs. Imported only where triton is.

The formats are described beside their torch twins (`storage/*.py`, `engines/random.py`).
"""

# mypy: ignore-errors
from __future__ import annotations

import os

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")


@triton.jit
def unless(skipped, inside):
    """The flags, all false if the number `skipped` is not 0; compared as numbers, which the interpreter can spread."""
    return inside & (tl.zeros(inside.shape, tl.int32) == skipped)


@triton.jit
def mix(x):
    """Wellons' lowbias32."""
    x = x ^ (x >> 16)
    x = x * 0x7FEB352D
    x = x ^ (x >> 15)
    x = x * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def stream_key(base, step, STREAM: tl.constexpr):
    """What sets one step's stream apart, from the parameter's base; as a float64, which holds 32 bits exactly."""
    at = mix(base + step.to(tl.int64).to(tl.uint32) * 0x85EBCA6B)
    return mix(at + STREAM).to(tl.float64)


@triton.jit
def bits_at(key, place):
    """32 random bits an element."""
    return mix((place.to(tl.uint32) * 0x9E3779B1) ^ key)


@triton.jit
def draw_at(key, place):
    """32 bits an element to round with: a Weyl sequence."""
    return place.to(tl.uint32) * 0x9E3779B1 + key


@triton.jit
def half_of(draw, HALF: tl.constexpr):
    """16 of the 32 bits."""
    return ((draw >> (16 * HALF)) & 0xFFFF).to(tl.int32)


@triton.jit
def round_at_random(x, noise, KEPT: tl.constexpr, LIMIT: tl.constexpr):
    """Round a float32 to 16 bits, up with the probability of the way that is left below."""
    raw = x.to(tl.int32, bitcast=True)
    y = (((raw + (noise >> (16 - KEPT))) >> KEPT) << KEPT).to(tl.float32, bitcast=True)
    y = tl.where(y > LIMIT, LIMIT, tl.where(y < -LIMIT, -LIMIT, y))
    return tl.where((raw & 0x7F800000) == 0x7F800000, x, y)


@triton.jit
def nearest(x, to: tl.constexpr):
    """Cast to what is stored, to the nearest: the interpreter would cut bits off."""
    if INTERPRETED and to == tl.bfloat16:
        wide = x.to(tl.float32)
        raw = wide.to(tl.int32, bitcast=True)
        even = (((raw + 0x7FFF + ((raw >> 16) & 1)) >> 16) << 16).to(tl.float32, bitcast=True)
        return tl.where((raw & 0x7F800000) == 0x7F800000, wide, even).to(to)
    return x.to(to)


@triton.jit
def sign_of(x, to: tl.constexpr):
    """-1, 0 or 1."""
    return (x > 0).to(to) - (x < 0).to(to)


@triton.jit
def larger(x, y):
    """The larger one; a NaN in x stays."""
    return tl.where(x < y, y, x)


@triton.jit
def smaller(x, y):
    """The smaller one; a NaN in x stays."""
    return tl.where(x > y, y, x)


@triton.jit
def mod_of(x, y):
    """What is left of x, with y's sign."""
    return x - tl.floor(x / y) * y


@triton.jit
def power(x, y):
    """The power x ** y, for x >= 0."""
    raised = tl.exp(y * tl.log(x))
    return tl.where(y == 0, tl.full((), 1.0, raised.dtype), raised)


@triton.jit
def angle_of(y, x):
    """The angle of (x, y): a Chebyshev interpolant of atan(z) / z in z^2 on [0, 1], within 1e-8."""
    ax, ay = tl.abs(x), tl.abs(y)
    low, high = tl.where(ax < ay, ax, ay), tl.where(ax < ay, ay, ax)
    z = tl.where(high > 0, low / high, low)
    s = z * z
    a = s * 0.0027662834618240595 - 0.015731249004602432
    a = a * s + 0.04213762283325195
    a = a * s - 0.07456854730844498
    a = a * s + 0.10618370771408081
    a = a * s - 0.14197798073291779
    a = a * s + 0.1999187171459198
    a = a * s - 0.333330363035202
    a = (a * s + 1.0) * z
    a = tl.where(ay > ax, 1.5707963267948966 - a, a)
    a = tl.where(x < 0, 3.141592653589793 - a, a)
    return tl.where(y < 0, -a, a)


@triton.jit
def decode_8bit(code, scale, BIAS: tl.constexpr):
    """An 8-bit code's value."""
    x = code.to(tl.int32)
    start = tl.full((), BIAS, tl.int32)
    magnitude = ((tl.abs(x) << 19) + start).to(tl.float32, bitcast=True) - start.to(tl.float32, bitcast=True)
    share = magnitude * scale
    return tl.where(x < 0, -share, share)


@triton.jit
def encode_8bit(x, over, noise, BIAS: tl.constexpr, LAST: tl.constexpr):
    """The 8-bit code of a float32; `over` is one over its block's scale. LAST 127 is signed."""
    start = tl.full((), BIAS, tl.int32)
    raised = (tl.abs(x) * over + start.to(tl.float32, bitcast=True)).to(tl.int32, bitcast=True)
    code = (raised + (noise << 3) - start) >> 19
    code = tl.where(code > LAST, LAST, code)
    if LAST == 127:
        return tl.where(x < 0, -code, code)
    return tl.where((x > 0) & (code < 1), 1, code)


@triton.jit
def put_sums(target, parts, count, stride, length, over, skipped, LANES: tl.constexpr, DEPTH: tl.constexpr):
    """Add up tiles' sums in a fixed order, for each row or column; store them over a number; return their sum."""
    lane = tl.arange(0, LANES)
    deep = tl.arange(0, DEPTH)
    total = tl.zeros([LANES], tl.float64)
    for begin in range(0, length, LANES):
        at = begin + lane
        sums = tl.zeros([DEPTH, LANES], tl.float64)
        for first in range(0, count, DEPTH):
            part = first + deep
            inside = (part < count)[:, None] & (at < length)[None, :]
            sums += tl.load(parts + part[:, None] * stride + at[None, :], mask=inside, other=0.0)
        whole = tl.sum(sums, 0)
        tl.store(target + at, whole / over, mask=unless(skipped, at < length))
        total += whole
    return tl.sum(total, 0)


@triton.jit
def add_up(values, length, LANES: tl.constexpr):
    """The sum of float64s, in an order that depends on nothing but how many there are."""
    lane = tl.arange(0, LANES)
    total = tl.zeros([LANES], tl.float64)
    for begin in range(0, length, LANES):
        total += tl.load(values + begin + lane, mask=begin + lane < length, other=0.0)
    return tl.sum(total, 0)


KERNEL_NAMES = (
    "add_up", "angle_of", "bits_at", "decode_8bit", "draw_at", "encode_8bit", "half_of", "larger", "mix", "mod_of",
    "nearest", "power", "put_sums", "round_at_random", "sign_of", "smaller", "stream_key", "tl", "triton", "unless",
)  # fmt: skip
"""What the text of a kernel may call."""
