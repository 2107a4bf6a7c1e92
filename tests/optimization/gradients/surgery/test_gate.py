"""The gate sees conflicts at once, forgets them slowly, and learns what a few parameters do not show."""

import pytest
import torch

from ava.optimization.gradients.surgery.cosines import cosines
from ava.optimization.gradients.surgery.entrance import entrance, last_parameters
from ava.optimization.gradients.surgery.gate import ConflictGate
from ava.optimization.gradients.surgery.graph import divide


def pair(cosine, lengths=(1.0, 1.0)):
    """The Gram matrix of two gradients."""
    first, second = lengths
    product = cosine * first * second
    return torch.tensor([[first**2, product], [product, second**2]], dtype=torch.float64)


def test_a_conflict_opens_the_gate_at_once_and_closes_it_slowly():
    gate = ConflictGate(threshold=0.0, margin=0.1, smoothing=0.5)
    gate.look(pair(0.9))
    assert not gate.is_open
    gate.look(pair(-0.05))
    assert gate.is_open
    # Smoothed: 0.425, then 0.5 * 0.425 + 0.5 * x.
    gate.look(pair(-0.3))
    for cosine, is_open in [(0.05, True), (0.1, True), (0.3, False), (0.05, False)]:
        gate.look(pair(cosine))
        assert gate.is_open == is_open


@pytest.mark.parametrize("threshold", [-0.5, 0.0, 0.5])
def test_the_threshold_is_a_cosine(threshold):
    for cosine in (threshold - 0.1, threshold + 0.1):
        gate = ConflictGate(threshold)
        gate.look(pair(cosine, lengths=(1e-9, 1e9)))
        assert gate.is_open == (cosine < threshold)


def test_pairs_are_judged_one_by_one():
    gradients = torch.tensor([[1.0, 0, 0], [-1.0, 0.1, 0], [0.0, 1, 1]], dtype=torch.float64)
    gate = ConflictGate()
    gate.look(gradients @ gradients.T)
    assert gate.conflicts.tolist() == [[False, True, False], [True, False, False], [False, False, False]]


def test_a_gradient_that_is_zero_is_in_no_conflict():
    assert torch.equal(cosines(torch.zeros(2, 2, dtype=torch.float64)), torch.eye(2, dtype=torch.float64))
    gate = ConflictGate()
    gate.look(pair(0.0, lengths=(0.0, 1.0)))
    gate.calibrate(pair(0.0, lengths=(0.0, 1.0)), pair(0.3, lengths=(2.0, 1.0)))
    assert bool(gate.estimate(pair(0.0, lengths=(0.0, 1.0))).isfinite().all())


def test_after_a_calibration_the_same_sight_gives_the_whole_matrix():
    torch.manual_seed(0)
    whole = torch.randn(4, 30, dtype=torch.float64) * torch.tensor([[1.0], [10], [0.1], [3]])
    few, full = whole[:, :5] @ whole[:, :5].T, whole @ whole.T
    gate = ConflictGate()
    assert torch.equal(gate.estimate(few), few)
    gate.calibrate(few, full)
    torch.testing.assert_close(gate.estimate(few), full)
    torch.testing.assert_close(gate.estimate(few * 1e-8), full * 1e-8)


def test_estimates_are_of_possible_gradients():
    gate = ConflictGate()
    for seed in range(20):
        few, full = (torch.randn(5, 3, generator=torch.Generator().manual_seed(seed + k)).double() for k in (0, 100))
        gate.calibrate(few @ few.T, full @ full.T)
        other = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed + 200)).double()
        values = torch.linalg.eigvalsh(gate.estimate(other @ other.T))
        assert values[0] >= -1e-9 * values[-1]


def test_what_was_learnt_can_be_forgotten_and_saved():
    gate, other = ConflictGate(), ConflictGate()
    gate.look(pair(0.1))
    gate.calibrate(pair(0.1), pair(-0.4))
    other.load_state_dict(gate.state_dict())
    for each in (gate, other):
        each.look(pair(0.2))
    assert torch.equal(gate.cosines, other.cosines)
    assert float(gate.cosines[0, 1]) == pytest.approx(-0.3)
    assert gate.is_open
    gate.forget()
    gate.look(pair(0.2))
    assert float(gate.cosines[0, 1]) == pytest.approx(0.2)


class Tower(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Linear(3, 6)
        self.block = torch.nn.Sequential(torch.nn.Linear(6, 6), torch.nn.LayerNorm(6), torch.nn.GELU())
        self.last = torch.nn.Linear(6, 4)
        self.norm = torch.nn.LayerNorm(4)

    def forward(self, x):
        return self.norm(self.last(self.block(self.embed(x))))


def test_the_last_layers_are_those_nearest_to_the_heads():
    tower, heads = Tower(), [torch.nn.Linear(4, 2) for _ in range(2)]
    features = tower(torch.randn(5, 3))
    graph = divide({str(i): head(features).square().mean() for i, head in enumerate(heads)})
    among = {id(p) for p in [*tower.parameters(), *heads[0].parameters()]}
    found = last_parameters(graph, among, 2)
    assert [id(p) for p in found] == [id(tower.last.weight), id(tower.block[0].weight)]
    assert entrance(graph) == (features.grad_fn, 0)
    vectors = last_parameters(graph, {id(tower.norm.weight), id(tower.norm.bias)}, 1)
    assert vectors[0] is tower.norm.weight or vectors[0] is tower.norm.bias


def test_two_features_are_more_than_one_entrance():
    tower = Tower()
    deep = tower(torch.randn(5, 3))
    shallow = tower.embed.weight
    graph = divide({"a": deep.square().mean() + shallow.square().sum(), "b": deep.sum()})
    assert entrance(graph) is None
