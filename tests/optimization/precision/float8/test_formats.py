"""Every combination of recipe and format keeps a GPU's rules."""

import pytest
import torch

from ava.errors import InputError
from ava.optimization.precision.float8.formats import FORMATS, RECIPES, TABLE, casts
from ava.optimization.precision.float8.hardware import check_product

EVERY = [(recipe, name) for recipe in RECIPES for name in FORMATS]


@pytest.mark.parametrize(("recipe", "fp8_format"), EVERY)
def test_no_product_is_of_two_e5m2(recipe, fp8_format):
    assert ("e5m2", "e5m2") not in casts(recipe, fp8_format).products.values()


@pytest.mark.parametrize(("recipe", "fp8_format"), [pair for pair in EVERY if pair[0].startswith("rowwise")])
def test_with_a_scale_for_each_row_the_second_operand_is_e4m3(recipe, fp8_format):
    assert {second for _, second in casts(recipe, fp8_format).products.values()} <= {"e4m3", "none"}


def test_no_legal_assignment_has_more_range():
    """With one type per operand, a second e5m2 operand always meets the first."""
    assert casts("tensorwise", "e5m2").grad == "e5m2"
    assert casts("delayed", "e5m2").input == casts("rowwise_with_gw_hp", "e5m2").input == "e5m2"
    assert all("e5m2" not in vars(TABLE[recipe]["e4m3"]).values() for recipe in RECIPES)


@pytest.mark.parametrize(
    ("recipe", "fp8_format", "message"),
    [("delyed", "hybrid", "Did you mean `delayed`"), ("rowwise", "e4m4", "one of e4m3, e5m2, hybrid")],
    ids=["recipe", "format"],
)
def test_a_typo_is_refused(recipe, fp8_format, message):
    with pytest.raises(InputError, match=message):
        casts(recipe, fp8_format)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.zeros(16, 16, dtype=torch.float8_e5m2), torch.zeros(16, 16, dtype=torch.float8_e5m2), "two e5m2"),
        (torch.zeros(16, 24, dtype=torch.float8_e5m2), torch.zeros(24, 16, dtype=torch.float8_e4m3fn), "multiples"),
        (torch.zeros(16, 16, dtype=torch.float8_e5m2), torch.zeros(16, 24, dtype=torch.float8_e4m3fn), "multiples"),
    ],
    ids=["e5m2", "inner", "outer"],
)
def test_a_product_that_a_gpu_refuses_is_refused_here(a, b, message):
    one = torch.tensor(1.0)
    torch._scaled_mm(a, b.t().contiguous().t(), scale_a=one, scale_b=one, out_dtype=torch.float32)
    with pytest.raises(ValueError, match=message):
        check_product(a, b)
