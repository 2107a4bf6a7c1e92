"""The scheduler that is a warmup and no more."""

from __future__ import annotations

import pytest
import torch

from ava.errors import InputError
from ava.optimization import AdvancedWarmupScheduler, WarmupConfig
from tests.optimization.learning_rate.curves import curve, sgd


def rates_of(config, steps, **options):
    optimizer = sgd(**options)
    return curve(optimizer, AdvancedWarmupScheduler(optimizer=optimizer, config=config), steps)


def test_of_the_guide():
    config = WarmupConfig(warmup_type="linear", warmup_steps=1000, initial_lr=1e-7, target_lr=1e-4)
    rates = rates_of(config, 1010)[:, 0]
    assert (rates[0].item(), rates[500].item()) == pytest.approx((1e-7, (1e-7 + 1e-4) / 2))
    assert (rates[1000:] == 1e-4).all()
    assert rates[999] < 1e-4
    optimizer = sgd()
    assert AdvancedWarmupScheduler(optimizer, config).get_last_lr()[0] == pytest.approx(1e-7)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"warmup_type": "linear", "initial_lr": 0.0}, [0, 0.02, 0.04, 0.06, 0.08, 0.08]),
        ({"warmup_type": "cosine", "initial_lr": 0.0},
         [0, 0.04 * (1 - 0.5**0.5), 0.04, 0.04 * (1 + 0.5**0.5), 0.08, 0.08]),
        ({"warmup_type": "exponential", "initial_lr": 0.005}, [0.005, 0.01, 0.02, 0.04, 0.08, 0.08]),
        ({"warmup_type": "custom", "initial_lr": 0.04, "curve": [0, 0.1, 1]},
         [0.04, 0.042, 0.044, 0.062, 0.08, 0.08]),
        ({"warmup_type": "custom", "initial_lr": 0.04, "curve": lambda share: share**2},
         [0.04, 0.0425, 0.05, 0.0625, 0.08, 0.08]),
        ({"warmup_steps": 0}, [0.08] * 6),
    ],
)  # fmt: skip
def test_forms(options, expected):
    rates = rates_of(WarmupConfig(**{"warmup_steps": 4, "target_lr": 0.08, **options}), 6)
    assert rates[:, 0].tolist() == pytest.approx(expected)
    torch.testing.assert_close(rates[:, 1], rates[:, 0] / 10)


def test_without_a_target_it_leads_to_the_optimizers_own_rates():
    rates = rates_of(WarmupConfig(warmup_steps=2, initial_lr=0.05), 4)
    assert rates[:, 0].tolist() == pytest.approx([0.05, 0.075, 0.1, 0.1])
    assert rates[:, 1].tolist() == pytest.approx([0.005, 0.0075, 0.01, 0.01])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"warmup_type": "square"}, r"warmup_type=square.*'cosine'"),
        ({"warmup_steps": -1}, r"warmup_steps=-1"),
        ({"warmup_steps": 0.1}, r"warmup_steps=0\.1"),
        ({"initial_lr": -1e-7}, r"initial_lr=-1e-07"),
        ({"target_lr": -1.0}, r"target_lr=-1"),
        ({"warmup_type": "custom"}, r"warmup_type=custom: custom needs a curve"),
        ({"curve": [0, 1]}, r"warmup_type=linear: only custom has a curve"),
        ({"warmup_type": "custom", "curve": [1]}, r"curve=.*two ends"),
        ({"warmup_type": "exponential", "initial_lr": 0}, r"initial_lr=0.*exponential"),
        ({"initial_lr": 0.2}, r"initial_lr=0\.2: must be at most the rate.*0\.1"),
        ({"initial_lr": 0.2, "target_lr": 0.15}, r"initial_lr=0\.2.*0\.15"),
        ({"initial_lr": 0.0, "target_lr": 0.0}, r"initial_lr=0.*above 0"),
    ],
)
def test_what_cannot_be_is_refused(options, says):
    with pytest.raises(InputError, match=says):
        AdvancedWarmupScheduler(sgd(), WarmupConfig(**options))


def test_ratios_need_a_first_rate():
    with pytest.raises(InputError, match=r"param_groups\[0\]\.lr=0"):
        AdvancedWarmupScheduler(sgd(0.0), WarmupConfig(target_lr=0.1))
