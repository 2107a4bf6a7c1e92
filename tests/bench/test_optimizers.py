"""The optimizers' bench measures what can be built, and says what it left out."""

import json

import pytest

from ava import registry
from ava.bench import gradients, optimizers, steps
from ava.bench.arms.peer_optimizers import PEERS, Peer
from ava.bench.optimizer_options import OF_HALVED, OPTIONS
from ava.bench.parameter_sets import SETS
from ava.bench.rules import BASE, RULES, Arm, Rule, choose_arms
from ava.cli.main import main
from ava.errors import InputError

TORCH = [peer for peer in PEERS if peer.package == "torch"]


@pytest.fixture
def short_turns(monkeypatch):
    """One step a turn: what is tested is the table, not the time."""
    monkeypatch.setattr(steps, "SHORTEST", 0.0)
    monkeypatch.setattr(steps, "STEPS", 1)


def test_the_sets_are_what_the_figures_say():
    for name, parameters, tensors, shapes in [("gpt", 32.8e6, 149, 9), ("small", 4.096e6, 1000, 1)]:
        values = list(SETS[name].shapes.values())
        elements = sum(shape[0] * (shape[1] if len(shape) > 1 else 1) for shape in values)
        assert (len(values), len(set(values))) == (tensors, shapes)
        assert elements == pytest.approx(parameters, rel=0.005)


def test_the_table_holds_the_base_ours_and_peers(short_turns, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("ava.bench.rules.PEERS", TORCH)
    file = tmp_path / "x.json"
    words = ["bench", "optimizers", "--sets", "tiny", "--rounds", "2", "--only", "sgd", "adamw", "--json", str(file)]
    assert main(words) == 0
    written = json.loads(file.read_text())
    rows = {(row["rule"], row["library"]): row for row in written["rows"]}
    assert {("adamw", "torch fused"), ("adamw", "ava"), ("adamw", "torch loop"), ("sgd", "ava")} <= rows.keys()
    assert all(row["ratio"] > 0 and row["wall_ratio"] > 0 and row["cpu_min_ms"] > 0 for row in rows.values())
    assert rows["adamw", "torch fused"]["ratio"] == 1.0
    assert rows["adamw", "ava"]["best_peer"] <= 1.0
    assert rows["adamw", "ava"]["state_bytes"] == rows["adamw", "torch fused"]["state_bytes"] == 8.0
    assert "torch threads" in capsys.readouterr().out


def test_without_peers_only_the_base_stays(short_turns, tmp_path):
    file = tmp_path / "x.json"
    words = ["--sets", "tiny", "--rounds", "1", "--only", "lion", "--no-peers", "--json", str(file)]
    assert optimizers.main(words) == 0
    libraries = [row["library"] for row in json.loads(file.read_text())["rows"]]
    assert libraries == ["torch fused", "ava"]


def test_options_stand_beside_the_plain_optimizer(short_turns, monkeypatch, tmp_path, capsys):
    few = {name: OPTIONS[name] for name in ("state=int8", "grams", "ademamix", "lookahead=6")}  # each is a kernel
    monkeypatch.setattr("ava.bench.optimizer_options.OPTIONS", few)
    file = tmp_path / "x.json"
    assert main(["bench", "optimizers", "--options", "--sets", "tiny", "--rounds", "2", "--json", str(file)]) == 0
    written = json.loads(file.read_text())
    rows = {(row["rule"], row["option"]): row for row in written["rows"]}
    assert rows["adamw", "plain"]["ratio"] == 1.0
    assert {option for rule, option in rows if rule == "adamw"} == {"plain", *few}
    assert {option for rule, option in rows if rule == "lion"} == {"plain", *few} - {"grams"}
    assert ("lion, bf16 weights", "stochastic_rounding") in rows
    assert (rows["adamw", "ademamix"]["state_bytes"], rows["lion", "lookahead=6"]["state_bytes"]) == (12.0, 8.0)
    assert [line.split(" (")[0] for line in written["missing"]] == ["grams lion"]
    assert "CPU / plain" in capsys.readouterr().out


def test_every_option_is_measured_or_does_nothing_to_a_step():
    elsewhere = {"sam_rho", "sam_adaptive", "fused_backward", "ademamix_alpha", "ademamix_beta", "lookahead_alpha"}
    measured = {key for options in (*OPTIONS.values(), *OF_HALVED.values()) for key in options}
    assert measured | elsewhere | {"seed"} >= registry.optimizer["lion"].shared


def test_an_unknown_name_is_refused(capsys):
    assert main(["bench", "optimizers", "--only", "lyon"]) == 2
    message = capsys.readouterr().err
    assert "'lyon'" in message
    assert "`lion`" in message


@pytest.mark.parametrize("words", [["--rounds", "0"], ["--sets", "huge"], ["--threads", "x"]])
def test_other_bad_words_are_refused(words, capsys):
    with pytest.raises(SystemExit) as ended:
        optimizers.main(words)
    assert ended.value.code == 2


def test_what_this_version_lacks_is_told(monkeypatch):
    monkeypatch.setitem(RULES, "adopt", Rule("not_there"))
    monkeypatch.setitem(RULES, "lion", Rule("lion", {"no_option": 1}))
    monkeypatch.setattr("ava.bench.rules.PEERS", (*PEERS, Peer("lion", "nobody", "ava_has_no_such_peer:Lion")))
    arms, missing = choose_arms(["adopt", "lion"], peers=True)
    assert "ava" not in {arm.library for arm in arms}
    assert [line.split(" (")[0] for line in missing] == ["ava lion", "nobody lion", "ava adopt"]


@pytest.mark.parametrize("peer", TORCH, ids=lambda peer: f"{peer.rule} {peer.library}")
def test_every_peer_in_torch_steps(peer):
    named = SETS["tiny"].build()
    before = [parameter.detach().clone() for _, parameter in named]
    optimizer = peer.build(named)
    optimizer.step()
    assert all((parameter != old).any() for (_, parameter), old in zip(named, before, strict=True))
    assert steps.held_bytes(optimizer) > 0


def test_every_peer_has_a_rule():
    assert {peer.rule for peer in PEERS} <= RULES.keys()
    assert len({(peer.rule, peer.library) for peer in PEERS}) == len(PEERS)
    assert PEERS[0].build == BASE.build


def test_an_arm_that_fails_costs_only_its_row():
    def fails(named):
        raise InputError("no")

    told = []
    measured = steps.compare([Arm("lion", "broken", fails)], SETS["tiny"], rounds=1, tell=told.append)
    assert [result.arm for result in measured] == [BASE]
    assert told == ["broken lion (InputError: no)"]


def test_slow_arms_get_fewer_turns(monkeypatch, short_turns):
    monkeypatch.setattr(steps, "LONGEST", -1.0)
    monkeypatch.setattr(steps, "_turn", lambda step: (1.0, 1.0))
    costs = steps.take_turns({BASE: lambda: None}, rounds=9)
    assert len(costs[BASE].wall) == steps.SLOW_ROUNDS


@pytest.mark.parametrize("arm", gradients.ARMS)
def test_gradients_are_counted(arm):
    if not gradients.can(arm, "adamw"):
        pytest.skip("AdamW has no such option")
    row = gradients.train(arm, "tiny", "adamw")
    assert row["state"] == pytest.approx(2 * row["parameters"], rel=0.01)
    if arm == "plain":
        assert row["gradients"] == row["parameters"]
    else:
        assert row["gradients"] < row["parameters"]
