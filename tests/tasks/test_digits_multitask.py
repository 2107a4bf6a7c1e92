"""Several objectives: each loss against a computation by hand, and what the data and the model have to bring."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from ava.data.digit_pairs import NUM_TURNS, DigitPairs, Layout, digit_pairs
from ava.data.digits import digits
from ava.data.source import Data, ImageSpec, TokenSpec
from ava.errors import InputError
from ava.models.mlp import MLP
from ava.tasks.digits_multitask import digits_multitask
from ava.tasks.multitask import Classes, Picture

OBJECTIVES = ("left", "right", "turn", "reconstruction")


@pytest.fixture(scope="module")
def data():
    return digit_pairs(3)


@pytest.fixture
def model(data):
    torch.manual_seed(0)
    return MLP(digits_multitask(data).data.spec, width=16)


def batch_of(data, size=24):
    return data.train.fetch(np.arange(size), 0)


def test_the_model_gets_a_head_for_each_objective(data):
    spec = digits_multitask(data).data.spec
    assert spec.heads == {"left": 10, "right": 10, "turn": NUM_TURNS, "reconstruction": 144}
    assert data.spec.heads is None


def test_classes_by_hand():
    batch = {"right": torch.tensor([1, 0])}
    output = torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)]])
    objective = Classes(2, "right")
    assert objective.loss(output, batch).tolist() == pytest.approx([math.log(4 / 3), math.log(4)])
    assert objective.score(output, batch).tolist() == [1.0, 0.0]


def test_picture_by_hand():
    """Squares of 25 with an error of 1; of 0.25, which count as 1, with an error of 0.25."""
    batch = {"clean": torch.tensor([[[[3.0, 4.0]]], [[[0.5, 0.0]]]])}
    output = torch.tensor([[3.0, 5.0], [0.0, 0.0]])
    objective = Picture(2, "clean", scale=10.0)
    assert objective.score(output, batch).tolist() == pytest.approx([1 / 25, 0.25])
    assert objective.loss(output, batch).tolist() == pytest.approx([0.4, 2.5])


def test_every_loss_is_its_objectives(data, model):
    task, batch = digits_multitask(data), batch_of(data)
    losses, outputs = task.losses(model, batch), model(batch["inputs"])
    assert tuple(losses) == OBJECTIVES
    for name, answers in (("left", "targets"), ("right", "right"), ("turn", "turn")):
        chosen = outputs[name].log_softmax(1)[torch.arange(24), batch[answers]]
        torch.testing.assert_close(losses[name], -chosen.sum())
    clean = batch["clean"].flatten(1)
    error = ((outputs["reconstruction"] - clean) ** 2).sum(1) / (clean**2).sum(1)
    torch.testing.assert_close(losses["reconstruction"], 10 * error.sum())


@pytest.mark.parametrize("cut", [1, 7, 12])
def test_parts_add_up_to_the_whole(data, model, cut):
    """Neither accumulation nor ranks change a sum or its gradient."""
    task, batch = digits_multitask(data), batch_of(data)
    parts = [{k: v[:cut] for k, v in batch.items()}, {k: v[cut:] for k, v in batch.items()}]
    whole = task.losses(model, batch)
    halves = [task.losses(model, part) for part in parts]
    assert sum(task.count(part) for part in parts) == task.count(batch) == 24
    parameters = list(model.blocks.parameters())
    for name in OBJECTIVES:
        both = halves[0][name] + halves[1][name]
        torch.testing.assert_close(both, whole[name])
        torch.testing.assert_close(
            torch.autograd.grad(both, parameters, retain_graph=True),
            torch.autograd.grad(whole[name], parameters, retain_graph=True),
            rtol=1e-4, atol=1e-4,
        )  # fmt: skip


def test_a_weight_multiplies_its_loss_in_training_only(data, model):
    plain, weighted, batch = digits_multitask(data), digits_multitask(data, turn_weight=3.0), batch_of(data)
    once, thrice = plain.losses(model, batch), weighted.losses(model, batch)
    assert {name: float((thrice[name] / once[name]).detach()) for name in once} == pytest.approx(
        {"left": 1.0, "right": 1.0, "turn": 3.0, "reconstruction": 1.0}
    )
    assert plain.evaluate(model, batch) == weighted.evaluate(model, batch)


def test_metrics(data):
    task = digits_multitask(data)
    sums = {"left_accuracy": 6.0, "right_accuracy": 3.0, "turn_accuracy": 9.0, "reconstruction_error": 4.0}
    assert task.summarise({"loss": 30.0, "count": 10.0, **sums}) == pytest.approx({
        "eval/loss": 3.0, "eval/accuracy": 0.6, "eval/left_accuracy": 0.6, "eval/right_accuracy": 0.3,
        "eval/turn_accuracy": 0.9, "eval/reconstruction_error": 0.4,
    })  # fmt: skip


def test_gradients_conflict_on_the_shared_trunk_and_heads_keep_to_themselves(data, model):
    losses = digits_multitask(data).losses(model, batch_of(data))
    trunk = list(model.blocks.parameters())
    rows = torch.stack([
        torch.cat([g.flatten() for g in torch.autograd.grad(loss, trunk, retain_graph=True)])
        for loss in losses.values()
    ])  # fmt: skip
    assert (torch.nn.functional.normalize(rows) @ torch.nn.functional.normalize(rows).T).min() < 0
    foreign = torch.autograd.grad(losses["left"], model.head.outputs["turn"].weight, allow_unused=True)
    assert foreign == (None,)


def test_baselines_are_of_each_objective_with_classes():
    single = digits(0, augment=False).train.fetch(np.arange(120), 0)
    layout = Layout(overlap=0, angle=20.0, noise=0.0)
    train, valid = (
        DigitPairs(single["inputs"][half], single["targets"][half], layout, seed=k)
        for k, half in enumerate((slice(0, 60), slice(60, 120)))
    )
    found = digits_multitask(Data(train, valid, ImageSpec(1, 16, 16, 10), "few")).baselines()
    values = {baseline.name: baseline.value for baseline in found}
    assert [b.metric for b in found] == [f"eval/{name}_accuracy" for name in OBJECTIVES[:3] for _ in range(2)]
    assert all(values[f"linear model, {name}"] > values[f"majority class, {name}"] for name in ("left", "right"))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: digits(0), r"images come with right, turn, clean, and these do not\. Use data=digit_pairs"),
        (lambda: replace(digits(0), spec=TokenSpec(256, 8)), r"ImageSpec, not by TokenSpec\. Use data=digit_pairs"),
    ],
    ids=["single digits", "tokens"],
)
def test_data_that_does_not_fit_is_refused(wrong, words):
    with pytest.raises(InputError, match=words):
        digits_multitask(wrong())


def test_a_model_with_one_output_is_refused(data):
    with pytest.raises(InputError, match=r"one output for an image"):
        digits_multitask(data).losses(nn.Flatten(), batch_of(data))
