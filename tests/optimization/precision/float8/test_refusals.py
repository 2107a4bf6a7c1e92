"""What cannot work is refused at once, with what can."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from ava.errors import InputError
from ava.optimization import FP8Handler
from ava.optimization.precision.float8.training import check_float8
from tests.optimization.precision.float8.trainings import CPU, MLP, mlp

WORKS = {"recipe": "delayed", "fp8_format": "hybrid", "margin": 0, "interval": 1, "emulate": True, "device": CPU}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"emulate": False}, r"Hopper.*MI300.*this device is a CPU.*precision=bf16.*emulate=true"),
        ({"emulate": False, "device": torch.device("meta")}, "this device is a META"),
        ({"recipe": "tensorwise", "margin": 1}, "precision.margin=1: .*dynamically.*recipe=delayed"),
        ({"recipe": "rowwise", "interval": 2}, "precision.interval=2: .*dynamically.*or interval to 1"),
        ({"margin": -1}, "from 0 to 14"),
        ({"margin": 15}, "from 0 to 14"),
        ({"interval": 0}, "at least 1"),
        ({"float8_all_gather": True}, "tensorwise only"),
        ({"recipe": "mx"}, "must be one of tensorwise"),
        ({"fp8_format": "E4M3"}, "must be one of e4m3"),
    ],
)
def test_refused(options, message):
    check_float8(**WORKS)
    with pytest.raises(InputError, match=message):
        check_float8(**WORKS | options)


def test_a_refusal_imports_no_torchao():
    script = (
        "import sys\n"
        "from ava.errors import InputError\n"
        "from ava.optimization import FP8Handler\n"
        "try:\n"
        "    FP8Handler(enabled=True, recipe='tensorwise')\n"
        "except InputError as error:\n"
        "    print('compute capability' in str(error), 'torchao' in sys.modules, 'torch._dynamo' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False", "False"]


def test_the_largest_margin_still_trains():
    """The largest value is the smallest normal e4m3 or above: the gradients are coarse, not zero."""
    model, prepared = mlp(recipe="delayed", margin=14, fp8_format="e4m3")
    for _ in range(2):
        model.zero_grad()
        model(torch.randn(16, 32)).square().mean().backward()
        prepared.step()
    assert model.up.weight.grad.any()


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (nn.Linear(16, 16), {}, r"FP8: the only layer is the whole model\. Wrap nn.Sequential.*include=\[\"0\"\]"),
        (nn.Linear(16, 16), {"include": ("*",)}, "the only layer cannot be converted: it is the whole model"),
        (nn.Sequential(nn.Linear(16, 16)), {}, "`0` is the output layer. Name layers in precision.include, widen"),
        (nn.Sequential(nn.Linear(17, 16)), {}, r"\(16 x 17\)\. Set precision=bf16"),
        (nn.Sequential(nn.Conv1d(1, 1, 1)), {}, r"the model has none\. Set precision=bf16"),
        (MLP(), {"exclude": ("up", "down", "head")}, r"excluded\. Leave layers out of precision.exclude, or set"),
    ],
    ids=["whole", "whole-included", "head", "unaligned", "none", "excluded"],
)
def test_nothing_to_convert_with_what_would_help(model, options, message):
    with pytest.raises(InputError, match=message):
        FP8Handler(emulate=True, device=CPU, **options).prepare(model)


@pytest.mark.parametrize("enabled", [True, False], ids=["enabled", "disabled"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"enabled": "yes"}, "precision.enabled=yes: must be true or false"),
        ({"emulate": 1}, "precision.emulate=1: must be true or false"),
        ({"interval": 1.5}, "precision.interval=1.5: must be a whole number"),
        ({"interval": "2"}, "precision.interval=2: must be a whole number"),
        ({"interval": 0}, "at least 1"),
        ({"margin": 1.5}, "precision.margin=1.5: must be a whole number"),
        ({"margin": True}, "precision.margin=true: must be a whole number"),
        ({"margin": 15}, "from 0 to 14"),
        ({"history": 0}, "precision.history=0: must be a whole number at least 1"),
        ({"history": -1}, "precision.history=-1"),
        ({"history": 4, "recipe": "tensorwise"}, "precision.history=4: .*dynamically.*or history to 16"),
        ({"include": "l1"}, "precision.include=l1: must be a list"),
        ({"exclude": [1]}, "must be a list, each a text"),
        ({"recipe": None}, "must be a text"),
        ({"fp8_format": "bogus"}, "must be one of e4m3"),
    ],
)
def test_the_handler_checks_its_options(options, message, enabled):
    with pytest.raises(InputError, match=message):
        FP8Handler(**{"enabled": enabled, "emulate": True, "device": "cpu"} | options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without GPU")
def test_the_handler_asks_for_hardware_when_it_is_made():
    FP8Handler(enabled=False)
    with pytest.raises(InputError, match=r"compute capability 8\.9"):
        FP8Handler(enabled=True)
    model = MLP()
    assert type(model.up) is nn.Linear
