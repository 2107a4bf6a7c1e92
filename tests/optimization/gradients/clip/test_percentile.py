"""AutoClip against `numpy.percentile` over the norms seen."""

from __future__ import annotations

import numpy
import pytest

from ava.optimization import get_clip
from tests.optimization.gradients.clip.gradients import clipped_norms, noisy_norms


def twin(norms, percentile, history):
    return [
        min(norm, float(numpy.percentile(norms[max(0, i + 1 - history) : i + 1], percentile)))
        for i, norm in enumerate(norms)
    ]


@pytest.mark.parametrize("percentile", [10.0, 37.5, 90.0, 100.0])
@pytest.mark.parametrize("history", [1000, 20, 1])
def test_equals_the_twin(percentile, history):
    norms = noisy_norms(60)
    clip = get_clip("percentile", clip_norm=percentile, history=history)
    assert clipped_norms(clip, norms) == pytest.approx(twin(norms, percentile, history), rel=1e-5)


def test_the_first_step_is_its_own_threshold():
    assert clipped_norms(get_clip("percentile"), [3.0]) == pytest.approx([3.0])


def test_the_default_shortens_nine_steps_in_ten():
    norms = noisy_norms(400)
    left = clipped_norms(get_clip("percentile"), norms)
    assert 0.85 < numpy.mean(numpy.array(left) < 0.999 * numpy.array(norms)) < 0.95
