"""What the detector takes for its level: after vanished gradients, after an alarm, and in noise at any sensitivity."""

from __future__ import annotations

import math
import random

import pytest

from ava.optimization import HindranceDetector

from .series import from_step, training, verdicts

THRESHOLDS = [0.0005, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0]


def heavy_tail(generator: random.Random) -> float:
    return generator.gauss(0, 0.15) + (0.75 if generator.random() < 0.03 else 0.0)


@pytest.mark.parametrize("rise", [2.5, 4.0])
@pytest.mark.parametrize(
    "noise", [lambda g: g.gauss(0, 0.15), lambda g: g.gauss(0, 0.3), heavy_tail], ids=["0.15", "0.3", "heavy tail"]
)
def test_sensitivity_is_monotone_in_the_threshold(noise, rise):
    def seen(threshold: float) -> tuple[int, float]:
        count, alarms = 0, 0.0
        for seed in range(8):
            generator, detector = random.Random(seed), HindranceDetector(threshold, detectors=["explosion"])
            alarms += sum(detector.judge(math.exp(noise(generator))).is_bad for _ in range(200))
            count += bool(detector.judge(math.exp(noise(generator)) * rise).is_bad)
        return count, alarms

    counts, alarms = zip(*map(seen, THRESHOLDS), strict=True)
    assert list(counts) == sorted(counts, reverse=True)
    assert list(alarms) == sorted(alarms, reverse=True)
    assert counts[0] >= 6


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("share", [0.0, 1e-8, 1e-4, 1e-3, 5e-3])
@pytest.mark.parametrize("steps", [1, 10, 30, 100, 400])
def test_gradients_that_come_back_are_no_explosion(steps, share, seed):
    fault, detector = from_step(150, norm=share, until=150 + steps), HindranceDetector()
    found = verdicts(300 + steps, fault, detector, seed=seed)
    assert not any(v.is_bad or v.persistent for v in found)
    assert all(v.gradient_factor == 1 for v in found)
    assert detector.judge(60.0, found[-1].expected_loss).is_bad, "the usual level is known as before"


def test_updates_that_come_back_are_not_shrunk():
    detector = HindranceDetector()
    for step, (norm, _) in enumerate(training(400)):
        assert detector.judge_update(norm * (1e-4 if 150 <= step < 250 else 1.0)) == 1


def test_explosion_out_of_vanished_gradients_is_brought_to_the_usual_level():
    found = verdicts(200, lambda step, norm, loss: (norm * (1e-4 if step < 190 else 50.0), loss)
                     if 150 <= step < 191 else (norm, loss))  # fmt: skip
    assert [step for step, v in enumerate(found) if v.is_bad] == [190]
    assert 0.01 < found[190].gradient_factor < 0.1


@pytest.mark.parametrize("steps", [300, 3000])
def test_norm_that_falls_slowly_is_followed(steps):
    found = verdicts(steps + 200, lambda step, norm, loss: (norm * 1e-3 ** min(step / steps, 1.0), loss))
    assert found[-1].expected_norm == pytest.approx(1e-3, rel=0.3)
    assert not any(v.is_bad for v in found)


@pytest.mark.parametrize("start", [15, 150])
def test_norm_that_has_fallen_for_good_is_followed_in_the_end(start):
    found = verdicts(700, from_step(start, norm=1e-4))
    assert found[start + 40].expected_norm == pytest.approx(1.0, rel=0.3)
    assert found[-1].expected_norm == pytest.approx(1e-4, rel=0.3)
    assert not any(v.is_bad for v in found)


def test_high_first_norm_is_soon_forgotten():
    found = verdicts(100, from_step(0, norm=1e4, until=5))
    assert found[-1].expected_norm == pytest.approx(1.0, rel=0.3)


@pytest.mark.parametrize("seed", range(5))
def test_sum_of_surprises_does_not_repeat_what_an_alarm_told(seed):
    """Five steps of a loss far too high, and three a little above noise: not eight bad ones."""
    fault = {**dict.fromkeys(range(100, 105), 2.5), **dict.fromkeys(range(105, 108), 1.13)}
    found = verdicts(140, lambda step, norm, loss: (norm, loss * fault.get(step, 1.0)), seed=seed)
    assert [step for step, v in enumerate(found) if v.is_bad] == [100, 101, 102, 103, 104]
    assert not any(v.persistent for v in found)
