"""The bench takes turns fairly, and the loop does not grow with its steps."""

import json

import pytest

from ava.bench import loop, memory
from ava.bench.turns import Gate, measure


def test_each_turn_holds_the_same_steps():
    seen = {"a": [], "b": []}

    def train(name):
        return lambda gate: seen[name].extend(iter(gate))

    gates = {name: Gate(iter(range(1000)), 5) for name in seen}
    costs = measure({name: train(name) for name in seen}, gates, rounds=3)
    assert len(costs["a"].wall) == len(costs["b"].cpu) == 3
    assert costs["a"].ratio(costs["a"]) == 1.0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_loop_that_dies_is_told_of():
    def dies(gate):
        next(iter(gate))
        raise SystemExit

    with pytest.raises(RuntimeError, match="mortal ended"):
        measure({"mortal": dies}, {"mortal": Gate(iter(range(10)), 3)}, rounds=1)


def test_the_table_holds_every_loop(tmp_path, capsys):
    arguments = [
        "--model",
        "digits",
        "--rounds",
        "1",
        "--loops",
        "bare",
        "ava",
        "ava-silent",
        "--json",
        str(tmp_path / "x.json"),
    ]
    assert loop.main(arguments) == 0
    rows = json.loads((tmp_path / "x.json").read_text())["rows"]
    assert [row["loop"] for row in rows] == ["bare", "ava", "ava-silent"]
    assert "torch threads" in capsys.readouterr().out


@pytest.mark.parametrize("steps", [600, pytest.param(10_000, marks=pytest.mark.slow)])
def test_nothing_grows_with_the_steps(steps):
    """Between the middle and the end of a run no object is added, and hardly a page."""
    row = memory.measure_one("ava", "digits", steps)
    assert row["objects"] < 100
    assert row["growth_kb"] < 4096
