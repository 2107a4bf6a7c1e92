"""How often the loss monitor cries wolf, and what it sees.

Printed by `python -m tests.optimization.gradients.health.test_loss`: false alarms over 200,000 clean losses (20 seeds
of 10,000), and the share of spikes seen that multiply the loss of one step, 1,000 of each.
"""

from __future__ import annotations

import math

import pytest
import torch

from ava.errors import InputError
from ava.optimization.gradients.health.loss import LossHealthMonitor


def stationary(generator, count):
    """About 2.5, with the noise of a small batch (sigma 0.2)."""
    return 2.5 + 0.2 * torch.randn(count, generator=generator, dtype=torch.float64)


def falling(generator, count):
    """A power law from 10 to about 1.7, with noise of 8 % of the loss."""
    curve = 1.5 + 8.5 * (1 + torch.arange(count, dtype=torch.float64)) ** -0.4
    return curve * (1 + 0.08 * torch.randn(count, generator=generator, dtype=torch.float64))


def skewed(generator, count):
    """Log-normal about 1 (sigma 0.25): the right tail is the heavier one."""
    return torch.exp(0.25 * torch.randn(count, generator=generator, dtype=torch.float64))


SHAPES = {"stationary": stationary, "falling": falling, "skewed": skewed}


def alarms(shape, count, seed):
    """False alarms among clean losses."""
    monitor = LossHealthMonitor()
    losses = SHAPES[shape](torch.Generator().manual_seed(seed), count).tolist()
    return sum(monitor.check_loss(loss)["is_spike"] for loss in losses)


def seen(shape, times, count, spacing=50, seed=0):
    """The share of spikes seen, one every `spacing` steps after the first 200."""
    monitor = LossHealthMonitor()
    losses = SHAPES[shape](torch.Generator().manual_seed(seed), 200 + count * spacing).tolist()
    found = 0
    for step, loss in enumerate(losses):
        is_spiked = step >= 200 and step % spacing == 0
        found += monitor.check_loss(loss * times if is_spiked else loss)["is_spike"] and is_spiked
    return found / count


@pytest.mark.parametrize(("shape", "most"), [("stationary", 0), ("falling", 0), ("skewed", 20)])
def test_false_alarms_are_rare(shape, most):
    """Of 20,000 clean losses."""
    assert sum(alarms(shape, 10_000, seed) for seed in (0, 1)) <= most


@pytest.mark.parametrize(("shape", "least"), [("stationary", 1.0), ("falling", 0.9), ("skewed", 0.7)])
def test_tripled_losses_are_seen(shape, least):
    assert seen(shape, 3.0, 100) >= least


def test_a_spike_does_not_hide_the_next():
    monitor = LossHealthMonitor()
    losses = stationary(torch.Generator().manual_seed(0), 200).tolist()
    for loss in losses:
        monitor.check_loss(loss)
    assert [monitor.check_loss(25.0)["is_spike"] for _ in range(3)] == [True] * 3


def test_a_lasting_new_level_is_learned():
    monitor = LossHealthMonitor()
    generator = torch.Generator().manual_seed(0)
    for loss in stationary(generator, 200).tolist():
        monitor.check_loss(loss)
    verdicts = [monitor.check_loss(2 * loss) for loss in stationary(generator, 200).tolist()]
    assert verdicts[0]["is_spike"]
    assert not any(v["is_spike"] for v in verdicts[60:])
    assert verdicts[-1]["mean"] == pytest.approx(5.0, rel=0.1)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf], ids=["nan", "inf", "minus_inf"])
def test_what_is_not_finite_is_told_and_forgotten(bad):
    monitor = LossHealthMonitor()
    for loss in stationary(torch.Generator().manual_seed(0), 30).tolist():
        monitor.check_loss(loss)
    before = monitor.state_dict()
    verdict = monitor.check_loss(torch.tensor(bad))
    assert (verdict["is_nan"], verdict["is_inf"], verdict["is_spike"]) == (math.isnan(bad), math.isinf(bad), False)
    assert monitor.state_dict() == before


def test_mean_and_deviation_are_those_of_the_first_losses():
    monitor = LossHealthMonitor(window=1000, warmup=50)
    losses = stationary(torch.Generator().manual_seed(0), 50)
    for loss in losses:
        monitor.check_loss(loss)
    verdict = monitor.check_loss(2.5)
    assert verdict["mean"] == pytest.approx(losses.mean().item())
    assert verdict["std"] == pytest.approx(losses.std(correction=0).item())
    assert verdict["zscore"] == pytest.approx((2.5 - verdict["mean"]) / verdict["std"])


@pytest.mark.parametrize("slope", [-0.01, 0.0, 0.02])
def test_the_trend_is_the_change_per_step(slope):
    monitor = LossHealthMonitor()
    for step in range(600):
        verdict = monitor.check_loss(5.0 + slope * step)
    assert verdict["trend"] == pytest.approx(slope, abs=1e-3)


@pytest.mark.parametrize("level", [0.0, -3.0, 1e-9, 1e9])
def test_the_unit_and_the_sign_of_a_loss_do_not_matter(level):
    unit = abs(level) or 1.0
    plain, moved = LossHealthMonitor(), LossHealthMonitor()
    for loss in stationary(torch.Generator().manual_seed(0), 300).tolist():
        a, b = plain.check_loss(loss), moved.check_loss(unit * loss + (level if level <= 0 else 0.0))
    assert b["zscore"] == pytest.approx(a["zscore"], rel=1e-6)
    assert plain.check_loss(10.0)["is_spike"]
    assert moved.check_loss(unit * 10.0 + (level if level <= 0 else 0.0))["is_spike"]


def test_a_constant_loss_has_no_spikes_by_rounding():
    monitor = LossHealthMonitor()
    verdicts = [monitor.check_loss(0.1 + 1e-9 * (step % 2)) for step in range(100)]
    assert not any(v["is_spike"] for v in verdicts)
    assert monitor.check_loss(0.2)["is_spike"]


def test_before_the_warmup_there_is_no_verdict():
    monitor = LossHealthMonitor(warmup=5)
    verdicts = [monitor.check_loss(loss) for loss in (1.0, 1.1, 0.9, 100.0, 1.0)]
    assert all(math.isnan(v["zscore"]) and not v["is_spike"] for v in verdicts)


def test_a_resumed_monitor_continues():
    losses = skewed(torch.Generator().manual_seed(0), 100).tolist()
    through, resumed = LossHealthMonitor(), LossHealthMonitor()
    for loss in losses:
        through.check_loss(loss)
    resumed.load_state_dict(through.state_dict())
    assert [through.check_loss(v) for v in losses] == [resumed.check_loss(v) for v in losses]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: LossHealthMonitor(window=1), "window=1"),
        (lambda: LossHealthMonitor(warmup=0), "warmup=0"),
        (lambda: LossHealthMonitor(spike_threshold=0.0), "above 0"),
        (lambda: LossHealthMonitor().check_loss(torch.ones(2)), "one number"),
    ],
    ids=["window", "warmup", "threshold", "shape"],
)
def test_what_cannot_be_is_refused(call, says):
    with pytest.raises(InputError, match=says):
        call()


if __name__ == "__main__":
    for name in SHAPES:
        false = sum(alarms(name, 10_000, seed) for seed in range(20))
        shares = ", ".join(f"x{times:g}: {seen(name, times, 1000):.1%}" for times in (1.5, 2.0, 3.0))
        print(f"{name:10s} {false / 20:.2f} false alarms in 10,000 losses; seen {shares}")
