"""FP8 trains as well as bf16, with every recipe and format."""

from __future__ import annotations

import functools
import statistics

import pytest

from ava.optimization.precision.float8.formats import FORMATS
from tests.optimization.precision.float8.trainings import HERE, WORKLOADS, train

if True:
    pytest.importorskip("torchao")


@functools.cache
def in_bf16(name):
    return train(WORKLOADS[name], None)


def last(losses):
    return statistics.mean(losses[-20:])


@pytest.mark.parametrize("fp8_format", FORMATS)
@pytest.mark.parametrize("recipe", HERE)
def test_a_short_training(recipe, fp8_format):
    """Thirty steps of a tiny model."""
    fp8, bf16 = train(WORKLOADS["tiny"], recipe, fp8_format), in_bf16("tiny")
    assert last(bf16) < bf16[0] - 0.1
    assert last(fp8) == pytest.approx(last(bf16), rel=0.02)
    assert fp8 != bf16


@pytest.mark.slow
@pytest.mark.parametrize("fp8_format", FORMATS)
@pytest.mark.parametrize("recipe", HERE)
def test_300_steps_of_the_small_gpt(recipe, fp8_format):
    """Prints the row of docs/precision/fp8.md."""
    fp8, bf16 = last(train(WORKLOADS["small"], recipe, fp8_format)), last(in_bf16("small"))
    print(f"\n| `{recipe}` | {fp8_format} | {fp8:.4f} | {bf16:.4f} | {100 * (fp8 / bf16 - 1):+.2f} % |")
    assert fp8 == pytest.approx(bf16, rel=0.02)


@pytest.mark.slow
def test_300_steps_in_float32():
    """What another rounding alone does to the loss, to read the other rows by."""
    fp32, bf16 = last(train(WORKLOADS["small"], None, autocast=False)), last(in_bf16("small"))
    print(f"\n| none (float32) | | {fp32:.4f} | {bf16:.4f} | {100 * (fp32 / bf16 - 1):+.2f} % |")
    assert fp32 == pytest.approx(bf16, rel=0.02)
