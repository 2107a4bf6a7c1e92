"""Every optimizer with every shared option: each cell trains and resumes bit for bit, or says why it makes no sense."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from ava import registry
from ava.errors import InputError
from ava.optimization import get_optimizer, list_optimizers
from tests.optimization.optimizers.cells import SHARED, WHOLE

NAMES = list_optimizers()
CELLS = {**SHARED, **WHOLE}
STEPS = 6

SAME_SIGNS = "without momentum they have the same signs"
NO_DIVISION = "which this optimizer does not do"
SUMS = "needs sums over all of them"
REFUSED: dict[tuple[str, str], str] = {
    **{(name, gate): SAME_SIGNS
       for name in ("adafactor", "adagrad", "rmsprop", "schedule_free_adamw", "schedule_free_sgd")
       for gate in ("cautious", "grams")},
    **{(name, "grams"): "keeps only the magnitude of the update, which here is 1"
       for name in ("lion", "lion_adv", "prodigy_lion_adv")},
    **{(name, "atan2"): NO_DIVISION
       for name in ("lars", "lion", "lion_adv", "prodigy_lion_adv", "schedule_free_sgd", "sgd", "sophia")},
    **{(name, "ademamix"): "has its own slow mean" for name in ("ademamix", "simplified_ademamix")},
    **{(name, "fused_backward"): SUMS for name in ("agmohd", "lamb", "prodigy", "prodigy_adv", "prodigy_lion_adv")},
}  # fmt: skip
"""What is refused, with a part of the reason."""


def model_for(cell):
    """Two layers, one weight large enough for 8 bits; 16 bits where there is something to round."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(64, 72), nn.Tanh(), nn.Linear(72, 3))
    model = nn.ModuleDict({"layers": layers})
    return model.bfloat16() if cell == "stochastic_rounding" else model


INPUTS = torch.randn(32, 64, generator=torch.Generator().manual_seed(1))
TARGETS = torch.tanh(INPUTS[:, :3] * 2 + INPUTS[:, 3:6])


class Training:
    """One cell: a model, its optimizer, and how many steps it has gone."""

    def __init__(self, name, cell, engine):
        self.cell, self.model = cell, model_for(cell)
        options = dict(CELLS[cell])
        if "weight_decay" not in registry.optimizer[name].own:
            options.pop("weight_decay", None)
        self.optimizer = get_optimizer(name)(self.model.named_parameters(), **options, engine=engine)
        self.estimates = registry.optimizer[name].tags.get("estimates")

    def loss(self):
        dtype = next(self.model.parameters()).dtype
        return (self.model["layers"](INPUTS.to(dtype)).float() - TARGETS).square().mean()

    def closure(self):
        self.optimizer.zero_grad()
        loss = self.loss()
        loss.backward()
        return loss

    def step(self, number):
        if "sam_rho" in CELLS[self.cell]:
            self.optimizer.step(self.closure)
            return
        self.closure()
        params = list(self.model.parameters())
        before = [None if p.grad is None else (p.grad, p.grad.clone()) for p in params]
        if self.estimates and number % 2 == 0:
            self.optimizer.take_estimate({p: torch.full_like(p, 0.01) for p in params})
        self.optimizer.step()
        for p, kept in zip(params, before, strict=True):
            assert (kept is None) == (self.cell == "fused_backward")
            assert kept is None or (p.grad is kept[0] and torch.equal(*kept))

    def save(self):
        file = io.BytesIO()
        torch.save({"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}, file)
        return file

    def load(self, file):
        file.seek(0)
        read = torch.load(file, weights_only=True)
        self.model.load_state_dict(read["model"])
        self.optimizer.load_state_dict(read["optimizer"])
        return self


def walk(name, cell, engine):
    """Train, save in the middle, and go on from the file in a fresh optimizer beside the unbroken one."""
    training = Training(name, cell, engine)
    start = [p.detach().clone() for p in training.model.parameters()]
    for number in range(STEPS):
        if number == STEPS // 2:
            resumed = Training(name, cell, engine).load(training.save())
        training.step(number)
        if number >= STEPS // 2:
            resumed.step(number)
    ends = list(training.model.parameters())
    assert all(p.isfinite().all() for p in ends), "not finite"
    moved = [not torch.equal(p, q) for p, q in zip(ends, start, strict=True)]
    # Rounded at random, a small step moves some of many elements, and of a few perhaps none.
    assert any(moved) if cell == "stochastic_rounding" else all(moved), "stands still"
    for p, q in zip(ends, resumed.model.parameters(), strict=True):
        assert torch.equal(p, q), "resumes otherwise"
        ours, theirs = training.optimizer.state[p], resumed.optimizer.state[q]
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[k], theirs[k]) and ours[k].dtype is theirs[k].dtype for k in ours), "state differs"


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_trains_or_says_why_not(name):
    refused, wrong = {}, {}
    for cell in CELLS:
        # A kernel costs half a second to build: one cell of each optimizer has one, another one for each.
        is_chosen = NAMES.index(name) % len(SHARED) == list(CELLS).index(cell)
        try:
            walk(name, cell, "auto" if is_chosen else "reference")
        except InputError as refusal:
            refused[cell] = str(refusal)
        except Exception as error:
            wrong[cell] = f"{type(error).__name__}: {error}"
    assert not wrong
    expected = {cell: reason for (optimizer, cell), reason in REFUSED.items() if optimizer == name}
    assert refused.keys() == expected.keys(), refused
    for cell, reason in expected.items():
        assert reason in refused[cell]
