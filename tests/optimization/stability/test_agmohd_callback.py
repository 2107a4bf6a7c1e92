"""Hugging Face's Trainer tells AGMOHD the loss of every step, and logs what it saw."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from ava.errors import InputError
from ava.optimization import AGMOHD

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.slow

INPUTS = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))


class Regression(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.told = nn.Linear(6, 2), []

    def forward(self, x, labels):
        loss = (self.layer(x) - labels).square().mean()
        if self.training:
            self.told.append(loss.item())
        return {"loss": loss}


def trainer_of(model, optimizer, folder, **options):
    from ava.optimization import AGMOHDCallback

    data = [{"x": x, "labels": 0.5 * x[:2]} for x in INPUTS]
    chosen = {"max_steps": 6, "logging_steps": 2, "max_grad_norm": 0.0, **options}
    arguments = transformers.TrainingArguments(
        str(folder), per_device_train_batch_size=4, use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True,
        **chosen,
    )  # fmt: skip
    return transformers.Trainer(
        model, arguments, train_dataset=data, optimizers=(optimizer, None), callbacks=[AGMOHDCallback()]
    )


@pytest.mark.parametrize("accumulate", [1, 3])
def test_every_step_hears_the_mean_of_its_losses(tmp_path, accumulate):
    model = Regression()
    optimizer = AGMOHD(model.parameters(), lr=1e-2)
    heard = []
    told = optimizer.observe
    optimizer.observe = lambda loss: (heard.append(float(loss)), told(loss))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = trainer_of(model, optimizer, tmp_path, gradient_accumulation_steps=accumulate)
        trainer.train()
    parts = [model.told[k : k + accumulate] for k in range(0, len(model.told), accumulate)]
    assert heard == pytest.approx([sum(part) / len(part) for part in parts])
    assert optimizer.get_training_stats()["step"] == 6
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(logged) == 3
    assert all(entry["momentum"] == 0.9 and entry["skipped_steps"] == 0 for entry in logged)


def test_other_optimizers_cannot_be_told(tmp_path):
    model = Regression()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InputError, match="AdamW"):
            trainer_of(model, torch.optim.AdamW(model.parameters()), tmp_path).train()


class Shares(Regression):
    """Its loss is its batch's share of the step's, as those of transformers' own models are."""

    def forward(self, x, labels, num_items_in_batch=None, **options):
        errors = (self.layer(x) - labels).square()
        return {"loss": errors.mean() if num_items_in_batch is None else errors.sum() / num_items_in_batch}


def test_what_is_told_is_what_is_logged(tmp_path):
    """16 batches, 5 to a step: the fourth step of an epoch has but one."""
    model = Shares()
    optimizer = AGMOHD(model.parameters(), lr=1e-2)
    heard, told = [], optimizer.observe
    optimizer.observe = lambda loss: (heard.append(float(loss)), told(loss))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = trainer_of(model, optimizer, tmp_path, gradient_accumulation_steps=5, logging_steps=1, max_steps=9)
        trainer.train()
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert heard == pytest.approx(logged, rel=1e-3)
    assert optimizer.get_training_stats()["skipped_steps"] == 0


class Silent(Regression):
    def forward(self, x, labels):
        return (self.layer(x) - labels).square().mean(), None


def warned_of(trainer):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.train()
    return [str(one.message) for one in caught if "AGMOHD" in str(one.message)]


def test_silence_is_said_once(tmp_path):
    model = Silent()
    optimizer = AGMOHD(model.parameters(), lr=1e-2)
    (said,) = warned_of(trainer_of(model, optimizer, tmp_path))
    assert "hears no loss" in said
    assert optimizer.get_training_stats()["step"] == 6


@pytest.mark.parametrize(("kind", "norm", "times"), [("adaptive", 1.0, 1), ("adaptive", 0.0, 0), ("none", 1.0, 0)])
def test_a_clip_before_ones_own_is_said(tmp_path, kind, norm, times):
    model = Regression()
    optimizer = AGMOHD(model.parameters(), lr=1e-2, gradient_clipping=kind)
    said = warned_of(trainer_of(model, optimizer, tmp_path, max_grad_norm=norm))
    assert len([one for one in said if "max_grad_norm" in one]) == len(said) == times
