"""The precision policy."""

from __future__ import annotations

import pytest
import torch

from ava.errors import InputError
from ava.optimization import Policy


@pytest.mark.parametrize(("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_products_run_in_the_policys_type(name, dtype):
    layer = torch.nn.Linear(2, 2)
    with Policy(name, "cpu").autocast():
        assert layer(torch.ones(1, 2)).dtype is dtype
    assert layer(torch.ones(1, 2)).dtype is torch.float32


@pytest.mark.parametrize(("name", "device", "says"), [("fp17", "cpu", "fp32, bf16"), ("bf16", "meta", "fp32")])
def test_what_cannot_be_is_refused(name, device, says):
    with pytest.raises(InputError, match=says):
        Policy(name, device)
