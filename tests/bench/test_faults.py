"""Faults on purpose: each does what it says, when and where it says, once, and leaves no hook behind."""

import copy
import math

import pytest
import torch
from torch import nn

from ava.bench.faults import Fault, Parts, get_fault, inject, kind, list_faults
from ava.errors import InputError
from ava.optimization import get_optimizer

KINDS = [one.name for one in list_faults()]
AT = 3


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))


class Tokens(nn.Module):
    """The smallest language model."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(10, 8), nn.Linear(8, 10)

    def forward(self, inputs):
        return self.head(self.embedding(inputs))


def batches(count):
    torch.manual_seed(1)
    return [(torch.randn(16, 6), torch.randint(4, (16,))) for _ in range(count)]


def train(faults, steps=6, model=None, optimizer=None, scaler=None, num_classes=4, given=None):
    """A bare loop; what was seen of each step."""
    model = network() if model is None else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1) if optimizer is None else optimizer
    seen = []
    with inject(Parts(model, optimizer, num_classes, scaler=scaler), *faults) as injected:
        for batch in batches(steps) if given is None else given:
            inputs, targets = injected.batch(batch)
            before = copy.deepcopy(model.state_dict())
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs).flatten(0, -2), targets.flatten())
            at_pass = copy.deepcopy(model.state_dict())
            (loss if scaler is None else scaler.scale(loss)).backward()
            gradients = [p.grad.clone() for p in model.parameters()]
            rates = []
            handle = optimizer.register_step_pre_hook(lambda o, *_, rates=rates: rates.append(o.param_groups[0]["lr"]))
            if scaler is None:
                optimizer.step()
            else:
                scaler.step(optimizer)
                scaler.update()
            handle.remove()
            seen.append((loss.item(), gradients, before, at_pass, rates, inputs, targets))
    return model, seen, injected


def finite(gradients):
    return all(bool(torch.isfinite(g).all()) for g in gradients)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_acts_in_its_time_only(name):
    fault = Fault(name, at=AT, duration=2, size=1.0 if name == "nan_batches" else None, rank=0)
    _, seen, injected = train([fault])
    _, clean, _ = train([])
    assert injected.happened == 2
    for before, other in zip(seen[: AT - 1], clean[: AT - 1], strict=True):
        assert before[0] == other[0]
        assert all(map(torch.equal, before[1], other[1]))


@pytest.mark.parametrize("name", KINDS)
def test_nothing_stays_behind(name):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train([Fault(name, at=1, duration=100)], model=model, optimizer=optimizer)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    assert not any(p._backward_hooks for p in model.parameters())
    assert optimizer.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_says_what_it_is(name):
    (found,) = [one for one in list_faults() if one.name == name]
    assert found.summary.endswith(".")
    assert get_fault(name, at=7).settled().at == 7


def test_a_nan_batch_spoils_the_loss_of_one_step():
    _, seen, _ = train([Fault("nan_batch", at=AT)], steps=AT)
    assert [math.isnan(row[0]) for row in seen] == [False, False, True]


def test_tokens_become_nan_behind_their_embedding():
    given = [(torch.randint(10, (4, 5)), torch.randint(10, (4, 5))) for _ in range(2)]
    _, seen, _ = train([Fault("nan_batch", at=2)], model=Tokens(), num_classes=10, given=given)
    assert [math.isnan(row[0]) for row in seen] == [False, True]


def test_evaluation_meets_no_fault():
    model = network()
    with inject(Parts(model, torch.optim.SGD(model.parameters(), lr=0.1)), Fault("nan_batch", at=1)):
        with torch.no_grad():
            assert bool(torch.isfinite(model(torch.ones(2, 6))).all())
        model.eval()
        assert bool(torch.isfinite(model(torch.ones(2, 6))).all())


@pytest.mark.parametrize("name", ["infinite_gradient", "fp16_overflow"])
def test_gradients_become_infinite_within_the_backward_pass(name):
    _, seen, _ = train([Fault(name, at=AT)], steps=AT)
    assert [finite(row[1]) for row in seen] == [True, True, False]
    assert math.isfinite(seen[-1][0])


def test_one_element_is_infinite_and_the_seed_says_which():
    def where(seed):
        _, seen, _ = train([Fault("infinite_gradient", at=1, seed=seed)], steps=1)
        return [(i, int(e)) for i, g in enumerate(seen[0][1]) for e in (~torch.isfinite(g)).flatten().nonzero()]

    assert len(where(0)) == 1
    assert where(0) == where(0)
    assert len({tuple(where(seed)) for seed in range(5)}) > 1


def test_gradients_grow_by_the_size_where_the_place_says():
    _, seen, _ = train([Fault("gradient_spike", at=1, size=50.0, place="2.*")], steps=1)
    _, clean, _ = train([], steps=1)
    factors = [float((g / c).nanmedian()) for g, c in zip(seen[0][1], clean[0][1], strict=True)]
    assert factors == pytest.approx([1.0, 1.0, 50.0, 50.0])


def test_a_frozen_layer_gets_no_gradient():
    _, seen, _ = train([Fault("frozen_layer", at=1, duration=1)], steps=2)
    frozen = [not g.any() for g in seen[0][1]]
    assert frozen in ([True, True, False, False], [False, False, True, True])
    assert all(bool(g.any()) for g in seen[1][1])


@pytest.mark.parametrize(("name", "at"), [("lr_spike", AT), ("bad_start", 1)])
def test_a_rate_is_high_within_the_step_only(name, at):
    _, seen, _ = train([Fault(name, at=at, duration=1, size=20.0)], steps=4)
    rates = [row[4][-1] for row in seen]
    assert rates == pytest.approx([0.1 * (20.0 if index + 1 == at else 1.0) for index in range(4)])


@pytest.mark.parametrize("name", ["weight_spike", "nan_weight", "rank_divergence"])
def test_weights_change_between_two_steps_and_once(name):
    _, seen, _ = train([Fault(name, at=AT, rank=0)], steps=4)
    unchanged = [
        all(torch.allclose(row[2][key], row[3][key], rtol=0, atol=0, equal_nan=True) for key in row[2]) for row in seen
    ]
    assert unchanged == [True, True, False, True]


def test_weights_are_multiplied():
    _, seen, _ = train([Fault("weight_spike", at=1, size=30.0, place="0.weight")], steps=1)
    before, after = seen[0][2], seen[0][3]
    assert torch.equal(after["0.weight"], before["0.weight"] * 30)
    assert torch.equal(after["2.weight"], before["2.weight"])


def test_random_labels_are_drawn_anew_in_each_step_and_alike_each_time():
    _, seen, _ = train([Fault("random_labels", at=1, duration=2, seed=3)], steps=3)
    _, again, _ = train([Fault("random_labels", at=1, duration=2, seed=3)], steps=3)
    given = [targets for _, targets in batches(3)]
    same = [bool((row[6] == targets).all()) for row, targets in zip(seen, given, strict=True)]
    assert same == [False, False, True]
    assert all(torch.equal(one[6], other[6]) for one, other in zip(seen, again, strict=True))
    assert not torch.equal(seen[0][6], seen[1][6])


def test_a_share_of_the_samples_is_garbage():
    _, seen, _ = train([Fault("corrupt_samples", at=1, duration=1, size=0.25)], steps=1)
    loud = seen[0][5].abs().amax(1) > 100
    assert int(loud.sum()) == 4
    assert torch.equal(seen[0][5][~loud], batches(1)[0][0][~loud])


def test_garbage_tokens_have_garbage_targets_except_where_nothing_counts():
    inputs, targets = torch.zeros(8, 5, dtype=torch.int64), torch.zeros(8, 5, dtype=torch.int64)
    targets[:, 4] = -100
    model = Tokens()
    with inject(Parts(model, torch.optim.SGD(model.parameters()), 10), Fault("corrupt_samples", at=1)) as injected:
        bad_inputs, bad_targets = injected.batch((inputs, targets))
    assert int(bad_inputs.any(1).sum()) == 2
    assert torch.equal(bad_targets[:, :4], bad_inputs[:, 1:])
    assert bool((bad_targets[:, 4] == -100).all())


def test_batches_without_a_number_of_classes_are_refused():
    model = network()
    parts = Parts(model, torch.optim.SGD(model.parameters()))
    with pytest.raises(InputError, match="num_classes"), inject(parts, Fault("random_labels")):
        pass


def test_a_share_of_batches_is_nan():
    fault = Fault("nan_batches", at=1, duration=400, size=0.1)
    _, _, injected = train([fault], steps=400)
    assert 20 <= injected.happened <= 60


def test_an_attempt_that_a_scaler_leaves_out_counts():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    _, seen, injected = train([Fault("infinite_gradient", at=2)], 4, model, optimizer, scaler)
    assert [finite(row[1]) for row in seen] == [True, False, True, True]
    assert injected.attempt == 5
    assert "update" not in vars(scaler)


@pytest.mark.parametrize("name", ["adamw", "lion", "sgd"])
def test_steps_of_our_optimizers_are_attempts(name):
    model = network()
    optimizer = get_optimizer(name)(model.parameters(), lr=1e-3)
    _, seen, injected = train([Fault("lr_spike", at=2, duration=1)], 3, model, optimizer)
    assert injected.attempt == 4
    assert [row[4][-1] for row in seen] == pytest.approx([1e-3, 1e-1, 1e-3])


def test_several_faults_at_once():
    _, seen, _ = train([Fault("nan_batch", at=2), Fault("gradient_spike", at=1)], steps=2)
    assert math.isnan(seen[1][0])
    assert max(float(g.abs().max()) for g in seen[0][1]) > 10


def test_another_rank_meets_nothing():
    _, seen, injected = train([Fault("weight_spike", at=1, rank=1)], steps=2)
    assert injected.happened == 0
    assert all(torch.equal(seen[0][2][key], seen[0][3][key]) for key in seen[0][2])


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"kind": "nan_bath"}, "no fault is called 'nan_bath'.*Did you mean `nan_batch`"),
        ({"kind": "nan_batch", "at": 0}, "at=0"),
        ({"kind": "nan_batch", "duration": 0}, "duration=0"),
        ({"kind": "weight_spike", "size": math.nan}, "size"),
    ],
    ids=["kind", "at", "duration", "size"],
)
def test_what_cannot_be_is_refused(said, match):
    with pytest.raises(InputError, match=match):
        Fault(**said)


def test_a_place_that_fits_nothing_is_refused():
    model = network()
    parts = Parts(model, torch.optim.SGD(model.parameters()))
    with pytest.raises(InputError, match="no parameter fits"), inject(parts, Fault("weight_spike", place="head.*")):
        pass


def test_unknown_attributes_are_refused():
    with pytest.raises(InputError, match="a fault has no 'when'"):
        get_fault("nan_batch", when=3)


def test_another_kind_is_one_function(monkeypatch):
    from ava.bench.faults import fault

    monkeypatch.setattr(fault, "_KINDS", dict(fault._KINDS))

    @kind(at=1, size=-1.0)
    def turned_gradient(injection):
        """Gradients point the other way."""
        injection.on_gradients(injection.placed(), lambda gradient: injection.fault.size * gradient)

    _, seen, _ = train([Fault("turned_gradient")], steps=1)
    _, clean, _ = train([], steps=1)
    assert all(torch.equal(g, -c) for g, c in zip(seen[0][1], clean[0][1], strict=True))
    with pytest.raises(InputError, match="already has"):
        kind()(type("nan_batch", (), {"__name__": "nan_batch", "__module__": "elsewhere"}))
