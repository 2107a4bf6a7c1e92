"""ZClip against a twin that follows the paper's algorithm, step by step in float64."""

from __future__ import annotations

import math
import statistics

import pytest

from ava.optimization import get_clip
from tests.optimization.gradients.clip.gradients import clipped_norms, noisy_norms


def twin(norms, threshold=2.5, alpha=0.97, warmup=25):
    first, left = norms[:warmup], list(norms[:warmup])
    mean, variance = statistics.fmean(first), statistics.pvariance(first)
    for norm in norms[warmup:]:
        deviation = math.sqrt(variance)
        z = (norm - mean) / deviation
        norm = mean + threshold**2 / z * deviation if z > threshold else norm
        mean = alpha * mean + (1 - alpha) * norm
        variance = alpha * variance + (1 - alpha) * (norm - mean) ** 2
        left.append(norm)
    return left


SPIKES = [v * (30.0 if i % 41 == 0 else 4.0 if i % 29 == 0 else 1.0) for i, v in enumerate(noisy_norms(200), 1)]


@pytest.mark.parametrize(
    "options",
    [{}, {"clip_norm": 2.0, "alpha": 0.9, "warmup": 10}, {"warmup": 1, "clip_norm": 4.0}],
    ids=["paper", "eager", "no_warmup"],
)
def test_equals_the_twin(options):
    named = {"threshold" if key == "clip_norm" else key: value for key, value in options.items()}
    norms = SPIKES if options.get("warmup") != 1 else [1.0]
    assert clipped_norms(get_clip("zscore", **options), norms) == pytest.approx(twin(norms, **named), rel=1e-4)


def test_the_larger_the_spike_the_nearer_to_the_mean():
    left = []
    for spike in (3.0, 10.0, 100.0):
        clip = get_clip("zscore")
        left.append(clipped_norms(clip, [*noisy_norms(50), spike])[-1])
    assert left == sorted(left, reverse=True)
    assert 0.9 < left[-1] < 1.1


def test_the_warmup_lets_all_through():
    norms = SPIKES[:25]
    assert clipped_norms(get_clip("zscore"), norms) == pytest.approx(norms, rel=1e-6)


@pytest.mark.parametrize(("times", "least", "most"), [(2.0, 0.0, 0.05), (3.0, 1.0, 1.0), (5.0, 1.0, 1.0)])
def test_a_lasting_rise_is_learned_up_to_twice_and_else_clipped_for_good(times, least, most):
    """As published: what is clipped to the mean teaches no other mean. The documentation says so."""
    risen = [times * norm for norm in noisy_norms(2000, seed=1)]
    left = clipped_norms(get_clip("zscore"), [*noisy_norms(100), *risen])[100:]
    assert least <= share_clipped(left[-500:], risen[-500:]) <= most


def test_two_or_three_clean_norms_in_a_hundred_are_clipped():
    norms = noisy_norms(2000)
    assert 0.02 < share_clipped(clipped_norms(get_clip("zscore"), norms), norms) < 0.03


def share_clipped(left, norms):
    return statistics.fmean(a < 0.999 * b for a, b in zip(left, norms, strict=True))


def test_a_norm_whose_square_overflows_does_not_end_clipping():
    """An infinite variance would stay so for good, and nothing would ever be a spike."""
    norms = [1.0, 1.1, 1e25, 0.9, 1.0, 1.1, 0.9, 1.0, 1000.0]
    assert clipped_norms(get_clip("zscore", warmup=5), norms)[-1] < 2.0
