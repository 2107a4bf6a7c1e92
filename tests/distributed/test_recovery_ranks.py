"""Whatever befalls one rank is found by all of them, and all are the same model again."""

import pytest

from tests.distributed.two_ranks import run_on_two_ranks

pytestmark = pytest.mark.xdist_group("ranks")  # two launchers at once may choose the same port

SCRIPT = """
import copy, pathlib, torch
import torch.distributed as dist
from ava.bench.faults.fault import get_fault
from ava.bench.faults.injection import inject
from ava.distributed.world import join
from ava.reporting.incidents import IncidentLog
from ava.training.loop import Trainer
from tests.training.helpers import small_run, weights

folder = pathlib.Path(__file__).parent
with join("cpu", 60.0) as world:
    run, plan = small_run(
        "recovery=ladder", "recovery.snapshot_every=5", "recovery.check_ranks_every=5", "trainer.max_steps=60",
        "model=mlp", "trainer.eval_every=0", "checkpoint.every=1000", world=world,
    )
    log = IncidentLog(folder / "incidents.jsonl") if world.is_main else None
    step = run.optimizer.step

    def damaged(*args):
        if run.step == DAMAGED[0] and world.rank == 1:
            next(iter(run.optimizer.state.values()))["exp_avg"].view(-1)[0] = DAMAGED[1]
        return step(*args)

    run.optimizer.step = damaged
    with inject(run, *FAULTS):
        Trainer(run, plan, folder, [], log).train()
    own = weights(run)
    all_of_them = [torch.empty_like(own) for _ in range(2)]
    dist.all_gather(all_of_them, own)
    assert torch.equal(*all_of_them)
    assert own.isfinite().all()
    state = torch.cat([value.view(-1) for own in run.optimizer.state.values() for value in own.values()])
    states = [torch.empty_like(state) for _ in range(2)]
    dist.all_gather(states, state)
    assert torch.equal(*states)
    assert state.abs().max() < 1e6
    ladders = [None, None]
    dist.all_gather_object(ladders, run.recovery.ladder.state_dict())
    assert repr(ladders[0]) == repr(ladders[1])
    if world.is_main:
        found = [(one["kind"], one["action"]) for one in log.read()]
        assert WANTED in found, found
"""


@pytest.mark.parametrize(
    ("fault", "wanted"),
    [
        ("get_fault('nan_weight', at=30, rank=1)", ("weights_nonfinite", "restore")),
        ("get_fault('weight_spike', at=30, rank=1)", ("weights_jumped", "restore")),
        ("get_fault('rank_divergence', at=31)", ("ranks_differ", "restore")),
        ("get_fault('infinite_gradient', at=30, rank=0)", ("nonfinite_gradient", "skip")),
        ("get_fault('random_labels', at=30, duration=10)", ("persistent", "rollback")),
    ],
    ids=["nan weight", "weight spike", "divergence", "infinite gradient", "random labels"],
)
def test_ranks_stay_one_model(tmp_path, fault, wanted):
    script = SCRIPT.replace("FAULTS", f"[{fault}]").replace("WANTED", repr(wanted)).replace("DAMAGED", "(-1, 0)")
    run_on_two_ranks(script, tmp_path)


@pytest.mark.parametrize("value", ["1e3", "1e30", "float('inf')", "float('nan')"])
def test_a_rank_whose_optimizer_holds_something_else_decides_with_the_others(tmp_path, value):
    script = SCRIPT.replace("FAULTS", "[]").replace("WANTED", repr(("ranks_differ", "restore")))
    run_on_two_ranks(script.replace("DAMAGED", f"(31, {value})"), tmp_path)


@pytest.mark.parametrize("fault", ["nan_weight", "weight_spike"])
def test_damaged_weights_are_put_back_on_all_ranks(tmp_path, fault):
    script = SCRIPT.replace("FAULTS", f"[get_fault('{fault}', at=30, rank=1)]").replace("DAMAGED", "(-1, 0)")
    script = script.replace("check_ranks_every=5", "check_ranks_every=0").replace("WANTED in found", "found")
    run_on_two_ranks(script, tmp_path)


GRADIENT = """
import torch
from ava.distributed.world import join
from ava.training.step import training_step
from tests.training.helpers import small_run

with join("cpu", 20.0) as world:
    run, _ = small_run("recovery=ladder", "trainer.max_steps=60", "model=mlp", world=world)
    clip = run.clip
    for window in run.loader.windows(run.position):
        if run.step == 30:  # between the exchange of gradients and what is measured of them
            judge = run.guard.judge
            run.guard.judge = lambda found, *rest: judge(spoilt(found), *rest)
        training_step(run, window)
        run.guard.__dict__.pop("judge", None)
        if run.step == 40:
            break
    told = [None, None]
    torch.distributed.all_gather_object(told, (run.guard.detector.memory.tolist(), run.guard.usual))
    assert told[0] == told[1]
"""
SPOILT = """
import dataclasses
def spoilt(found):
    if world.rank == 1:
        return dataclasses.replace(found, norm=torch.tensor(NORM), found_inf=torch.tensor(float(NORM != 9e9)))
    return found
"""


@pytest.mark.parametrize("norm", ["9e9", "float('inf')", "float('nan')"])
def test_a_rank_that_measures_another_gradient_decides_with_the_others(tmp_path, norm):
    run_on_two_ranks(SPOILT.replace("NORM", norm) + GRADIENT, tmp_path)
