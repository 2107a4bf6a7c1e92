"""`GradientConflictAnalyzer` finds who pulls against whom."""

from __future__ import annotations

import pytest
import torch

from ava.errors import InputError
from ava.optimization import GradientConflictAnalyzer

EAST, NORTH = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])


def test_cosines_similarity_and_counts():
    found = GradientConflictAnalyzer().analyze([[EAST], [3 * NORTH], [-2 * EAST + 2 * NORTH]])
    half = 0.5**0.5
    expected = torch.tensor([[1.0, 0, -half], [0, 1, half], [-half, half, 1]], dtype=torch.float64)
    torch.testing.assert_close(found["cosines"], expected)
    torch.testing.assert_close(found["magnitude_similarity"][0, 1].item(), 0.6)
    assert (found["num_pairs"], found["num_conflicts"]) == (3, 1)
    assert found["conflict_share"] == pytest.approx(1 / 3)
    assert found["min_cosine"] == pytest.approx(-half)


@pytest.mark.parametrize(("threshold", "conflicts"), [(0.0, 1), (-0.5, 1), (-0.8, 0), (0.1, 2), (1.0, 3)])
def test_the_threshold_says_what_a_conflict_is(threshold, conflicts):
    gradients = [[EAST], [NORTH], [NORTH - EAST]]
    assert GradientConflictAnalyzer(threshold).analyze(gradients)["num_conflicts"] == conflicts


@pytest.mark.parametrize("scale", [1e-25, 1e-6, 1e6, 1e25])
def test_scale_does_not_matter(scale):
    gradients = [[torch.randn(50, generator=torch.Generator().manual_seed(s)), None] for s in range(4)]
    plain = GradientConflictAnalyzer().analyze(gradients)["cosines"]
    scaled = GradientConflictAnalyzer().analyze([[row[0] * scale, None] for row in gradients])["cosines"]
    torch.testing.assert_close(scaled, plain, rtol=1e-5, atol=1e-6)


def test_only_shared_tensors_are_compared():
    found = GradientConflictAnalyzer().analyze([[EAST, NORTH, None], [NORTH, None, EAST]])
    assert torch.equal(found["cosines"], torch.eye(2, dtype=torch.float64))


def test_zero_pulls_against_nobody():
    found = GradientConflictAnalyzer().analyze([[EAST], [torch.zeros(2)]])
    assert found["cosines"].tolist() == [[1, 0], [0, 1]]
    assert found["num_conflicts"] == 0
    assert GradientConflictAnalyzer().analyze([[torch.zeros(2)]] * 2)["magnitude_similarity"].eq(1).all()


def test_one_objective_has_no_pairs():
    found = GradientConflictAnalyzer().analyze([[EAST]])
    assert (found["num_pairs"], found["num_conflicts"], found["conflict_share"], found["min_cosine"]) == (
        0,
        0,
        0.0,
        1.0,
    )


def test_the_means_of_several_steps():
    analyzer = GradientConflictAnalyzer()
    assert analyzer.get_stats()["num_steps"] == 0
    analyzer.analyze([[EAST], [EAST]])
    analyzer.analyze([[EAST], [-EAST]])
    analyzer.analyze([[EAST], [EAST * float("nan")]])
    stats = analyzer.get_stats()
    assert stats["cosines"].tolist() == [[1, 0], [0, 1]]
    assert (stats["num_steps"], stats["num_conflicts"], stats["num_pairs"]) == (2, 1, 2)
    assert (stats["conflict_share"], stats["min_cosine"]) == (0.5, -1.0)


@pytest.mark.parametrize("threshold", [-1.5, 2.0, float("nan"), "0"])
def test_a_threshold_is_a_cosine(threshold):
    with pytest.raises(InputError, match="threshold="):
        GradientConflictAnalyzer(threshold)
