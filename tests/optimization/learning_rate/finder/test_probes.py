"""Short trainings around a suggestion: what is read off them."""

from __future__ import annotations

import math

import pytest

from ava.optimization.learning_rate.finder.probes import FACTORS, Probe, course_of, probe_of, suggest_from
from ava.optimization.learning_rate.finder.suggestions import NoSuggestion


def decades(*losses):
    """The suggestion's place: -0.5 at the lowest of three rates, 0.5 at the highest."""
    probes = [Probe(1e-3 * factor, loss) for factor, loss in zip(FACTORS, losses, strict=True)]
    return math.log10(suggest_from(probes).lr / 1e-3)


def test_as_good_rates_are_passed_by_a_third():
    assert decades(1.0, 1.0, 1.0) == pytest.approx(-0.5 + 1 / 3, abs=0.01)


def test_the_best_at_an_end_is_taken_near_it():
    """Between 0 and 0.5 the loss falls by 0.3, so what is within 3 % of the best is the last twentieth of that."""
    assert decades(2.0, 1.3, 1.0) == pytest.approx(0.45 + 0.05 / 3, abs=0.01)
    assert decades(1.0, 1.3, 2.0) == pytest.approx(-0.5 + 0.05 / 3, abs=0.01)


def test_a_valley_in_the_middle():
    """Lines of slope 0.5 a half decade: 3 % on either side."""
    assert decades(1.5, 1.0, 1.5) == pytest.approx(-0.03 + 0.06 / 3, abs=0.005)


def test_a_rate_that_diverges_is_none():
    assert decades(1.2, 1.0, math.inf) == pytest.approx(-0.075 + 0.075 / 3, abs=0.01)


def test_losses_below_zero():
    """Likelihoods of densities: less is better there too."""
    assert decades(-1.0, -2.0, -1.0) == pytest.approx(-0.01, abs=0.01)


def test_no_finite_loss_is_refused():
    with pytest.raises(NoSuggestion, match=r"no short training at 0\.00032, 0\.001, 0\.0032 ended with a finite loss"):
        decades(math.inf, math.inf, math.inf)


def test_a_probe_is_a_1cycle_and_its_loss_that_of_the_end():
    rates, momenta = zip(*course_of(0.1, 20), strict=True)
    assert max(rates) == pytest.approx(0.1)
    assert (rates[0], rates[-1]) == pytest.approx((0.1 / 25, 0.1 / 1e4))
    assert min(momenta) == pytest.approx(0.85)
    assert probe_of(0.1, [9.0] * 16 + [1.0, 2.0, 3.0, 2.0], 20) == Probe(0.1, 2.0)
    assert probe_of(0.1, [9.0] * 16, 20).loss == math.inf
    assert probe_of(0.1, [9.0] * 19 + [math.nan], 20).loss == math.inf
