"""Which operand is cast to which 8-bit float, for each format and recipe.

e4m3 has 4 bits of exponent and 3 of mantissa (largest value 448); e5m2 has a bit more range and a bit less precision
(57,344). A linear layer multiplies three times:

    output      = input  @ weight.T
    grad_input  = grad   @ weight
    grad_weight = grad.T @ input

Every operand meets every other one, and no GPU multiplies e5m2 by e5m2. So if an operand has one type in both of its
products, one of the three can be e5m2: the gradient, whose range is the widest. That is `hybrid`. To have inputs in
e5m2 as well (`e5m2`), they must be e4m3 (`delayed`) or not cast at all (`rowwise_with_gw_hp`) in the weight gradient.
torchao casts an operand to one type wherever it is used, and with a scale for each row the second operand has to be
e4m3: with `tensorwise` and `rowwise`, `e5m2` therefore means what `hybrid` means.

Reference: Micikevicius et al. 2022, FP8 Formats for Deep Learning, https://arxiv.org/abs/2209.05433
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from ava.errors import InputError, nearest
from ava.optimization.precision.float8.hardware import is_fnuz

Operand = Literal["e4m3", "e5m2", "none"]
RECIPES = ("tensorwise", "rowwise", "rowwise_with_gw_hp", "delayed")
FORMATS = ("e4m3", "e5m2", "hybrid")


@dataclass(frozen=True)
class Casts:
    """The type of each operand; "none" is not cast.

    Attributes:
        input: in the output.
        weight: in the output and the input's gradient.
        grad: the output's gradient, in the input's gradient.
        input_again: the input, in the weight's gradient.
        grad_again: the output's gradient, in the weight's gradient.
    """

    input: Operand
    weight: Operand
    grad: Operand
    input_again: Operand
    grad_again: Operand

    @property
    def products(self) -> dict[str, tuple[Operand, Operand]]:
        """Product -> its first and second operand's type."""
        return {
            "output": (self.input, self.weight),
            "grad_input": (self.grad, self.weight),
            "grad_weight": (self.grad_again, self.input_again),
        }


_E4M3 = Casts("e4m3", "e4m3", "e4m3", "e4m3", "e4m3")
_HYBRID = Casts("e4m3", "e4m3", "e5m2", "e4m3", "e5m2")
_PER_FORMAT = {"e4m3": _E4M3, "hybrid": _HYBRID, "e5m2": _HYBRID}
TABLE: dict[str, dict[str, Casts]] = {
    "tensorwise": _PER_FORMAT,
    "rowwise": _PER_FORMAT,
    "rowwise_with_gw_hp": {
        "e4m3": Casts("e4m3", "e4m3", "e4m3", "none", "none"),
        "hybrid": Casts("e4m3", "e4m3", "e5m2", "none", "none"),
        "e5m2": Casts("e5m2", "e4m3", "e5m2", "none", "none"),
    },
    "delayed": _PER_FORMAT | {"e5m2": Casts("e5m2", "e4m3", "e5m2", "e4m3", "e5m2")},
}
"""Recipe -> format -> casts."""


def casts(recipe: str, fp8_format: str) -> Casts:
    """The casts of a format under a recipe.

    Raises:
        InputError: there is no such recipe or format.
    """
    _check_known("precision.recipe", recipe, RECIPES)
    _check_known("precision.fp8_format", fp8_format, FORMATS)
    return TABLE[recipe][fp8_format]


def dtype(operand: Operand, device: torch.device) -> torch.dtype:
    """The torch type of `operand` ("e4m3" or "e5m2") on the device."""
    if operand == "e4m3":
        return torch.float8_e4m3fnuz if is_fnuz(device) else torch.float8_e4m3fn
    return torch.float8_e5m2fnuz if is_fnuz(device) else torch.float8_e5m2


def _check_known(key: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(f"must be one of {', '.join(known)}.", key=key, value=value, hint=nearest(value, known))
