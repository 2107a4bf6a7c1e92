"""What the hindrance detector sees, and what it leaves alone."""

from __future__ import annotations

import math
import random

import pytest
import torch

from ava.errors import InputError
from ava.optimization import HindranceDetector, Verdict, get_detector, list_detectors
from ava.optimization.stability.baseline import SLOTS

from .series import from_step, training, verdicts

NAMES = ["explosion", "loss_spike", "nonfinite", "oscillation", "stagnation", "vanishing"]


def first(found: list[Verdict], name: str) -> int | None:
    return next((step for step, verdict in enumerate(found) if getattr(verdict, name) > 0), None)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("noise", [0.0, 0.01, 0.05, 0.2])
def test_clean_training_is_left_alone(noise, seed):
    found = verdicts(400, from_step(10**9), seed=seed, noise=noise)
    assert first(found, "skip") is first(found, "persistent") is None
    assert all(v.gradient_factor == 1 for v in found)
    assert all(0 <= v.hindrance <= 1 for v in found)


@pytest.mark.parametrize("step", [5, 60, 300])
@pytest.mark.parametrize("what", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_skipped_and_not_learnt(what, step):
    detector, twin = HindranceDetector(detectors=["explosion", "loss_spike"]), HindranceDetector()
    for norm, loss in training(step):
        detector.judge(norm, loss)
        twin.judge(norm, loss)
    learnt = slice(0, 2 * len(SLOTS))
    before = detector.memory[learnt].clone()
    assert detector.judge(what, what).skip == 1
    verdict = twin.judge(1.0, what)
    assert (verdict.skip, verdict.is_bad, verdict.causes["nonfinite"]) == (1, 1, 1)
    assert torch.equal(detector.memory[learnt], before)


@pytest.mark.parametrize("seed", range(3))
def test_tripled_loss_is_skipped_at_once_and_the_next_is_not(seed):
    found = verdicts(200, from_step(120, loss=3.0, until=121), seed=seed)
    assert [step for step, v in enumerate(found) if v.skip] == [120]
    assert found[120].causes["loss_spike"] >= 0.5
    assert found[120].is_bad
    assert not found[120].persistent


@pytest.mark.parametrize("size", [30.0, 1e4, 1e30])
def test_outlying_norm_is_brought_near_the_expected_one(size):
    found = verdicts(130, from_step(120, norm=size, until=121))
    verdict = found[120]
    norms = [norm for norm, _ in training(130)]
    brought = norms[120] * size * verdict.gradient_factor
    assert verdict.causes["explosion"] >= 0.5
    assert verdict.is_bad
    assert not verdict.skip
    assert verdict.expected_norm < brought < 3 * verdict.expected_norm
    assert found[121].gradient_factor == 1
    assert not found[121].is_bad


@pytest.mark.parametrize(
    ("loss", "norm", "within"), [(2.0, 1.0, 10), (1.5, 1.0, 20), (30.0, 30.0, 8), (1.0, 20.0, 10)],
    ids=["loss x2", "loss x1.5", "weights x30", "norm x20"],
)  # fmt: skip
@pytest.mark.parametrize("seed", range(3))
def test_what_moved_for_good_is_persistent(loss, norm, within, seed):
    found = verdicts(140, from_step(100, norm=norm, loss=loss), seed=seed)
    assert 100 <= first(found, "persistent") < 100 + within


@pytest.mark.parametrize("rate", [1.03, 1.05, 1.1])
def test_slow_blow_up_is_persistent(rate):
    found = verdicts(160, lambda step, norm, loss: (norm, loss * rate ** max(0, step - 100)))
    assert 100 < first(found, "persistent") < 135


def test_bad_start_is_persistent():
    found = verdicts(20, lambda step, norm, loss: (norm, loss * 1.3 ** min(step, 12)))
    assert first(found, "persistent") is not None


def test_absurd_jump_is_seen_before_the_noise_is_known():
    assert verdicts(5, from_step(4, norm=1000.0))[4].gradient_factor < 0.02
    assert verdicts(5, from_step(4, loss=50.0))[4].skip
    assert not any(v.is_bad for v in verdicts(8, from_step(4, norm=5.0, loss=1.5)))


def test_rows_of_bad_and_of_nonfinite_steps_are_persistent():
    bad = verdicts(120, from_step(100, loss=2.5), HindranceDetector(bad_steps=3))
    assert first(bad, "persistent") == 102
    spoilt = verdicts(120, from_step(100, loss=math.nan), HindranceDetector(nonfinite_steps=4))
    assert first(spoilt, "persistent") == 103
    assert all(v.persistent for v in spoilt[103:]), "what is not finite is never accepted"


def test_alarm_freezes_the_statistics_but_not_for_ever():
    found = verdicts(260, from_step(100, loss=4.0))
    expected = [v.expected_loss for v in found]
    assert max(expected[101:125]) < 1.5 * expected[100]
    assert any(v.skip for v in found[100:125])
    assert not any(v.skip for v in found[150:])
    assert expected[200] > 2.5 * expected[100]


def test_expected_values_follow():
    found = verdicts(300, from_step(10**9), noise=0.02)
    assert math.isnan(found[0].expected_norm)
    assert math.isnan(found[0].expected_loss)
    assert found[250].expected_loss == pytest.approx(0.5 + 2 * math.exp(-250 / 60), rel=0.05)
    assert found[250].expected_norm == pytest.approx(1.0, rel=0.25)


@pytest.mark.parametrize("center", [0.0, -3.0, 1e-6, 1e6], ids=["zero", "negative", "tiny", "huge"])
def test_losses_of_any_sign_and_size(center):
    scale = max(abs(center), 1.0) if center <= 0 else center
    detector = HindranceDetector()
    for step, (norm, _) in enumerate(training(300)):
        loss = center + 0.05 * scale * math.sin(7.3 * step)
        assert not detector.judge(norm, loss).is_bad
    assert detector.judge(1.0, center + 100 * scale).skip


def test_loss_may_be_unknown():
    detector = HindranceDetector()
    for norm, _ in training(100):
        verdict = detector.judge(norm)
        assert not verdict.is_bad
        assert math.isnan(verdict.expected_loss)
    assert detector.judge(50.0).is_bad


def test_smaller_threshold_alarms_earlier():
    def spikes(threshold: float) -> int:
        detector = HindranceDetector(threshold=threshold)
        return sum(v.is_bad for v in verdicts(600, lambda s, n, x: (n * (1 + s % 50 // 49 * s / 100), x), detector))

    counted = [spikes(threshold) for threshold in (0.01, 0.1, 1.0)]
    assert counted[0] > counted[1] > counted[2]


def test_update_that_is_an_outlier_is_shrunk():
    detector = HindranceDetector()
    for norm, _ in training(100):
        assert detector.judge_update(0.01 * norm) == 1
    assert detector.judge_update(1.0) == pytest.approx(0.02, rel=0.5)
    assert detector.judge_update(math.inf) == 0
    assert detector.judge_update(math.nan) == 1
    assert detector.judge_update(0.0) == 1


@pytest.mark.parametrize("noise", [0.05, 0.1])
@pytest.mark.parametrize("seed", range(3))
def test_trend_of_the_warmup_is_no_noise_afterwards(noise, seed):
    """A norm that rose by 15 within the warmup, as an update's does: 45 steps later only its noise is left."""
    generator, detector = random.Random(seed), HindranceDetector()
    for step in range(60):
        norm = 0.01 * min(step + 1, 15) * math.exp(generator.gauss(0, noise))
        assert detector.judge_update(norm) == 1
    remembered = dict(zip(detector._memory.slots, detector.memory.tolist(), strict=True))
    assert remembered["update/variance"] ** 0.5 < 4 * noise
    for rise in (3.0, 27.0):
        before = detector.memory.clone()
        assert detector.judge_update(0.15 * rise) == pytest.approx(1 / rise, rel=0.6)
        detector.memory.copy_(before)


@pytest.mark.parametrize("seed", range(5))
def test_loss_a_little_too_high_for_some_steps_is_bad_but_not_persistent(seed):
    found = verdicts(160, from_step(100, loss=math.exp(4.5 * 0.05), until=110), seed=seed)
    bad = [step for step, v in enumerate(found) if v.is_bad]
    assert bad
    assert 100 <= min(bad) <= 107
    assert max(bad) < 112
    assert not any(v.persistent or v.skip for v in found)


@pytest.mark.parametrize("seed", range(3))
def test_correlated_noise_of_the_loss_is_not_persistent(seed):
    generator, detector, noise = random.Random(seed), HindranceDetector(), 0.0
    for _ in range(1000):
        noise = 0.8 * noise + 0.6 * generator.gauss(0, 0.06)
        verdict = detector.judge(1.0, 2 * math.exp(noise))
        assert verdict.persistent == verdict.skip == 0


@pytest.mark.parametrize("factor", [10.0, 0.1])
def test_rate_that_jumps_restarts_what_depends_on_it(factor):
    detector = HindranceDetector()
    for norm, loss in training(100):
        detector.tell(lr=1e-3, phase="main")
        detector.judge(norm, loss)
        detector.judge_update(0.01 * norm)
    for norm, loss in training(30, seed=1):
        detector.tell(lr=1e-3 * factor)
        assert not detector.judge(3 * norm, loss / 2).is_bad
        assert detector.judge_update(0.01 * norm * factor) == 1


def test_batch_size_that_changes_restarts_and_a_short_batch_does_not():
    detector = HindranceDetector()
    for step, (norm, loss) in enumerate(training(300)):
        is_short = step % 15 == 14
        detector.tell(batch_size=2 if is_short else 64)
        assert not detector.judge(norm * (5 if is_short else 1), loss * (1.7 if is_short else 1)).is_bad
    for norm, loss in training(40, seed=1):
        detector.tell(batch_size=4)
        assert not detector.judge(4 * norm, 0.6 * loss / loss).persistent


def test_thresholds_are_wider_in_the_warmup():
    def alarms(phase: str) -> int:
        detector = HindranceDetector()
        detector.tell(phase=phase)
        return sum(v.is_bad for v in verdicts(200, lambda s, n, x: (n * (3.1 if s % 50 == 49 else 1), x), detector))

    assert alarms("warmup") <= alarms("main")


def test_norm_that_rises_as_the_rate_falls_is_no_alarm():
    found = verdicts(600, lambda step, norm, loss: (norm * math.exp(step / 200), loss))
    assert not any(v.is_bad for v in found)


def test_vanishing_warns_only():
    found = verdicts(260, lambda step, norm, loss: (norm * (1e-5 if step > 150 else 1), loss))
    assert found[140].causes["vanishing"] == 0
    assert found[250].causes["vanishing"] == 1
    assert found[250].hindrance == 1
    assert not any(v.is_bad or v.persistent for v in found)
    none = verdicts(260, lambda step, norm, loss: (0.0 if step > 150 else norm, loss))
    assert none[250].causes["vanishing"] == 1
    assert not none[250].is_bad


def test_oscillation_warns_only():
    found = verdicts(300, lambda step, norm, loss: (norm, loss * (1.3 if step % 2 else 0.7)))
    assert found[-1].causes["oscillation"] > 0.5
    assert not found[-1].is_bad
    assert verdicts(300, from_step(10**9), noise=0.2)[-1].causes["oscillation"] == 0


def test_stagnation_warns_only():
    found = verdicts(2000, lambda step, norm, loss: (norm, 1.0 + 0.01 * math.sin(step)))
    assert found[400].causes["stagnation"] == 0
    assert found[-1].causes["stagnation"] == 1
    assert not found[-1].is_bad
    falling = verdicts(2000, lambda step, norm, loss: (norm, math.exp(-step / 500)))
    assert falling[-1].causes["stagnation"] == 0


@pytest.mark.parametrize("name", ["nonfinite_steps", "bad_steps", "sigmas", "clip_sigmas", "threshold"])
@pytest.mark.parametrize("value", [0, -1, math.nan, "many", True])
def test_values_that_cannot_be_are_refused(name, value):
    with pytest.raises(InputError, match=name):
        HindranceDetector(**{name: value})


def test_threshold_and_names_are_checked():
    with pytest.raises(InputError, match="at most 1"):
        HindranceDetector(threshold=1.5)
    with pytest.raises(InputError, match="explosion"):
        HindranceDetector(detectors=["explosio"])
    for names in ([], ["nonfinite", "nonfinite"], "nonfinite"):
        with pytest.raises(InputError, match="list of different names"):
            HindranceDetector(detectors=names)
    with pytest.raises(InputError, match="warmup"):
        HindranceDetector().tell(phase="start")


def test_detectors_are_listed_and_chosen():
    assert set(NAMES) <= set(list_detectors())
    assert callable(get_detector("explosion"))
    verdict = HindranceDetector(detectors={"nonfinite": {}, "stagnation": {"patience": 3}}).judge(math.nan, 1.0)
    assert list(verdict.causes) == ["nonfinite", "stagnation"]
    assert set(verdict.numbers()) >= {"hindrance", "hindrance/nonfinite", "skip", "expected_loss"}
