"""A search finds a rate, and leaves everything as it was: weights, optimizer, randomness, data."""

from __future__ import annotations

import random
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from ava import rng
from ava.errors import InputError
from ava.optimization import LRFinder, LRFinderConfig, get_optimizer
from ava.optimization.learning_rate.finder.suggestions import NoSuggestion
from tests.optimization.trainings import OPTIMIZERS, fingerprint, make, train

SHORT = LRFinderConfig(min_lr=1e-5, max_lr=10.0, num_steps=25)
INPUTS = torch.randn(400, 64, generator=torch.Generator().manual_seed(0))
DATA = TensorDataset(INPUTS, INPUTS[:, :3].argmax(1))


def loader(size=8, **options):
    return DataLoader(DATA, batch_size=size, shuffle=True, **options)


def search(finder, batches, **options):
    """Whatever comes of it."""
    try:
        finder.find(batches, **options)
    except NoSuggestion:
        return
    finally:
        assert finder.findings is None or len(finder.findings.centre.lr) > 1


def cross_entropy(outputs, targets):
    return nn.functional.cross_entropy(outputs.float(), targets)


def an_epoch(model, optimizer, batches):
    """A training whose order of the data and dropout come from the global generator."""
    for x, y in batches:

        def closure(x=x, y=y):
            optimizer.zero_grad()
            loss = cross_entropy(model(x), y)
            loss.backward()
            return loss

        optimizer.step(closure)


@pytest.mark.parametrize("begun", [0, 20])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on_as_if_there_had_been_no_search(name, begun):
    trained = []
    for is_searched in (True, False):
        model, optimizer = make(name, begun=begun)
        model[3].eval()
        torch.manual_seed(7)
        if is_searched:
            before = fingerprint(model, optimizer, rng.capture())
            search(LRFinder(model, optimizer, cross_entropy, SHORT), loader())
            assert fingerprint(model, optimizer, rng.capture()) == before
        model.train()
        an_epoch(model, optimizer, loader(40))
        trained.append(fingerprint(model, optimizer))
    assert trained[0] == trained[1]


@pytest.mark.parametrize("name", ["lion-int8", "torch-sgd-float32-state", "prodigy"])
def test_bf16_models(name):
    model, optimizer = make(name, torch.bfloat16, begun=3)
    before = fingerprint(model, optimizer)
    batches = [(x.bfloat16(), y) for x, y in loader()]
    search(LRFinder(model, optimizer, cross_entropy, SHORT), batches)
    assert fingerprint(model, optimizer) == before


def test_finds_a_rate_that_trains():
    model, optimizer = make("torch-adamw")
    start = fingerprint(model)
    finder = LRFinder(model, optimizer, cross_entropy, LRFinderConfig(max_lr=10.0, num_steps=90))
    sampler = RandomSampler(DATA, replacement=True, num_samples=32 * 90)
    lr, results = finder.find(DataLoader(DATA, batch_size=32, sampler=sampler), seeds=2)
    assert 1e-4 < lr < 1e-1
    assert fingerprint(model) == start
    assert results["suggestion"] == results["suggestions"]["probes"] == lr
    assert results["suggestions"].keys() == results["reasons"].keys() == {"probes", "valley", "steepest", "minimum"}
    assert results["method"] == "probes"
    assert results["stopped"] in ("covered", "diverged")
    one, other = (seed["loss"] for seed in results["seeds"])
    assert one[0] != other[0], "seeds see other data"


def test_a_search_from_the_same_place_finds_the_same():
    model, optimizer = make("torch-adamw")
    finder = LRFinder(model, optimizer, cross_entropy, SHORT)
    runs = []
    for _ in range(2):
        search(finder, loader(generator=torch.Generator().manual_seed(1)), seeds=2)
        runs.append(finder.findings.as_dict())
    assert runs[0] == runs[1]


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()], ids=["error", "interrupt"])
@pytest.mark.parametrize("name", ["torch-adamw", "adamw-int8", "adamw-fused-backward", "adamw-sam", "torch-lbfgs"])
def test_restores_after_an_error_in_the_middle(name, error):
    model, optimizer = make(name, begun=2)
    batches, calls = loader(generator=torch.Generator().manual_seed(5)), []

    def failing(outputs, targets):
        calls.append(1)
        if len(calls) == 7:
            raise error
        return cross_entropy(outputs, targets)

    before = fingerprint(model, optimizer, rng.capture(), batches.generator.get_state())
    with pytest.raises(type(error)):
        LRFinder(model, optimizer, failing, SHORT).find(batches)
    assert fingerprint(model, optimizer, rng.capture(), batches.generator.get_state()) == before
    train(model, optimizer, range(1))


def test_an_interrupted_backward_pass_leaves_nothing_behind():
    model, optimizer = make("adamw-fused-backward")
    before, seen = fingerprint(model, optimizer), []

    def interrupt(gradient):
        seen.append(1)
        if len(seen) == 3:
            raise KeyboardInterrupt

    handle = model[0].weight.register_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        LRFinder(model, optimizer, cross_entropy, SHORT).find(loader())
    handle.remove()
    assert fingerprint(model, optimizer) == before
    train(model, optimizer, range(2))


# The loader's place.


@pytest.mark.parametrize("owner", ["loader", "sampler"])
def test_generators_of_loader_and_sampler_are_rewound(owner):
    generator = torch.Generator().manual_seed(3)
    sampler = RandomSampler(DATA, generator=generator)
    batches = loader(generator=generator) if owner == "loader" else DataLoader(DATA, 8, sampler=sampler)
    model, optimizer = make("torch-sgd")
    search(LRFinder(model, optimizer, cross_entropy, SHORT), batches, seeds=2)
    assert torch.equal(generator.get_state(), torch.Generator().manual_seed(3).get_state())


class Resumable:
    """A loader that goes on where it is, and says where that is."""

    def __init__(self, count):
        self.count, self.position = count, 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.position == self.count:
            raise StopIteration
        self.position += 1
        return INPUTS[self.position : self.position + 4], DATA.tensors[1][self.position : self.position + 4]

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.position = state["position"]


def test_a_loader_with_a_state_goes_on_where_it_was():
    model, optimizer = make("torch-sgd")
    batches = Resumable(100)
    next(batches)
    search(LRFinder(model, optimizer, cross_entropy, SHORT), batches)
    assert batches.position == 1


def test_generators_of_other_libraries_are_rewound():
    class Shuffled:
        def __init__(self):
            self.python, self.numpy = random.Random(1), np.random.Generator(np.random.MT19937(1))

        def __iter__(self):
            for _ in range(30):
                place = self.python.randrange(100) + self.numpy.integers(100)
                yield INPUTS[place : place + 4], DATA.tensors[1][place : place + 4]

    model, optimizer = make("torch-sgd")
    batches = Shuffled()
    search(LRFinder(model, optimizer, cross_entropy, SHORT), batches, seeds=2)
    assert batches.python.random() == random.Random(1).random()
    assert batches.numpy.random() == np.random.Generator(np.random.MT19937(1)).random()


@pytest.mark.parametrize("make_iterator", [lambda: iter(loader()), lambda: ((x, y) for x, y in loader())])
def test_an_iterator_is_refused_before_anything_is_taken(make_iterator):
    model, optimizer = make("torch-sgd")
    batches = make_iterator()
    with pytest.raises(InputError, match=r"train_loader=.*is an iterator.*DataLoader itself"):
        LRFinder(model, optimizer, cross_entropy, SHORT).find(batches)
    assert len(list(batches)) == 50


def test_persistent_workers_begin_anew():
    model, optimizer = make("torch-sgd")
    config = LRFinderConfig(num_steps=10)
    mine = DataLoader(DATA, 40, num_workers=1, persistent_workers=True)
    search(LRFinder(model, optimizer, cross_entropy, config), mine)
    assert mine._iterator is None
    running = iter(mine)
    with pytest.raises(InputError, match="persistent workers are running"):
        LRFinder(model, optimizer, cross_entropy, config).find(mine)
    assert len(list(running)) == 10


@pytest.mark.parametrize(("accumulate", "steps"), [(1, 60), (3, 20)])
def test_a_loader_known_to_be_short_is_refused_before_training(accumulate, steps):
    model, optimizer = make("torch-sgd")
    config = LRFinderConfig(num_steps=steps)
    finder = LRFinder(model, optimizer, lambda *_: 1 / 0, config, accumulate=accumulate)
    told = rf"ends after 50 batches; {steps} steps.* need {steps * accumulate}.*fewer steps"
    with pytest.raises(InputError, match=told):
        finder.find(loader())


def test_a_loader_that_ends_early_is_refused_and_everything_restored():
    model, optimizer = make("adamw-int8", begun=2)
    before = fingerprint(model, optimizer, rng.capture())
    finder = LRFinder(model, optimizer, cross_entropy, LRFinderConfig(max_lr=1e-3, num_steps=40), accumulate=2)
    with pytest.raises(InputError, match="ends after 31 batches; 40 steps with 2 batches each need 80"):
        finder.find(Resumable(31))
    assert fingerprint(model, optimizer, rng.capture()) == before


# Batches, losses and steps of other kinds.


class Returning(nn.Module):
    """A model that computes its loss, as those of transformers do."""

    def __init__(self, as_mapping):
        super().__init__()
        self.net, self.as_mapping = nn.Linear(64, 3), as_mapping

    def forward(self, x, labels=None):
        outputs = self.net(x)
        if labels is None:
            return outputs
        loss = nn.functional.cross_entropy(outputs, labels)
        return {"loss": loss} if self.as_mapping else type("Output", (), {"loss": loss})()


@pytest.mark.parametrize("as_mapping", [True, False])
def test_batches_of_every_kind_give_the_same_curve(as_mapping):
    pairs = [(INPUTS[k : k + 8], DATA.tensors[1][k : k + 8]) for k in range(0, 400, 8)]
    kinds = {
        "pairs": (pairs, nn.functional.cross_entropy),
        "inputs": ([{"inputs": x, "targets": y} for x, y in pairs], nn.functional.cross_entropy),
        "labels": ([{"x": x, "labels": y} for x, y in pairs], nn.functional.cross_entropy),
        "own loss": ([{"x": x, "labels": y} for x, y in pairs], None),
    }
    curves = []
    for batches, loss_fn in kinds.values():
        torch.manual_seed(0)
        model = Returning(as_mapping)
        finder = LRFinder(model, torch.optim.SGD(model.parameters(), lr=0.1), loss_fn, SHORT)
        search(finder, batches)
        curves.append(finder.findings.centre.loss)
    assert all(curve == curves[0] for curve in curves)


@pytest.mark.parametrize(
    ("batch", "loss_fn", "told"),
    [
        ((INPUTS[:4],), cross_entropy, "got 1 values"),
        ((INPUTS[:4], torch.zeros(4).long()), None, "2 values and there is no loss_fn"),
        ({"x": INPUTS[:4], "y": torch.zeros(4).long()}, cross_entropy, r"got \['x', 'y'\]"),
        ({"input": INPUTS[:4]}, None, "returns a Tensor without a loss"),
        ((INPUTS[:4], torch.zeros(4).long()), lambda outputs, targets: outputs, r"one number; it is \(4, 3\)"),
    ],
)
def test_batches_that_cannot_be_used_are_refused(batch, loss_fn, told):
    model = nn.Linear(64, 3)
    finder = LRFinder(model, torch.optim.SGD(model.parameters(), lr=0.1), loss_fn, SHORT)
    with pytest.raises(InputError, match=told):
        finder.find([batch] * 30)


def test_accumulated_batches_are_one_large_one():
    curves = []
    for size, accumulate in ((8, 1), (2, 4)):
        torch.manual_seed(0)
        model = nn.Linear(64, 3)
        finder = LRFinder(
            model, torch.optim.SGD(model.parameters(), lr=0.1), cross_entropy, SHORT, accumulate=accumulate
        )
        search(finder, DataLoader(DATA, batch_size=size))
        curves.append(finder.findings.centre.loss[:15])
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)


def test_a_scaler_changes_nothing_and_is_restored():
    curves = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=3)):
        model, optimizer = make("torch-sgd")
        finder = LRFinder(model, optimizer, cross_entropy, SHORT, scaler=scaler, max_norm=1.0)
        search(finder, loader(generator=torch.Generator().manual_seed(0)))
        curves.append(finder.findings.centre.loss[:15])
        assert scaler is None or scaler.state_dict() == torch.amp.GradScaler(
            "cpu", init_scale=1024.0, growth_interval=3
        ).state_dict()  # fmt: skip
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)


def test_a_scaler_with_a_closure_is_refused():
    model, optimizer = make("torch-lbfgs")
    with pytest.raises(InputError, match="cannot be unscaled"):
        LRFinder(model, optimizer, cross_entropy, scaler=torch.amp.GradScaler("cpu"))


def test_every_forward_pass_is_under_the_autocast():
    model, optimizer = make("torch-sgd")
    inside = []

    @contextmanager
    def policy():
        inside.append(True)
        yield
        inside[-1] = False

    def loss_fn(outputs, targets):
        assert inside[-1]
        return cross_entropy(outputs, targets)

    finder = LRFinder(model, optimizer, loss_fn, SHORT, accumulate=2, autocast=policy)
    search(finder, loader())
    assert len(inside) == 2 * len(finder.findings.centre.lr)


def test_clipping_bounds_the_step():
    model = nn.Linear(64, 3)
    own = model.weight.detach().clone()
    moved = []

    def loss_fn(outputs, targets):
        moved.append((model.weight - own).norm().item())
        return 1e6 * cross_entropy(outputs, targets)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    config = LRFinderConfig(min_lr=1e-3, max_lr=2e-3, num_steps=10)
    search(LRFinder(model, optimizer, loss_fn, config, max_norm=1.0), loader())
    assert moved[1] == pytest.approx(1e-3, rel=0.02)


def test_a_loss_function_with_buffers_is_restored():
    class Centred(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.zeros(()))

        def forward(self, outputs, targets):
            loss = cross_entropy(outputs, targets)
            self.mean.lerp_(loss.detach(), 0.1)
            return loss

    model, optimizer = make("torch-sgd")
    loss_fn = Centred()
    search(LRFinder(model, optimizer, loss_fn, SHORT), loader())
    assert loss_fn.mean == 0


def test_a_loss_that_is_never_finite_is_told():
    model, optimizer = make("torch-sgd")
    finder = LRFinder(model, optimizer, lambda outputs, targets: outputs.sum() * torch.nan, SHORT)
    with pytest.raises(NoSuggestion, match="very first loss"):
        finder.find(loader())
    assert finder.findings.centre.stopped == "not finite"


def test_an_optimizer_without_a_rate_is_refused():
    model = nn.Linear(2, 2)
    with pytest.raises(InputError, match="chooses its own learning rate"):
        LRFinder(model, get_optimizer("adafactor")(model.parameters(), lr=None, relative_step=True))


@pytest.mark.parametrize(("options", "told"), [({"accumulate": 0}, "accumulate=0"), ({"max_norm": -1.0}, "max_norm")])
def test_arguments_that_cannot_be_are_refused(options, told):
    model = nn.Linear(2, 2)
    with pytest.raises(InputError, match=told):
        LRFinder(model, torch.optim.SGD(model.parameters(), lr=0.1), **options)


def test_a_short_loader_may_be_begun_anew():
    """As epochs do; what is then left of it, and its order, are what they were."""
    generator = torch.Generator().manual_seed(3)
    batches = DataLoader(DATA, batch_size=80, shuffle=True, generator=generator)
    before = generator.get_state()
    finder = LRFinder(*make("torch-adamw"), cross_entropy, LRFinderConfig(min_lr=1e-5, max_lr=10.0, num_steps=40))
    finder.find(batches, repeat=True)
    assert len(finder.findings.centre.lr) > 2 * len(batches)
    assert torch.equal(generator.get_state(), before)
    with pytest.raises(InputError, match="ends after 0 batches"):
        finder.find([], repeat=True)
