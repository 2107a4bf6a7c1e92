"""AGMOHD is AdamW while nothing is wrong; what is wrong turns it down within bounds, and nothing is forgotten."""

from __future__ import annotations

import copy
import io
import itertools
import math
import pickle

import pytest
import torch
from torch import nn

from ava.errors import InputError
from ava.optimization import AGMOHD, get_optimizer, state_bytes
from ava.optimization.stability.acts import rush
from ava.optimization.stability.verdict import Verdict
from tests.optimization.optimizers.cells import SHARED
from tests.optimization.optimizers.oracles import parameters, set_gradients, two_groups

PLAIN = {"momentum_schedule": "fixed", "gradient_clipping": "none", "responses": ()}
ENGINES = pytest.mark.parametrize("engine", ["auto", "reference"])
INPUTS = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))
TARGETS = torch.tanh(INPUTS[:, :2] - INPUTS[:, 2:4])


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 2))


def loss_of(model, step):
    rows = torch.randperm(64, generator=torch.Generator().manual_seed(step))[:16]
    return (model(INPUTS[rows]) - TARGETS[rows]).square().mean()


def train(model, optimizer, first, last, spoil=None, factor=1.0):
    """Steps `first` to `last`; the gradients of step `spoil` are multiplied by `factor`."""
    for step in range(first, last):
        optimizer.zero_grad()
        loss = loss_of(model, step)
        loss.backward()
        optimizer.observe(loss)
        if step == spoil:
            for p in model.parameters():
                p.grad.mul_(factor)
        optimizer.step()


def same(one, other):
    return all(torch.equal(p, q) for p, q in zip(one.parameters(), other.parameters(), strict=True))


@ENGINES
@pytest.mark.parametrize("options", [{}, *({key: SHARED[key]} for key in ("cautious", "factored", "coupled", "atan2"))],
                         ids=lambda o: next(iter(o), "plain"))  # fmt: skip
def test_without_answers_it_is_adamw(engine, options):
    chosen = {"lr": 1e-2, "weight_decay": 0.1, "engine": engine, **next(iter(options.values()), {})}
    mine, yours = parameters(), parameters()
    ours = AGMOHD(two_groups(mine, lr=3e-3), **chosen, **PLAIN)
    theirs = get_optimizer("adamw")(two_groups(yours, lr=3e-3), **chosen)
    for step in range(40):
        set_gradients(mine, step)
        for p, q in zip(mine, yours, strict=True):
            q.grad = p.grad.clone()
        ours.step()
        theirs.step()
    for p, q in zip(mine, yours, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)


@ENGINES
def test_a_calm_training_is_that_of_torchs_adamw(engine):
    """With everything on: nothing is wrong, so nothing is turned down."""
    mine, yours = network(), network()
    ours, theirs = AGMOHD(mine.parameters(), engine=engine), torch.optim.AdamW(yours.parameters())
    train(mine, ours, 0, 40)
    for step in range(40):
        theirs.zero_grad()
        loss_of(yours, step).backward()
        theirs.step()
    for p, q in zip(mine.parameters(), yours.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)
    stats = ours.get_training_stats()
    assert (stats["step"], stats["skipped_steps"], stats["clipped_steps"], stats["momentum"]) == (40, 0, 0, 0.9)


@ENGINES
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("at", [0, 20])
def test_a_gradient_that_is_not_finite_changes_nothing(engine, bad, at):
    model, twin = network(), network()
    ours, other = (AGMOHD(m.parameters(), engine=engine) for m in (model, twin))
    for one, optimizer in ((model, ours), (twin, other)):
        train(one, optimizer, 0, at)
    loss_of(model, at).backward()
    next(model.parameters()).grad[0, 0] = bad
    ours.step()
    for one, optimizer in ((model, ours), (twin, other)):
        train(one, optimizer, at, at + 20)
    assert same(model, twin)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert all(torch.equal(ours.state[p][key], other.state[q][key]) for key in other.state[q])
    assert (ours.get_training_stats()["skipped_steps"], other.get_training_stats()["skipped_steps"]) == (1, 0)


def test_an_explosion_is_clipped_and_takes_momentum_which_comes_back():
    model = network()
    optimizer = AGMOHD(model.parameters())
    train(model, optimizer, 0, 60)
    before = [p.detach().clone() for p in model.parameters()]
    train(model, optimizer, 60, 61, spoil=60, factor=1e4)
    stats = optimizer.get_training_stats()
    assert stats["causes"]["explosion"] >= 0.5
    assert 0.5 <= stats["momentum"] < 0.7
    assert stats["gradient_factor"] < 1e-3
    assert stats["clipped_steps"] == 1
    moved = max((p - q).abs().max().item() for p, q in zip(model.parameters(), before, strict=True))
    assert moved < 8.0 * 1e-3  # the limit of an update, times the rate
    momenta = []
    for step in range(61, 101):
        train(model, optimizer, step, step + 1)
        momenta.append(optimizer.get_training_stats()["momentum"])
    steps = [b - a for a, b in itertools.pairwise(momenta)]
    assert momenta[-1] > 0.88
    assert max(steps) < 0.05  # smoothly


@pytest.mark.parametrize(("floor", "expected"), [(0.5, 0.5), (0.8, 0.8), (0.9, 0.9), (0.0, 0.0)])
def test_momentum_stays_within_its_bounds(floor, expected):
    model = network()
    optimizer = AGMOHD(model.parameters(), momentum_floor=floor)
    train(model, optimizer, 0, 40)
    train(model, optimizer, 40, 41, spoil=40, factor=1e8)
    assert optimizer.get_training_stats()["momentum"] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("causes", "expected"),
    [({"stagnation": 1.0, "vanishing": 1.0}, 0.0), ({"oscillation": 0.5, "stagnation": 1.0}, 0.5),
     ({"explosion": 0.5, "loss_spike": 0.5}, 0.75), ({}, 0.0)],
    ids=["idle", "oscillation", "two", "none"],
)  # fmt: skip
def test_going_slower_is_for_what_it_helps_against(causes, expected):
    verdict = Verdict(1.0, causes, 1.0, 0.0, 0.0, 0.0, math.nan, math.nan)
    assert rush(verdict) == expected


@ENGINES
def test_a_momentum_of_its_own_in_each_step_is_freed_of_its_zero_start(engine):
    """With a constant gradient every update has the length 1, whatever the momentum was."""
    p = nn.Parameter(torch.zeros(4, dtype=torch.float64))
    optimizer = AGMOHD([p], lr=1.0, eps=0.0, weight_decay=0.0, engine=engine, **PLAIN)
    for number, factor in enumerate([1.0, 0.5, 0.7, 0.6, 1.0, 0.9], start=1):
        optimizer.pilot.schedule.call = lambda hindrance, factor=factor: factor
        optimizer.pilot.numbers["momentum_factor"] = factor
        p.grad = torch.full_like(p, 0.3)
        optimizer.step()
        torch.testing.assert_close(p.detach(), torch.full_like(p, -float(number)), rtol=1e-12, atol=1e-12)


def test_looking_ahead_is_nadam():
    """The update is (b m + (1 - b) g) / (1 - b^(t + 1)) over the root of the mean square."""
    p = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    options = PLAIN | {"momentum_schedule": "nesterov"}
    optimizer = AGMOHD([p], lr=0.1, weight_decay=0.0, **options)
    m = v = torch.zeros(3, dtype=torch.float64)
    expected = torch.zeros(3, dtype=torch.float64)
    for t in range(1, 12):
        p.grad = torch.randn(3, generator=torch.Generator().manual_seed(t), dtype=torch.float64)
        m, v = 0.9 * m + 0.1 * p.grad, 0.999 * v + 0.001 * p.grad**2
        u = (0.9 * m + 0.1 * p.grad) / (1 - 0.9 ** (t + 1))
        expected = expected - 0.1 * u / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
        optimizer.step()
    torch.testing.assert_close(p.detach(), expected, rtol=1e-12, atol=1e-12)


@ENGINES
def test_no_update_is_longer_than_its_limit(engine):
    p = nn.Parameter(torch.zeros(100))
    optimizer = AGMOHD([p], lr=1.0, update_limit=0.5, weight_decay=0.0, engine=engine)
    for step in range(5):
        before = p.detach().clone()
        p.grad = torch.randn(100, generator=torch.Generator().manual_seed(step))
        optimizer.step()
        assert (p - before).abs().max() <= 0.5 + 1e-6
        assert optimizer.get_training_stats()["update_norm"] <= 0.5 * 10 + 1e-6
        torch.testing.assert_close(
            optimizer.get_training_stats()["update_norm"], (p - before).double().norm().item(), rtol=1e-5, atol=0.0
        )


@pytest.mark.parametrize(("norm", "factor"), [(0.5, 1.0), (2.0, 0.5)])
def test_the_global_norm_is_clipped_at_clip_norm(norm, factor):
    p = nn.Parameter(torch.zeros(4))
    optimizer = AGMOHD([p], gradient_clipping="global_norm", clip_norm=1.0)
    p.grad = torch.full((4,), norm / 2)
    optimizer.step()
    assert optimizer.get_training_stats()["gradient_factor"] == pytest.approx(factor)
    torch.testing.assert_close(optimizer.state[p]["exp_avg"], torch.full((4,), 0.1 * factor * norm / 2))


def test_a_batch_whose_loss_is_out_of_line_is_left_out():
    model = network()
    optimizer = AGMOHD(model.parameters())
    train(model, optimizer, 0, 60)
    before = copy.deepcopy(model)
    loss_of(model, 60).backward()
    optimizer.observe(1e3)
    optimizer.step()
    assert same(model, before)
    assert optimizer.get_training_stats()["causes"]["loss_spike"] >= 0.5
    train(model, optimizer, 61, 62)
    assert not same(model, before)


def test_a_norm_that_is_told_is_not_measured():
    p = nn.Parameter(torch.zeros(4))
    optimizer = AGMOHD([p])
    p.grad = torch.ones(4)
    optimizer.observe(torch.tensor(0.7), gradient_norm=torch.tensor(123.0), reduced=True)
    optimizer.step()
    stats = optimizer.get_training_stats()
    assert (stats["gradient_norm"], stats["loss"]) == (123.0, pytest.approx(0.7))
    optimizer.step()
    assert optimizer.get_training_stats()["gradient_norm"] == 2.0  # and the next step's is not known


def test_no_more_than_ten_batches_in_a_row_are_left_out():
    """Where the weights are wrong and not the batches, waiting does not help."""
    model = network()
    optimizer = AGMOHD(model.parameters())
    train(model, optimizer, 0, 60)
    for step in range(60, 75):
        loss_of(model, step).backward()
        optimizer.observe(1e3)
        optimizer.step()
    stats = optimizer.get_training_stats()
    assert (stats["skipped_steps"], stats["step"]) == (10, 65)


@pytest.mark.parametrize(
    ("scale", "factor"), [(2.0, 0.5), (4.0, 1.0), (8.0, 1.0)], ids=["ours-is-tighter", "alike", "theirs-is-tighter"]
)
def test_of_two_clippings_the_tighter_one_counts(scale, factor):
    """A loop that tells the norm divides by a scale to clip: a norm of 4 is brought to 4 / scale, and here to 1."""
    p = nn.Parameter(torch.zeros(4))
    optimizer = AGMOHD([p], gradient_clipping="global_norm", clip_norm=1.0)
    p.grad = torch.full((4,), 2.0)
    optimizer.observe(None, gradient_norm=4.0)
    optimizer.grad_scale = torch.tensor(scale)
    optimizer.step()
    torch.testing.assert_close(optimizer.state[p]["exp_avg"], torch.full((4,), 0.1 * factor * 2.0 / scale))


def test_losses_of_accumulated_batches_are_averaged():
    p = nn.Parameter(torch.zeros(4))
    optimizer = AGMOHD([p])
    p.grad = torch.ones(4)
    for loss in (1.0, torch.tensor(2.0), 6):
        optimizer.observe(loss)
    optimizer.step()
    assert optimizer.get_training_stats()["loss"] == 3.0


def test_a_closure_tells_its_loss():
    p = nn.Parameter(torch.full((4,), 2.0))
    optimizer = AGMOHD([p])

    def closure():
        optimizer.zero_grad()
        loss = p.square().mean()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 4.0
    assert optimizer.get_training_stats()["loss"] == 4.0


@pytest.mark.parametrize("wrong", ["low", True, torch.ones(2)], ids=["text", "bool", "two"])
def test_a_loss_that_is_no_number_is_refused(wrong):
    with pytest.raises(InputError, match="loss"):
        AGMOHD([nn.Parameter(torch.zeros(4))]).observe(wrong)


@pytest.mark.parametrize("way", ["copy", "pickle", "file"])
def test_it_goes_on_as_if_nothing_had_been(way):
    """In the middle of a hindrance: the detector, momentum and counts are all there."""
    model = network()
    optimizer = AGMOHD(model.parameters(), lr_scheduler="cyclical", schedule_steps=20)
    train(model, optimizer, 0, 45, spoil=43, factor=1e3)
    if way == "file":
        file = io.BytesIO()
        torch.save((model.state_dict(), optimizer.state_dict()), file)
        file.seek(0)
        weights, state = torch.load(file, weights_only=True)
        twin = network()
        twin.load_state_dict(weights)
        other = AGMOHD(twin.parameters(), lr_scheduler="cyclical", schedule_steps=20)
        other.load_state_dict(state)
    else:
        clone = copy.deepcopy if way == "copy" else lambda pair: pickle.loads(pickle.dumps(pair))
        twin, other = clone((model, optimizer))
    assert repr(other.get_training_stats()) == repr(optimizer.get_training_stats())
    for one, its in ((model, optimizer), (twin, other)):
        train(one, its, 45, 70, spoil=50, factor=1e3)
    assert same(model, twin)
    assert repr(other.get_training_stats()) == repr(optimizer.get_training_stats())
    assert torch.equal(other.pilot.detector.memory, optimizer.pilot.detector.memory)


def test_it_takes_up_the_state_of_torchs_adamw():
    model, twin = network(), network()
    theirs = torch.optim.AdamW(model.parameters())
    for step in range(10):
        theirs.zero_grad()
        loss_of(model, step).backward()
        theirs.step()
    twin.load_state_dict(model.state_dict())
    ours = AGMOHD(twin.parameters())
    ours.load_state_dict(copy.deepcopy(theirs.state_dict()))
    for one, optimizer in ((model, theirs), (twin, ours)):
        optimizer.zero_grad()
        loss_of(one, 10).backward()
        optimizer.step()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("frozen", [False, True], ids=["scaled", "unscaled"])
def test_under_a_grad_scaler_the_norm_is_unscaled(frozen):
    model = network()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    optimizer = AGMOHD(model.parameters())
    scaler.scale(loss_of(model, 0)).backward()
    if frozen:
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    plain = network()
    loss_of(plain, 0).backward()
    expected = torch.cat([p.grad.flatten() for p in plain.parameters()]).norm().item()
    assert optimizer.get_training_stats()["gradient_norm"] == pytest.approx(expected, rel=1e-5)


def test_groups_have_rates_of_their_own():
    model = network()
    groups = [{"params": model[0].parameters(), "lr": 1e-4}, {"params": model[2].parameters(), "lr": 2e-3}]
    optimizer = AGMOHD(groups, hindrance_threshold=0.1, weight_decay=0.0)
    before = [p.detach().clone() for p in model.parameters()]
    train(model, optimizer, 0, 1)
    moved = [(p - q).abs().max().item() for p, q in zip(model.parameters(), before, strict=True)]
    assert moved == pytest.approx([1e-4, 1e-4, 2e-3, 2e-3], rel=1e-2)


def test_frozen_parameters_are_left_alone():
    """As under LoRA, where most of a model has no gradient."""
    model = network()
    model[0].requires_grad_(False)
    before = copy.deepcopy(model)
    optimizer = AGMOHD(model.parameters())
    train(model, optimizer, 0, 3)
    assert same(model[0], before[0])
    assert not same(model[2], before[2])
    norm = torch.cat([p.grad.flatten() for p in model[2].parameters()]).norm().item()
    assert optimizer.get_training_stats()["gradient_norm"] == pytest.approx(norm, rel=1e-5)
    assert set(optimizer.state) == set(model[2].parameters())


def test_under_peft():
    import peft

    model = peft.get_peft_model(network(), peft.LoraConfig(r=2, target_modules=["0"]))
    optimizer = AGMOHD(model.parameters(), lr=1e-2)
    before = loss_of(model, 0).item()
    train(model, optimizer, 0, 40)
    assert loss_of(model, 0).item() < before


@pytest.mark.parametrize(
    ("key", "value"), [("hindrance_threshold", 0.5), ("momentum_schedule", "fixed"), ("responses", ())]
)
def test_what_holds_for_all_groups_is_not_a_groups(key, value):
    p, q = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(4))
    with pytest.raises(InputError, match=key):
        AGMOHD([{"params": [p]}, {"params": [q], key: value}])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"momentum_schedule": "adaptve"}, "adaptive"),
        ({"responses": ("slo",)}, "slow"),
        ({"detectors": ("explosions",)}, "explosion"),
        ({"gradient_clipping": "norm"}, "global_norm"),
        ({"lr_scheduler": "linear"}, "cyclical"),
        ({"hindrance_threshold": 0.0}, "above 0"),
    ],
    ids=lambda o: next(iter(o)) if isinstance(o, dict) else None,
)
def test_what_is_not_there_is_refused_with_what_is(options, match):
    with pytest.raises(InputError, match=match):
        AGMOHD([nn.Parameter(torch.zeros(4))], **options)


def test_tensor_cores_are_nvidias():
    with pytest.warns(UserWarning, match="use_rtx_optimizations does nothing on cpu"):
        AGMOHD([nn.Parameter(torch.zeros(4))], use_rtx_optimizations=True)


@pytest.mark.parametrize(("state", "bytes_"), [("dense", 8.0), ("bf16", 4.0), ("int8", 2.1), ("factored", 0.3)])
def test_state_is_as_small_as_adamws(state, bytes_):
    p = nn.Parameter(torch.zeros(256, 256))
    p.grad = torch.ones_like(p)
    optimizer = AGMOHD([p], state=state)
    optimizer.step()
    assert state_bytes(optimizer) <= bytes_
