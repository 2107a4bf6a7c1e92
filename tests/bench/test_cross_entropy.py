"""The arms of the cross-entropy bench compute the same, and its table has a row for each."""

import json

import pytest
import torch

from ava.bench import cross_entropy
from ava.cli.main import main


@pytest.mark.parametrize("name", list(cross_entropy.arms()))
def test_every_arm_is_the_plain_loss(name):
    torch.manual_seed(0)
    hidden, weight, targets = torch.randn(9, 4).requires_grad_(), torch.randn(7, 4), torch.arange(9) % 7
    losses = [arm(hidden, weight, targets) for arm in (cross_entropy.arms()[name], cross_entropy.plain)]
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*(torch.autograd.grad(loss, hidden)[0] for loss in losses))


@pytest.mark.slow
def test_chunks_take_less_memory(tmp_path):
    file = tmp_path / "x.json"
    sizes = ["--rows", "2048", "--vocabulary", "20000", "--width", "16", "--rounds", "1"]
    assert main(["bench", "cross_entropy", *sizes, "--json", str(file)]) == 0
    rows = {(row["precision"], row["arm"]): row for row in json.loads(file.read_text())["rows"]}
    assert {arm for _, arm in rows} == set(cross_entropy.arms())
    for precision in cross_entropy.DTYPES:
        ours, plain = rows[precision, "ours, 256 rows"], rows[precision, "plain"]
        assert ours["peak_mb"] < 0.5 * plain["peak_mb"]
        assert ours["eval_mb"] < 0.5 * plain["eval_mb"]
