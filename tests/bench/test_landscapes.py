"""`ava bench landscapes`: the problems are those of the papers, and so are the outcomes."""

from __future__ import annotations

import json
import math

import pytest
import torch

from ava.bench.landscape_descent import descend
from ava.bench.landscape_problems import TWO_VALLEYS, is_on_pareto_set, pareto_height, two_valleys, valley
from ava.bench.landscapes import main, measure

LEFT, LOW, RIGHT = TWO_VALLEYS.starts


def two_valleys_from_the_paper(x, y):
    upper, lower = torch.clamp(torch.tanh(0.5 * y), min=0), torch.clamp(torch.tanh(-0.5 * y), min=0)
    f1 = torch.log(torch.clamp((0.5 * (-x - 7) - torch.tanh(-y)).abs(), min=5e-6)) + 6
    f2 = torch.log(torch.clamp((0.5 * (-x + 3) + torch.tanh(-y) + 2).abs(), min=5e-6)) + 6
    g1 = ((-x + 7) ** 2 + 0.1 * (-y - 8) ** 2) / 10 - 20
    g2 = ((-x - 7) ** 2 + 0.1 * (-y - 8) ** 2) / 10 - 20
    return upper * f1 + lower * g1, upper * f2 + lower * g2


def valley_from_the_paper(x, y):
    first = 20 * torch.log(torch.clamp((0.5 * x + torch.tanh(y)).abs(), min=5e-6))
    return first, 25 * torch.log(torch.clamp((0.5 * x - torch.tanh(y) + 2).abs(), min=5e-6))


@pytest.mark.parametrize(
    ("evaluate", "from_the_paper"),
    [(two_valleys, two_valleys_from_the_paper), (valley, valley_from_the_paper)],
    ids=["two valleys", "one valley"],
)
def test_values_and_gradients_are_those_of_autograd(evaluate, from_the_paper):
    points = torch.rand(40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 20 - 10
    for point in [*points.tolist(), [-7.0, 1e-9], [4.0, 12.0]]:
        x, y = torch.tensor(point, dtype=torch.float64).requires_grad_().unbind()
        losses = from_the_paper(x, y)
        found = evaluate(tuple(point))
        assert found.losses == pytest.approx([loss.item() for loss in losses], rel=1e-9, abs=1e-12)
        for loss, gradient in zip(losses, found.gradients, strict=True):
            expected = [g.item() for g in torch.autograd.grad(loss, (x, y), retain_graph=True)]
            assert gradient == pytest.approx(expected, rel=1e-8, abs=1e-10)


@pytest.mark.parametrize("x", [-7.0, -3.3, 0.0, 5.0, 7.0])
def test_on_the_pareto_set_gradients_are_opposite(x):
    point = (x, pareto_height(x))
    (a, b), (c, d) = two_valleys(point).gradients
    norms = math.hypot(a, b) * math.hypot(c, d)
    assert abs(a * d - b * c) < 1e-9
    assert a * c + b * d == pytest.approx(-norms, rel=1e-9, abs=1e-12)
    assert pareto_height(0.0) == pytest.approx(-8.355, abs=5e-4)
    assert is_on_pareto_set(point)
    assert not is_on_pareto_set((x, point[1] + 0.1))


@pytest.mark.parametrize(("start", "end"), [(LEFT, -5.0), (RIGHT, 5.0)], ids=["left", "right"])
def test_summing_gets_stuck_in_a_valley(start, end):
    found = descend(TWO_VALLEYS, "sum", start, 30_000)
    assert not found.has_arrived
    assert found.end[0] == pytest.approx(end, abs=0.15)
    assert 2 < found.end[1] < 3.2
    assert found.path[0] == start
    assert found.path[-1] == found.end


def test_the_minimum_norm_point_leaves_the_valley():
    found = descend(TWO_VALLEYS, "mgda", RIGHT, 25_000)
    assert found.has_arrived
    assert found.end[0] == pytest.approx(3.3, abs=0.1)


def test_the_tables_the_file_and_the_pictures(tmp_path, capsys):
    files = ["--plot", str(tmp_path / "l.png"), "--json", str(tmp_path / "l.json")]
    assert main(["--methods", "graddrop", "--steps", "40", *files]) == 0
    assert "0 of 3" in capsys.readouterr().out
    found = json.loads((tmp_path / "l.json").read_text())["landscapes"]
    assert list(found) == ["two valleys", "two unlike valleys", "one valley"]
    assert all(list(of_methods) == ["graddrop"] for of_methods in found.values())
    assert found["two valleys"]["graddrop"][0]["steps"] == 40
    for name in ("l.png", "l_2.png", "l_3.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def outcomes():
    return measure()


def ends(outcomes, landscape, method):
    return [found.end[0] for found in outcomes[landscape][method]]


def arrived(outcomes, landscape):
    return {method: sum(d.has_arrived for d in found) for method, found in outcomes[landscape].items()}


@pytest.mark.slow
def test_the_outcomes_of_cagrad_and_nash_mtl(outcomes):
    """Summing and GradDrop, which is summing on average, arrive from the start below the valleys alone."""
    three = dict.fromkeys(("pcgrad", "mgda", "cagrad", "imtl_g", "nash_mtl", "aligned_mtl", "famo"), 3)
    assert arrived(outcomes, "two valleys") == {"sum": 1, "graddrop": 1, **three}
    assert [d.has_arrived for d in outcomes["two valleys"]["sum"]] == [False, True, False]
    for found, x in zip(outcomes["two valleys"]["sum"][::2], (-5, 5), strict=True):
        assert found.end == pytest.approx((x, 2.2), abs=0.2)
    assert ends(outcomes, "two valleys", "cagrad") == pytest.approx([0, 0, 0], abs=0.05)
    assert ends(outcomes, "two valleys", "mgda") == pytest.approx([-3.3, -7, 3.3], abs=0.1)
    assert ends(outcomes, "two valleys", "imtl_g") == pytest.approx([-2.3, -6.7, 2.3], abs=0.15)


@pytest.mark.slow
def test_the_outcomes_of_nash_mtl_and_famo_on_unlike_losses(outcomes):
    assert arrived(outcomes, "two unlike valleys") == {
        "sum": 4, "mgda": 5, "nash_mtl": 5, "famo": 5,
    }  # fmt: skip


@pytest.mark.slow
def test_the_outcome_of_pcgrad(outcomes):
    assert arrived(outcomes, "one valley") == {"sum": 0, "pcgrad": 1}
