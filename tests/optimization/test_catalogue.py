"""The public names."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import ava.optimization
from ava.errors import InputError
from ava.optimization import (
    AdamW,
    Lion,
    LionOptimizer,
    OptimizerFactory,
    SchedulerFactory,
    get_clip,
    get_optimizer,
    get_scheduler,
    list_clips,
)  # fmt: skip


def test_listing_imports_no_torch():
    code = (
        "import sys, ava.registry as r, ava.optimization as o\n"
        "assert [e.name for e in r.optimizer] == o.list_optimizers() and [e.summary for e in r.scheduler]\n"
        "assert {'adamw', 'lion', 'sgd'} <= set(o.list_optimizers())\n"
        "assert {'constant', 'cosine', 'linear', 'onecycle'} <= set(o.list_schedulers())\n"
        "o.list_clips(), dir(o)\n"
        "assert [e.load()(**{k: e.defaults[k] for k in e.own}) for e in r.optimizer]\n"
        "assert r.scheduler['cosine'].load()(3, 10)\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ava.optimization.__path__[0] + "/../..")


def test_every_export_exists():
    for name in dir(ava.optimization):
        assert getattr(ava.optimization, name) is not None
    with pytest.raises(AttributeError, match="NoSuchThing"):
        _ = ava.optimization.NoSuchThing


def test_classes_bear_the_guides_names():
    assert Lion is LionOptimizer is get_optimizer("lion")
    assert issubclass(AdamW, torch.optim.Optimizer)
    assert (Lion.__name__, AdamW.__name__) == ("Lion", "AdamW")


def test_factories():
    params = [torch.nn.Parameter(torch.ones(2))]
    optimizer = OptimizerFactory.create(optimizer_name="lion", model_parameters=params, lr=1e-4, weight_decay=0.1)
    assert isinstance(optimizer, Lion)
    assert optimizer.param_groups[0]["weight_decay"] == 0.1
    scheduler = SchedulerFactory.create("cosine", optimizer, 10, floor=0.1)
    assert scheduler.get_last_lr() == [1e-4]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda p: get_optimizer("lionn"), "lion"),
        (lambda p: get_scheduler("cosin"), "cosine"),
        (lambda p: get_clip("nrm"), "norm"),
        (lambda p: OptimizerFactory.create("lion", p, weight_deca=1), "weight_decay"),
        (lambda p: SchedulerFactory.create("cosine", Lion(p), 10, flor=0.1), "floor"),
        (lambda p: SchedulerFactory.create("cosine", Lion(p), 10, floor=1.5), "at most 1"),
        (lambda p: SchedulerFactory.create("onecycle", Lion(p), 10, anneal="steps"), "'linear'"),
    ],
)
def test_wrong_names_and_values_say_what_is_right(call, says):
    with pytest.raises(InputError, match=says):
        call([torch.nn.Parameter(torch.ones(2))])


def test_clips_are_listed():
    assert {"norm", "none"} <= set(list_clips())
