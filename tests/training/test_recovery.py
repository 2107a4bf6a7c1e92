"""Recovery in the trainer: what a step is mended by, when the run goes back, and what all of it leaves alone."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from ava.bench.faults.fault import get_fault
from ava.bench.faults.injection import inject
from ava.data.loader import epoch_order
from ava.errors import TrainingFailed
from ava.optimization.learning_rate.finder.range_test import LRFinderConfig
from ava.reporting.incidents import IncidentLog
from ava.reporting.metrics import MetricsLog
from ava.training.loop import Trainer
from ava.training.range_test import range_test
from ava.training.recovery.fresh_start import start_anew
from ava.training.recovery.trivial import constant_loss
from ava.training.step import training_step
from tests.training.helpers import small_run, weights
from tests.training.test_nonfinite import assert_same


def recovered(folder, *overrides, faults=(), steps=80):
    """A run to its end, its rows and its incidents."""
    run, plan = small_run(
        "recovery=ladder", f"trainer.max_steps={steps}", "trainer.log_every=5", "trainer.eval_every=0", "model=mlp",
        "recovery.snapshot_every=5", *overrides,
    )  # fmt: skip
    log, incidents = MetricsLog(folder / "metrics.jsonl"), IncidentLog(folder / "incidents.jsonl")
    try:
        with inject(run, *(get_fault(kind, **said) for kind, said in faults)):
            Trainer(run, plan, folder, [log], incidents).train()
    finally:
        log.close()
    return run, log.read(), incidents.read() if incidents.path.exists() else []


def told(incidents):
    return [(one["kind"], one["action"]) for one in incidents]


def last_loss(rows):
    return next(row["eval/loss"] for row in reversed(rows) if "eval/loss" in row)


@pytest.mark.parametrize("name", ["skip", "ladder"])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lion", "schedule_free_adamw"])
def test_a_clean_run_is_what_it_is_without(tmp_path, name, optimizer):
    """Nothing is seen, so nothing is done: weights are equal bit for bit."""
    given = ("trainer.max_steps=30", "model=mlp", f"optimizer={optimizer}")
    ended = []
    for recovery in ("off", name):
        run, plan = small_run(*given, f"recovery={recovery}")
        folder = tmp_path / recovery
        folder.mkdir()
        Trainer(run, plan, folder, []).train()
        ended.append(weights(run))
    assert torch.equal(*ended)


@pytest.mark.parametrize(
    ("fault", "kind", "action"),
    [
        (("infinite_gradient", {"at": 40}), "nonfinite_gradient", "skip"),
        (("nan_batch", {"at": 41}), "nonfinite_gradient", "skip"),
        (("gradient_spike", {"at": 42, "size": 1e4}), "gradient_outlier", "clip"),
        (("lr_spike", {"at": 43, "duration": 3}), "update_outlier", "shrink"),
        (("weight_spike", {"at": 44}), "weights_jumped", "restore"),
        (("nan_weight", {"at": 45, "seed": 3}), "weights_nonfinite", "restore"),
    ],
    ids=["infinite gradient", "nan batch", "gradient spike", "rate spike", "weight spike", "nan weight"],
)
@pytest.mark.parametrize("recovery", ["skip", "ladder"])
def test_a_step_is_mended_within_the_step(tmp_path, fault, kind, action, recovery):
    _, clean, _ = recovered(tmp_path)
    (tmp_path / "faulty").mkdir()
    extra = () if recovery == "ladder" else ("recovery=skip", "recovery.snapshot_every=null")
    _, rows, incidents = recovered(tmp_path / "faulty", *extra, faults=[fault])
    assert (kind, action) in told(incidents)
    assert not {"rollback", "restart"} & {one["action"] for one in incidents}
    assert last_loss(rows) < last_loss(clean) + 0.03
    first = next(one for one in incidents if one["kind"] == kind)
    assert first["step"] == fault[1]["at"]
    assert first["level"] <= 2


def test_bad_batches_in_a_row_make_the_run_go_back(tmp_path):
    run, rows, incidents = recovered(tmp_path, faults=[("random_labels", {"at": 50, "duration": 10})], steps=120)
    (back,) = [one for one in incidents if one["action"] == "rollback"]
    assert (back["kind"], back["level"], back["used"]) == ("persistent", 3, 1)
    assert back["to_step"] < 50 <= back["from_step"]
    assert back["lr_after"] < back["lr_before"]
    # Undone steps are taken again with other samples, and no line stands twice.
    steps = [row["step"] for row in rows if "loss" in row]
    assert steps == sorted(set(steps)) == list(range(5, 121, 5))
    taken = run.position.epoch * 898 + run.position.sample
    assert taken > (120 + back["from_step"] - back["to_step"]) * 28
    assert run.step == 120


@pytest.mark.slow
@pytest.mark.parametrize("size", [10.0, 100.0])
@pytest.mark.parametrize(("optimizer", "lr"), [("adamw", 1e-3), ("sgd", 0.05)])
def test_a_bad_start_is_healed(tmp_path, optimizer, lr, size):
    given = (f"optimizer={optimizer}", f"optimizer.lr={lr}")
    _, clean, nothing = recovered(tmp_path, *given, steps=300)
    assert nothing == []
    (tmp_path / "faulty").mkdir()
    _, rows, incidents = recovered(tmp_path / "faulty", *given, faults=[("bad_start", {"size": size})], steps=300)
    assert ("bad_start", "restart") in told(incidents)
    assert last_loss(rows) < last_loss(clean) + 0.03


def test_a_rate_that_is_far_too_high_is_brought_down(tmp_path):
    run, rows, incidents = recovered(tmp_path, "optimizer=sgd", "optimizer.lr=20", steps=200)
    assert {one["action"] for one in incidents} & {"restart", "rollback"}
    assert run.recovery.ladder.comeback.ceiling < 1
    assert last_loss(rows) < 1.0


def test_data_that_is_never_finite_ends_the_run_with_a_diagnosis(tmp_path):
    with pytest.raises(TrainingFailed, match=r"recovery went back 2 times.*recovery\.budget=2") as caught:
        recovered(tmp_path, "recovery.budget=2", faults=[("nan_batch", {"at": 20, "duration": 200})], steps=200)
    assert caught.value.exit_code == 1
    assert caught.value.incidents == tmp_path / "incidents.jsonl"
    last = IncidentLog(caught.value.incidents).read()[-1]
    assert (last["kind"], last["action"], last["level"]) == ("budget_spent", "stop", 6)


class Mislabelled:
    """A split of which some samples have random labels in one epoch."""

    def __init__(self, split, order):
        self.split, self.bad = split, set(order)

    def __len__(self):
        return len(self.split)

    def fetch(self, indices, epoch):
        batch = self.split.fetch(indices, epoch)
        if epoch == 1:
            bad = torch.tensor([int(index) in self.bad for index in indices])
            batch["targets"] = torch.where(bad, (batch["targets"] + 5) % 10, batch["targets"])
        return batch


def run_with_bad_labels(folder, *overrides):
    """Windows 15 to 25 of epoch 1 are mislabelled: from step 45 on."""
    run, plan = small_run(
        "recovery=ladder", "recovery.snapshot_every=5", "trainer.max_steps=100", "model=mlp", "trainer.eval_every=0",
        "checkpoint.every=1", "checkpoint.keep_last=200", "trainer.log_every=10", "optimizer=sgd",
        "optimizer.lr=0.1", *overrides,
    )  # fmt: skip
    run.loader.split = Mislabelled(run.loader.split, epoch_order(898, 0, 1)[15 * 32 : 26 * 32])
    return run, plan


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run with a checkpoint after every step, and the folder of what was written, by its place in the data."""
    folder = tmp_path_factory.mktemp("whole")
    run, plan = run_with_bad_labels(folder)
    incidents = IncidentLog(folder / "incidents.jsonl")
    trainer = Trainer(run, plan, folder, [], incidents)
    states, save = {}, trainer._save

    def kept():
        states[run.position] = copy.deepcopy(run.state())
        return save()

    trainer._save = kept
    trainer.train()
    return run, states, incidents.read()


@pytest.mark.parametrize("window", [16, 20, 24, 40], ids=["while bad", "going back", "while the rate rises", "after"])
def test_a_resumed_run_goes_on_in_the_middle_of_a_recovery(whole, tmp_path, window):
    """As if it had not been interrupted: the ladder is part of the checkpoint, and going back does not undo it."""
    run, states, incidents = whole
    assert ("persistent", "rollback") in told(incidents)
    taken = (28 * 32 + 2) + window * 32
    place = next(p for p in states if p.epoch * 898 + p.sample >= taken)
    resumed, plan = run_with_bad_labels(tmp_path)
    resumed.restore(copy.deepcopy(states[place]))
    Trainer(resumed, plan, tmp_path, []).train()
    one, other = run.state(), resumed.state()
    for section in set(one) - {"progress", "recovery"}:
        assert_same(one[section], other[section])
    assert run.step == resumed.step
    assert run.position == resumed.position
    assert one["recovery"]["ladder"] == other["recovery"]["ladder"]


def test_a_young_training_that_is_resumed_can_still_start_anew(tmp_path):
    """Its checkpoint holds the beginning; what comes of it is what comes of the beginning itself."""
    ended = []
    for interrupted in (False, True):
        folder = tmp_path / str(interrupted)
        run, plan = small_run("recovery=ladder", "trainer.max_steps=100", "model=mlp", "trainer.ema_decay=0.9")
        trainer = Trainer(run, plan, folder, [])
        trainer.recovery.begin()
        windows = run.loader.windows(run.position)
        for _ in range(5):
            training_step(run, next(windows))
        if interrupted:
            sections = copy.deepcopy(run.state())
            run, plan = small_run("recovery=ladder", "trainer.max_steps=100", "model=mlp", "trainer.ema_decay=0.9")
            run.restore(sections)
            trainer = Trainer(run, plan, folder, [])
            trainer.recovery.begin()
        start_anew(run, run.recovery, trainer.recovery.snapshots)
        assert run.step == 0
        assert run.position.sample == 5 * 32
        ended.append(run.state())
    for section in ("model", "optimizer", "rng", "ema", "guard"):
        assert_same(ended[0][section], ended[1][section])
    assert ended[0]["progress"]["scheduler"] == ended[1]["progress"]["scheduler"]


@pytest.mark.parametrize(
    "extra",
    [
        ("trainer.accumulate=2",), ("optimizer.sam_rho=0.05",), ("trainer.ema_decay=0.9",), ("precision=bf16",),
        ("precision=fp16",), ("optimizer=schedule_free_adamw",), ("optimizer=prodigy", "optimizer.lr=1.0"),
        ("task=digits_multitask", "surgery=pcgrad"), ("clip=zscore",), ("optimizer=muon",),
    ],
    ids=lambda extra: " ".join(extra),
)  # fmt: skip
def test_it_stands_beside_what_else_changes_a_step(tmp_path, extra):
    faults = [("weight_spike", {"at": 30}), ("lr_spike", {"at": 40, "duration": 2}), ("nan_weight", {"at": 50})]
    _, _, nothing = recovered(tmp_path, *extra, steps=60)
    assert nothing == []
    (tmp_path / "faulty").mkdir()
    run, rows, incidents = recovered(tmp_path / "faulty", *extra, faults=faults, steps=60)
    assert ("weights_nonfinite", "restore") in told(incidents)
    assert weights(run).isfinite().all()
    assert last_loss(rows) < rows[0]["loss"]


def test_an_overflow_of_the_loss_scale_is_no_incident(tmp_path):
    run, _, incidents = recovered(tmp_path, "precision=fp16", "precision.init_scale=1e12", steps=40)
    assert incidents == []
    assert run.policy.loss_scale.state_dict()["overflows"] > 3
    assert run.step == 40


def test_ranges_and_trials_are_not_mended(tmp_path):
    """What looks for the rate that is too high has to see it."""
    run, _ = small_run("recovery=ladder", "model=mlp")
    plain, _ = small_run("model=mlp")
    config = LRFinderConfig(num_steps=30)
    curves = [range_test(one, config)[0] for one in (run, plain)]
    assert curves[0] == curves[1]
    assert run.guard is not None


def test_schedules_are_scaled_and_states_are_not():
    run, _ = small_run("scheduler.warmup_steps=5")
    scheduler, before = run.scheduler, copy.deepcopy(run.scheduler.state_dict())
    planned, lr = scheduler.planned_lr, run.optimizer.param_groups[0]["lr"]
    scheduler.rescale(0.25)
    assert run.optimizer.param_groups[0]["lr"] == 0.25 * lr == scheduler.get_last_lr()[0]
    assert scheduler.planned_lr == planned == lr
    assert scheduler.state_dict() == before
    scheduler.rescale(1.0)
    assert run.optimizer.param_groups[0]["lr"] == lr


def test_the_constant_answer_is_the_entropy_of_the_labels():
    run, _ = small_run()
    shares = torch.bincount(run.loader.split.labels).double() / len(run.loader.split)
    entropy = -(shares * shares.log()).sum().item()
    assert constant_loss(run.loader.split) == pytest.approx(entropy, rel=1e-6)
    assert math.isclose(entropy, math.log(10), rel_tol=0.01)


@pytest.mark.parametrize(
    ("fault", "kind", "action"),
    [
        (("infinite_gradient", {"at": 40}), "nonfinite_gradient", "skip"),
        (("gradient_spike", {"at": 42, "size": 1e4}), "gradient_outlier", "clip"),
        (("lr_spike", {"at": 43, "duration": 3}), "update_outlier", "shrink"),
        (("nan_weight", {"at": 45, "seed": 3}), "weights_nonfinite", "restore"),
        (("random_labels", {"at": 50, "duration": 10}), "persistent", "rollback"),
    ],
    ids=["infinite gradient", "gradient spike", "rate spike", "nan weight", "random labels"],
)
def test_the_way_of_an_accelerator_comes_to_the_same(tmp_path, fault, kind, action):
    """Rehearsed on a processor: decided by selection, and told to the host two steps later."""
    run, plan = small_run(
        "recovery=ladder", "trainer.max_steps=80", "trainer.log_every=5", "trainer.eval_every=0", "model=mlp",
        "recovery.snapshot_every=5",
    )  # fmt: skip
    run.guard.on_host, run.recovery.relay.lag = False, 2
    log, incidents = MetricsLog(tmp_path / "metrics.jsonl"), IncidentLog(tmp_path / "incidents.jsonl")
    with inject(run, get_fault(fault[0], **fault[1])):
        Trainer(run, plan, tmp_path, [log], incidents).train()
    log.close()
    assert (kind, action) in told(incidents.read())
    (tmp_path / "host").mkdir()
    _, rows, _ = recovered(tmp_path / "host", faults=[fault])
    assert last_loss(log.read()) == pytest.approx(last_loss(rows), abs=0.03)


def test_data_that_is_not_finite_at_first_costs_no_more_than_one_return(tmp_path):
    """Nothing is finite with the initial weights: to start anew is no help, so the run waits for other data."""
    run, rows, incidents = recovered(tmp_path, faults=[("nan_batch", {"at": 1, "duration": 50})], steps=120)
    assert [one["action"] for one in incidents if one["action"] != "skip" and one["kind"] != "advice"] == ["rollback"]
    assert run.recovery.multiplier == 1
    assert last_loss(rows) < 0.6


@pytest.mark.parametrize(("name", "steps"), [("skip", 30), ("ladder", 3)])
def test_a_run_that_never_took_a_step_has_failed(tmp_path, name, steps):
    extra = () if name == "ladder" else ("recovery=skip", "recovery.snapshot_every=null")
    with pytest.raises(TrainingFailed, match=r"all steps were left out.*not finite") as caught:
        recovered(tmp_path, *extra, faults=[("nan_batch", {"at": 1, "duration": 200})], steps=steps)
    assert caught.value.exit_code == 1
    assert told(IncidentLog(caught.value.incidents).read()) == [
        *[("nonfinite_gradient", "skip")] * steps, ("nonfinite_gradient", "stop"),
    ]  # fmt: skip


def test_every_step_left_out_is_told_before_the_run_gives_up(tmp_path):
    """Data that is bad for ever ends the run: after the budget, and the steps that it waits each time."""
    extra = ("recovery.budget=2", "trainer.log_every=500")
    with pytest.raises(TrainingFailed, match="losses or gradients were not finite") as caught:
        recovered(tmp_path, *extra, faults=[("nan_batch", {"at": 1, "duration": 10_000})], steps=1000)
    lines = told(IncidentLog(caught.value.incidents).read())
    assert lines.count(("nonfinite_gradient", "skip")) == 5 + 2 * 65
    assert lines[-1] == ("budget_spent", "stop")


def test_a_loss_that_is_not_finite_though_its_gradient_is_is_told(tmp_path):
    run, plan = small_run("recovery=skip", "trainer.max_steps=20", "model=mlp")
    losses, task = run.task.losses, copy.copy(run.task)

    def spoilt(model, batch):
        parts = losses(model, batch)
        return {k: v * 0 + math.nan for k, v in parts.items()} if run.step == 9 else parts

    object.__setattr__(task, "losses", spoilt)
    run.task = task
    incidents = IncidentLog(tmp_path / "incidents.jsonl")
    Trainer(run, plan, tmp_path, [], incidents).train()
    (one,) = incidents.read()
    assert (one["step"], one["kind"], one["action"], one["level"]) == (10, "nonfinite_gradient", "skip", 0)
