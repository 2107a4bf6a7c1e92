"""The quantization bench measures every format beside float32, and QAT beside its control."""

import json

import pytest
import torch

from ava.bench import quantization, quantization_training
from ava.bench.workloads import Workload
from ava.cli.main import main


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_table_holds_every_format(one_thread, monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(quantization, "WARM_UP", 0)
    monkeypatch.setattr(quantization, "SHORTEST", 0.0)
    file = tmp_path / "x.json"
    assert main(["bench", "quantization", "--width", "128", "--rounds", "1", "--json", str(file)]) == 0
    rows = {(row["format"], row["backend"]): row for row in json.loads(file.read_text())["rows"]}
    assert {*rows} == {
        ("fp32", "torch"), ("bf16", "torch"), ("int8 dynamic", "torch.ao"), ("int8 dynamic", "torchao"),
        ("int8 static", "torch.ao"), ("int8 static", "torchao"), ("int4", "torchao"), ("int2", "torch"),
    }  # fmt: skip
    assert rows["fp32", "torch"]["size"] == 1.0
    assert rows["fp32", "torch"]["error"] == 0.0
    assert rows["int8 dynamic", "torch.ao"]["target_64"] == 3.5
    assert rows["int8 dynamic", "torch.ao"]["size"] < 0.27
    assert all(0 < row["error"] < 1 for (name, _), row in rows.items() if name != "fp32")
    assert "torch threads" in capfd.readouterr().out


def test_sizes_reach_their_targets():
    """Sizes need no clock."""
    arms = {(arm.format, arm.backend): arm for arm in quantization.arms(512, False)}
    whole = arms["fp32", "torch"].size
    assert arms["int8 dynamic", "torch.ao"].size / whole <= 0.26
    assert arms["int4", "torchao"].size / whole <= 0.14


def test_training_stands_beside_its_control(one_thread, monkeypatch):
    model = ("gpt", {"preset": None, "layers": 1, "heads": 2, "width": 32})
    small = Workload("GPT", "stdlib_lm", ("stdlib", {"context": 16}), model, batch_size=4, steps=0)
    monkeypatch.setattr(quantization_training, "SMALL", small)
    monkeypatch.setattr(quantization_training, "_VALID", 8)
    rows = quantization_training.measure(steps=3, seeds=1)
    assert [row["weight"] for row in rows] == ["int8", "int4", "int2"]
    assert len({row["base"] for row in rows}) == 1
    assert all(row["gain"] == pytest.approx(row["control"] - row["qat"], abs=2e-4) for row in rows)
    assert rows[2]["ptq"] != rows[2]["base"]


@pytest.mark.slow
@pytest.mark.bench
def test_int8_is_as_fast_as_promised(one_thread):
    torch.set_num_threads(1)
    rows = quantization.measure(quantization.arms(1024, False), 1024, rounds=7)
    found = next(row for row in rows if (row["format"], row["backend"]) == ("int8 dynamic", "torch.ao"))
    assert found["ratio_1"] >= 3.0
    assert found["ratio_64"] >= 3.5
