"""AdaptiveGradientSurgeon leaves in `.grad` what the method says, or the gradient of the sum, and nothing else."""

import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional

from ava.errors import InputError
from ava.optimization import AdaptiveGradientSurgeon, GradientSurgeon

CONFLICT, CALM = 0.999, -1.0
"""Thresholds with which every pair is in conflict, or none."""


class Network(nn.Module):
    """A trunk, three heads and a layer that nothing uses; `tied` heads read the first layer's weights too."""

    def __init__(self, tied=False):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh())
        self.heads = nn.ModuleList([nn.Linear(16, 5) for _ in range(3)])
        self.unused = nn.Linear(2, 2)
        self.tied = tied

    def forward(self, x):
        features = self.trunk(x)
        outputs = [head(features) for head in self.heads]
        return [o @ self.trunk[0].weight.T for o in outputs] if self.tied else outputs


def make(seed=0, tied=False):
    torch.manual_seed(seed)
    model = Network(tied)
    x, wanted = torch.randn(8, 5), [torch.randn(8, 16 if tied else 5) for _ in range(3)]
    return model, lambda: [functional.mse_loss(o, y) for o, y in zip(model(x), wanted, strict=True)]


def take(model):
    gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    return gradients


def plain(model, losses):
    sum(losses()).backward()
    return take(model)


def exact(model, losses, method, **options):
    parameters = list(model.parameters())
    rows = [torch.autograd.grad(one, parameters, retain_graph=True, allow_unused=True) for one in losses()]
    return GradientSurgeon(method, "sum", **options).apply(rows)


def assert_same(found, expected, **tolerances):
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, **tolerances)


def test_the_guides_loop_runs():
    model, losses = make()
    surgeon = AdaptiveGradientSurgeon(conflict_threshold=0.0, method="pcgrad", auto_detect=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    first = float(sum(losses()).detach())
    for _ in range(30):
        optimizer.zero_grad()
        total = surgeon.process_losses(model, losses())
        total.backward()
        optimizer.step()
    stats = surgeon.get_stats()
    assert float(total.detach()) < first
    assert stats["num_steps"] == stats["num_looks"] == 30
    assert 0 < stats["num_conflicts"] <= stats["num_pairs"] == 90
    assert 0 < stats["surgery_applied"] <= 30
    assert stats["conflict_rate"] == stats["num_conflicts"] / 90
    assert len(stats["cosines"]) == 3
    assert all(isinstance(value, int | float | list) for value in stats.values())


@pytest.mark.parametrize("method", ["pcgrad", "graddrop", "mgda", "cagrad", "upgrad", "sum"])
@pytest.mark.parametrize("tied", [False, True], ids=["heads", "tied"])
def test_without_detection_the_method_is_applied_exactly(method, tied):
    model, losses = make(tied=tied)
    surgeon = AdaptiveGradientSurgeon(method=method, auto_detect=False, seed=3)
    total = surgeon.process_losses(model, losses())
    assert float(total.detach()) == pytest.approx(float(sum(losses()).detach()))
    total.backward()
    assert_same(take(model), exact(model, losses, method, seed=3))


@pytest.mark.parametrize("tied", [False, True], ids=["heads", "tied"])
@pytest.mark.parametrize("look_every", [1, 3])
def test_without_conflict_it_is_the_sum_bit_for_bit(tied, look_every):
    model, losses = make(tied=tied)
    surgeon = AdaptiveGradientSurgeon(CALM, look_every=look_every)
    for _ in range(3):
        surgeon.process_losses(model, losses()).backward()
        assert_same(take(model), plain(model, losses), rtol=0, atol=0)
    assert surgeon.get_stats()["num_looks"] == 3 // look_every
    assert surgeon.get_stats()["surgery_applied"] == 0


@pytest.mark.parametrize("tied", [False, True], ids=["heads", "tied"])
@pytest.mark.parametrize("method", ["pcgrad", "mgda", "cagrad"])
def test_the_first_step_of_a_conflict_is_exact(method, tied):
    model, losses = make(tied=tied)
    surgeon = AdaptiveGradientSurgeon(CONFLICT, method, seed=3)
    surgeon.process_losses(model, dict(zip("abc", losses(), strict=True))).backward()
    assert_same(take(model), exact(model, losses, method, seed=3))
    assert surgeon.get_stats()["num_exact"] == 1


@pytest.mark.parametrize("tied", [False, True], ids=["heads", "tied"])
def test_between_exact_steps_heads_keep_their_own_gradient_and_the_rest_is_near(tied):
    model, losses = make(tied=tied)
    surgeon = AdaptiveGradientSurgeon(CONFLICT, "mgda", calibrate_every=10)
    for _ in range(2):
        surgeon.process_losses(model, losses()).backward()
        found = take(model)
    assert surgeon.get_stats()["num_exact"] == 1
    # The same batch again: what the gate learnt foretells the whole matrix, so the weights are the exact ones.
    assert_same(found, exact(model, losses, "mgda"), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("auto_detect", [True, False], ids=["adaptive", "exact"])
def test_the_loss_may_be_scaled_and_added_to_and_gradients_accumulate(auto_detect):
    model, losses = make()
    surgeon = AdaptiveGradientSurgeon(CONFLICT, "mgda", auto_detect)
    expected = exact(model, losses, "mgda")
    penalty = sum(p.square().sum() for p in model.trunk.parameters())
    (3 * surgeon.process_losses(model, losses()) + 0.1 * penalty).backward()
    surgeon.process_losses(model, losses()).backward(gradient=torch.tensor(2.0))
    trunk = {id(p) for p in model.trunk.parameters()}
    wanted = [
        None if g is None else 5 * g + (0.2 * p.detach() if id(p) in trunk else 0)
        for p, g in zip(model.parameters(), expected, strict=True)
    ]
    assert_same(take(model), wanted, rtol=1e-4, atol=1e-6)


def test_a_term_on_the_shared_features_is_left_alone():
    model, losses = make()
    x = torch.randn(4, 5)
    expected = exact(model, losses, "mgda")
    model.trunk(x).square().mean().backward()
    extra = take(model)
    outputs = losses()
    total = AdaptiveGradientSurgeon(CONFLICT, "mgda").process_losses(model, outputs)
    (total + model.trunk(x).square().mean()).backward()
    wanted = [g if e is None else g + e for g, e in zip(expected, extra, strict=True)]
    assert_same(take(model), wanted)


@pytest.mark.parametrize("auto_detect", [True, False], ids=["adaptive", "exact"])
def test_with_a_loss_scale_in_float16(auto_detect):
    model, losses = make()
    expected = exact(model, losses, "pcgrad")
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    surgeon = AdaptiveGradientSurgeon(CONFLICT, "pcgrad", auto_detect)
    with torch.autocast("cpu", torch.float16):
        named = losses()
    scaler.scale(surgeon.process_losses(model, named)).backward()
    scaler.unscale_(optimizer)
    assert_same(take(model), expected, rtol=0.05, atol=2e-3)


@pytest.mark.parametrize("auto_detect", [True, False], ids=["adaptive", "exact"])
def test_what_is_not_finite_reaches_the_guard(auto_detect):
    model, losses = make()
    surgeon = AdaptiveGradientSurgeon(CONFLICT, "mgda", auto_detect)
    first, *others = losses()
    surgeon.process_losses(model, [first * float("inf"), *others]).backward()
    assert not all(p.grad.isfinite().all() for p in model.trunk.parameters())
    assert surgeon.get_stats()["num_nonfinite"] == 1
    assert surgeon.get_stats()["surgery_applied"] == 0


def test_methods_that_need_rows_follow_the_gate_one_step_later():
    model, losses = make()
    surgeon = AdaptiveGradientSurgeon(CONFLICT, "graddrop", seed=1)
    surgeon.process_losses(model, losses()).backward()
    assert_same(take(model), plain(model, losses), rtol=0, atol=0)
    surgeon.process_losses(model, losses()).backward()
    assert surgeon.get_stats()["surgery_applied"] == 1


def test_a_calm_gate_looks_again_and_a_conflict_is_looked_at_always():
    model, losses = make()
    surgeon = AdaptiveGradientSurgeon(CALM, look_every=2)
    for _ in range(4):
        surgeon.process_losses(model, losses())
    assert surgeon.get_stats()["num_looks"] == 0  # nothing is compared before backward
    surgeon = AdaptiveGradientSurgeon(CONFLICT, look_every=2, calibrate_every=3)
    for _ in range(7):
        surgeon.process_losses(model, losses()).backward()
    assert surgeon.get_stats()["num_looks"] == 7
    assert surgeon.get_stats()["num_exact"] == 3


def test_one_loss_or_nothing_shared_is_the_sum():
    model, losses = make()
    surgeon = AdaptiveGradientSurgeon(CONFLICT)
    surgeon.process_losses(model, losses()[:1]).backward()
    apart = [functional.mse_loss(head(torch.ones(1, 16)), torch.zeros(1, 5)) for head in model.heads]
    surgeon.process_losses(model, apart).backward()
    assert surgeon.get_stats()["num_looks"] == 0


class Kept:
    """What autograd saved."""

    def __init__(self, tensor):
        self.tensor = tensor


@pytest.mark.parametrize("auto_detect", [True, False], ids=["adaptive", "exact"])
@pytest.mark.parametrize("backward", [True, False], ids=["used", "dropped"])
@pytest.mark.parametrize("tied", [False, True], ids=["heads", "tied"])
def test_nothing_is_retained(auto_detect, backward, tied):
    model, losses = make(tied=tied)
    surgeon = AdaptiveGradientSurgeon(CONFLICT, "pcgrad", auto_detect)
    saved = []

    def pack(tensor):
        kept = Kept(tensor.detach())  # an output that keeps its own node would be a cycle of ours
        saved.append(weakref.ref(kept))
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
        outputs = losses()
    total = surgeon.process_losses(model, outputs)
    if backward:
        total.backward()
    assert saved
    del total, outputs
    assert not any(ref() for ref in saved)  # at once: reference counts, not the collector


def test_the_state_goes_on_where_it_was():
    model, losses = make()
    surgeon, other = (AdaptiveGradientSurgeon(CONFLICT, "pcgrad", calibrate_every=4) for _ in range(2))
    for _ in range(3):
        surgeon.process_losses(model, losses()).backward()
    other.load_state_dict(surgeon.state_dict())
    for _ in range(3):
        model.zero_grad()
        surgeon.process_losses(model, losses()).backward()
        expected = take(model)
        other.process_losses(model, losses()).backward()
        assert_same(take(model), expected, rtol=0, atol=0)
    assert surgeon.get_stats() == other.get_stats()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conflict_threshold": 2.0}, "must be a cosine"),
        ({"method": "famo"}, "resolves no conflict"),
        ({"method": "pcgard"}, "pcgrad"),
        ({"look_every": 0}, "above 0"),
        ({"nonsense": 1}, "nonsense"),
    ],
    ids=["threshold", "losses", "name", "look_every", "option"],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        AdaptiveGradientSurgeon(**options)


def test_bad_losses_and_models_are_refused():
    model, losses = make()
    surgeon = AdaptiveGradientSurgeon()
    with pytest.raises(InputError, match="at least one loss"):
        surgeon.process_losses(model, [])
    with pytest.raises(InputError, match="0-dim"):
        surgeon.process_losses(model, [torch.ones(3, requires_grad=True) * 2])
    with pytest.raises(InputError, match="none of the model's parameters"):
        surgeon.process_losses(nn.Linear(2, 2), losses())
    with pytest.raises(InputError, match="depends on no parameter"):
        surgeon.process_losses(model, [torch.zeros(())])
    for wrong in ([1.0], None, torch.ones(2)[0].item()):
        with pytest.raises(InputError, match="module or its parameters"):
            surgeon.process_losses(wrong, losses())
    for wrong in (losses()[0], torch.stack(losses()), 1.0):
        with pytest.raises(InputError, match="list or a dictionary of losses"):
            surgeon.process_losses(model, wrong)


def test_another_number_of_objectives_is_refused_by_a_method_that_remembers():
    model, losses = make()
    surgeon = AdaptiveGradientSurgeon(method="gradnorm", auto_detect=False)
    surgeon.process_losses(model, losses()).backward()
    with pytest.raises(InputError, match="gradnorm has seen 3 objectives, and is told 2"):
        surgeon.process_losses(model, losses()[:2]).backward()


def test_an_exact_pass_runs_once():
    model, losses = make()
    total = AdaptiveGradientSurgeon(auto_detect=False).process_losses(model, losses())
    total.backward()
    with pytest.raises(InputError, match="a second time"):
        total.backward()
