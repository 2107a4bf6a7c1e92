from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch

from ava import rng
from ava.checkpoint.checkpoint import load, save
from ava.checkpoint.tree import flatten


def draw() -> list[float]:
    """Some of everything, with the halves of pairs that generators keep for later."""
    normal = [random.gauss(0, 1), float(np.random.standard_normal()), torch.randn(3).sum().item()]
    rest = [random.random(), float(np.random.rand()), torch.rand(1).item(), torch.randperm(50)[0].item()]
    return normal + rest + [torch.rand(2, device=d).sum().item() for d in range(torch.cuda.device_count())]


@pytest.mark.parametrize("drawn_before", [0, 1, 2])
def test_all_generators_go_on_as_if_nothing_had_happened(tmp_path, drawn_before):
    for _ in range(drawn_before):
        draw()
    path = save(tmp_path, 1, {"rng": rng.capture()})
    expected = [draw() for _ in range(3)]
    assert draw() not in expected
    rng.restore(load(path)["rng"])
    assert [draw() for _ in range(3)] == expected


def test_capturing_draws_nothing():
    before = rng.capture()
    after = rng.capture()
    assert json.dumps(flatten(before)[0]) == json.dumps(flatten(after)[0])
    assert all(torch.equal(a, b) for a, b in zip(flatten(before)[1].values(), flatten(after)[1].values(), strict=True))


def test_states_of_devices_that_are_not_there_are_left_aside():
    state = rng.capture()
    rng.restore(
        state | {"cuda": [*state["cuda"], *[torch.zeros(16, dtype=torch.uint8)] * 8][: 8 * (not state["cuda"])]}
    )
