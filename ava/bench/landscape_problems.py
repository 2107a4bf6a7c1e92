"""Two losses over two numbers, on which plain summing gets stuck; values and gradients in closed form.

Everything is in plain floats: one step of a method on a 2 x 2 Gram matrix costs microseconds, and a tensor would cost
more than the arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

Point = tuple[float, float]
Pair = tuple[float, float]

_FLOOR = 5e-6
"""Where both papers cut the logarithms off."""


@dataclass(frozen=True)
class Values:
    """Both losses at one point.

    Attributes:
        losses: L1 and L2.
        gradients: of L1 and of L2, each over x and y.
    """

    losses: Pair
    gradients: tuple[Pair, Pair]


@dataclass(frozen=True)
class Landscape:
    """A problem and how its paper runs it.

    Attributes:
        name: of the problem.
        evaluate: (x, y) -> losses and gradients.
        starts: where the paper starts.
        has_arrived: whether a point is, but for the noise of the last steps, where the paper says that one should end.
        goal: in words.
        steps: of Adam, as many as the paper takes or fewer where the outcome stands earlier.
        lr: of Adam.
    """

    name: str
    evaluate: Callable[[Point], Values]
    starts: tuple[Point, ...]
    has_arrived: Callable[[Point], bool]
    goal: str
    steps: int
    lr: float


def two_valleys(point: Point) -> Values:
    """The toy of CAGrad and Nash-MTL: narrow logarithmic valleys above y = 0, two parabolas below.

        L1 = c1 f1 + c2 g1,  L2 = c1 f2 + c2 g2
        f1 = log max(|(-x - 7) / 2 - tanh(-y)|, 5e-6) + 6,      f2 = log max(|(-x + 3) / 2 + tanh(-y) + 2|, 5e-6) + 6
        g1 = ((-x + 7)^2 + (-y - 8)^2 / 10) / 10 - 20,          g2 = ((-x - 7)^2 + (-y - 8)^2 / 10) / 10 - 20
        c1 = max(tanh(y / 2), 0),                               c2 = max(tanh(-y / 2), 0)

    Reference: Liu, Liu, Jin, Stone & Liu 2021, https://arxiv.org/abs/2110.14048
    """
    x, y = point
    if y < 0:
        return _parabolas(x, y)
    wave, gate = math.tanh(y), math.tanh(y / 2)
    slope, gate_slope = 1 - wave * wave, (1 - gate * gate) / 2
    f1, f1_by = _logarithm(0.5 * (-x - 7) + wave)
    f2, f2_by = _logarithm(0.5 * (-x + 3) - wave + 2)
    first = (-0.5 * f1_by * gate, slope * f1_by * gate + (f1 + 6) * gate_slope)
    second = (-0.5 * f2_by * gate, -slope * f2_by * gate + (f2 + 6) * gate_slope)
    return Values(((f1 + 6) * gate, (f2 + 6) * gate), (first, second))


def unlike_valleys(point: Point) -> Values:
    """`two_valleys` with L1 a tenth as large, as Nash-MTL and FAMO run it; the Pareto set stays.

    Reference: Navon et al. 2022, https://arxiv.org/abs/2202.01017; Liu et al. 2023, https://arxiv.org/abs/2306.03792
    """
    found = two_valleys(point)
    (x, y), second = found.gradients
    return Values((0.1 * found.losses[0], found.losses[1]), ((0.1 * x, 0.1 * y), second))


def valley(point: Point) -> Values:
    """The toy of PCGrad: two narrow valleys that run together for large y, of unlike depths.

        L1 = 20 log max(|x / 2 + tanh(y)|, 5e-6),    L2 = 25 log max(|x / 2 - tanh(y) + 2|, 5e-6)

    Reference: Yu et al. 2020, https://arxiv.org/abs/2001.06782, appendix
    """
    x, y = point
    wave = math.tanh(y)
    slope = 1 - wave * wave
    f1, f1_by = _logarithm(0.5 * x + wave)
    f2, f2_by = _logarithm(0.5 * x - wave + 2)
    first = (10 * f1_by, 20 * slope * f1_by)
    second = (12.5 * f2_by, -25 * slope * f2_by)
    return Values((20 * f1, 25 * f2), (first, second))


def pareto_height(x: float) -> float:
    """The y of the Pareto set of `two_valleys` at x, for |x| <= 7; about -8.355.

    There the gradients are opposite: with weights (7 + x) / 14 and (7 - x) / 14 of L1 and L2 their sum over x is 0, and
    over y it is 0 at the minimum over y of tanh(-y / 2) (((49 - x^2) + (y + 8)^2 / 10) / 10 - 20).
    """
    low, high = -12.0, -7.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _slope_over_y(x, middle) < 0 else (low, middle)
    return (low + high) / 2


def is_on_pareto_set(point: Point, tolerance: float = 0.05) -> bool:
    """Whether a point of `two_valleys` is on its Pareto set, up to the noise of Adam's last steps."""
    x, y = point
    return abs(x) <= 7 + tolerance and abs(y - pareto_height(x)) <= tolerance


def is_where_valleys_meet(point: Point) -> bool:
    """Whether a point of `valley` is where both logarithms are near their floor together."""
    x, y = point
    return abs(x + 2) < 0.1 and y > 3


def _slope_over_y(x: float, y: float) -> float:
    gradients = _parabolas(x, y).gradients
    share = (7 + x) / 14
    return share * gradients[0][1] + (1 - share) * gradients[1][1]


def _parabolas(x: float, y: float) -> Values:
    gate = math.tanh(-y / 2)
    gate_slope = -(1 - gate * gate) / 2
    rise = 0.1 * (y + 8) ** 2
    bowls = [((x - centre) ** 2 + rise) / 10 - 20 for centre in (7, -7)]
    first, second = (
        ((x - centre) / 5 * gate, 0.02 * (y + 8) * gate + bowl * gate_slope)
        for centre, bowl in zip((7, -7), bowls, strict=True)
    )
    return Values((bowls[0] * gate, bowls[1] * gate), (first, second))


def _logarithm(value: float) -> Pair:
    """The value log max(|value|, 5e-6) and its derivative."""
    size = abs(value)
    return (math.log(size), 1 / value) if size > _FLOOR else (math.log(_FLOOR), 0.0)


TWO_VALLEYS = Landscape(
    "two valleys", two_valleys, ((-8.5, 7.5), (-8.5, -5.0), (9.0, 9.0)), is_on_pareto_set,
    "the Pareto set, y about -8.355 and |x| <= 7", 100_000, 1e-3,
)  # fmt: skip
UNLIKE_VALLEYS = Landscape(
    "two unlike valleys", unlike_valleys, ((-8.5, 7.5), (0.0, 0.0), (9.0, 9.0), (-7.5, -0.5), (9.0, -1.0)),
    is_on_pareto_set, "the Pareto set, y about -8.355 and |x| <= 7", 50_000, 1e-3,
)  # fmt: skip
VALLEY = Landscape(
    "one valley", valley, ((0.5, -3.0),), is_where_valleys_meet,
    "where the valleys meet, x = -2 and y large", 250_000, 1e-3,
)  # fmt: skip
