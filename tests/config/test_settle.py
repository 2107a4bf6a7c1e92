"""What the device decides of a configuration, before anything else is looked at."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import ava
from ava.config.compose import compose
from ava.config.settle import settle
from ava.errors import InputError
from ava.optimization.precision.support import choose, is_emulated

CPU = torch.device("cpu")


def config(*overrides):
    return compose(["trainer.max_steps=2", *overrides])


def test_auto_is_decided_and_explained():
    settled, remarks = settle(config("precision=auto"), CPU)
    name, why = choose(CPU)
    assert settled.precision.name == name
    assert remarks == [f"precision=auto takes {name}: {why}."]


def test_auto_leaves_nothing_idle_behind():
    """The saved configuration has to stand on its own when the run is resumed."""
    settled, _ = settle(config("precision=auto", "precision.init_scale=8"), CPU)
    assert settled.precision.init_scale == (8 if settled.precision.name == "fp16" else 65536.0)


def test_what_is_said_is_left_alone():
    given = config("precision=fp16", "precision.init_scale=8")
    settled, remarks = settle(given, CPU)
    assert settled == given
    assert bool(remarks) == is_emulated("fp16", CPU)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("precision=tf32", "fp32, bf16, fp16"),
        ("precision=fp8", "emulate=true"),
        ("trainer.cuda_graphs=true", "CUDA kernels"),
        ("trainer.cudnn_benchmark=true", "cuDNN"),
        ("trainer.offload_activations=true", "already"),
        ("trainer.offload_optimizer=true", "already"),
    ],
)
def test_what_the_device_cannot_do_is_refused(override, says):
    with pytest.raises(InputError, match=says):
        settle(config(override), CPU)


def test_it_is_refused_before_data_is_read(tmp_path):
    (tmp_path / "too_short.txt").write_text("a")
    text = ["data=text", "task=language_model", "model=gpt", f"path={tmp_path}"]
    with pytest.raises(InputError, match="TF32"):
        ava.train(["precision=tf32", "trainer.max_steps=1", *text])


def test_what_auto_takes_is_checked_again(monkeypatch):
    """On a GPU without bfloat16 auto takes fp16, whose gradients are scaled."""
    monkeypatch.setattr("ava.config.settle.choose", lambda device: ("fp16", "it has no bfloat16"))
    with pytest.raises(InputError, match="loss scale"):
        settle(config("precision=auto", "optimizer.fused_backward=true", "clip=none"), CPU)


NEWER = """
from torch import backends
from ava.training.kernels import kernel_settings

switch = backends.{switch}
switch.fp32_precision = "ieee"
with kernel_settings(tf32=True):
    pass
assert switch.fp32_precision == "ieee"
"""


@pytest.mark.parametrize("switch", ["cuda.matmul", "cudnn.conv", "mkldnn.matmul"])
def test_kernel_settings_bear_switches_of_the_newer_kind(switch):
    """In a process of its own: torch offers no way back to a state where the older names may be asked again."""
    subprocess.run([sys.executable, "-c", NEWER.format(switch=switch)], check=True)


def test_what_auto_does_not_need_is_said(monkeypatch):
    monkeypatch.setattr("ava.config.settle.choose", lambda device: ("bf16", "it can"))
    _, remarks = settle(config("precision=auto", "precision.init_scale=8"), CPU)
    assert remarks[1] == "precision.init_scale=8.0 changes nothing: bf16 has no loss scale."
