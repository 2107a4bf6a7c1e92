"""Precision in the training step: what is scaled, skipped, counted and kept."""

from __future__ import annotations

import copy
import dataclasses
import itertools

import pytest
import torch

from ava.errors import InputError, TrainingFailed
from ava.optimization.gradients.health.nonfinite_operation import NonFiniteOperation
from ava.optimization.learning_rate.finder.range_test import LRFinderConfig
from ava.reporting.incidents import IncidentLog
from ava.reporting.metrics import MetricsLog
from ava.training.loop import Trainer
from ava.training.range_test import range_test, search_lr
from ava.training.step import training_step
from tests.training.helpers import small_run, weights

HUGE = "precision.init_scale=1e9"
"""More than float16 holds: the first steps overflow."""


def steps(run, number):
    return [training_step(run, w) for w in itertools.islice(run.loader.windows(run.position), number)]


def trained(tmp_path, *overrides, damage=None):
    run, plan = small_run("trainer.log_every=1", "precision=fp16", "model=mlp", *overrides)
    if damage is not None:
        images = run.loader.split.images.clone()
        images[damage] = float("nan")
        run.loader.split = dataclasses.replace(run.loader.split, images=images)
    log, incidents = MetricsLog(tmp_path / "metrics.jsonl"), IncidentLog(tmp_path / "incidents.jsonl")
    try:
        Trainer(run, plan, tmp_path, [log], incidents).train()
    finally:
        log.close()
    return run, [row for row in log.read() if "loss" in row], incidents.read()


def test_fp16_trains_as_gradscaler_does():
    """The same losses as a loop by hand with torch.amp.GradScaler, up to the order of sums."""
    run, _ = small_run("precision=fp16", "model=mlp", "trainer.max_steps=12", "scheduler=constant", "clip=norm")
    model = copy.deepcopy(run.model)
    reports = steps(run, 12)
    optimizer = _by_hand(run, model)
    scaler = torch.amp.GradScaler("cpu")
    fresh, _ = small_run("precision=fp16", "model=mlp", "trainer.max_steps=12", "scheduler=constant")
    for report, window in zip(reports, fresh.loader.windows(fresh.position), strict=False):
        (batch,) = window.batches
        with torch.autocast("cpu", torch.float16):
            loss = fresh.task.losses(model, batch)["loss"] / len(batch["targets"])
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        assert float(report.losses["loss"]) * report.weight == pytest.approx(loss.item(), rel=2e-3)
    assert float(run.policy.scale) == scaler.get_scale()


def _by_hand(run, model):
    """Torch's AdamW over the twins of a run's parameters, in groups like its own."""
    names = {id(p): n for n, p in run.model.named_parameters()}
    twins = dict(model.named_parameters())
    groups = [
        {"params": [twins[names[id(p)]] for p in group["params"]]}
        | {key: group[key] for key in ("lr", "betas", "eps", "weight_decay")}
        for group in run.optimizer.param_groups
    ]
    return torch.optim.AdamW(groups)


def test_an_overflow_moves_nothing_but_the_scale():
    run, _ = small_run("precision=fp16", HUGE, "scheduler.warmup_steps=10", "trainer.ema_decay=0.9", "clip=zscore")
    before = copy.deepcopy(run.state())
    (report,) = steps(run, 1)
    after = run.state()
    assert float(report.health.found_inf) == 1
    assert float(run.policy.scale) == 5e8
    assert all(torch.equal(t, after["model"][n]) for n, t in before["model"].items())
    assert all(torch.equal(t, after["ema"][n]) for n, t in before["ema"].items() if isinstance(t, torch.Tensor))
    slots = [t for slots in after["optimizer"]["state"].values() for t in slots.values()]
    assert not any(bool(t.any()) for t in slots)
    assert before["progress"]["scheduler"] == after["progress"]["scheduler"]


def test_overflows_are_counted_and_no_incident(tmp_path):
    """Though health.on_nonfinite=raise: it is how the scale finds its place."""
    _, rows, incidents = trained(tmp_path, HUGE, "trainer.max_steps=40")
    assert incidents == []
    overflows = [row["precision/overflows"] for row in rows]
    assert overflows == sorted(overflows)
    assert overflows[0] == 1 < overflows[-1] < 20
    assert rows[-1]["precision/loss_scale"] == 1e9 * 0.5 ** overflows[-1]
    assert all(0 <= row["precision/underflow"] <= 1 for row in rows)
    assert rows[-1]["loss"] < rows[0]["loss"]


@pytest.mark.parametrize("scale", [4.0, 1.0])
def test_a_sample_that_is_not_a_number_is_an_incident_still(tmp_path, scale):
    with pytest.raises(TrainingFailed, match="not finite"):
        trained(tmp_path, f"precision.init_scale={scale}", "trainer.max_steps=30", damage=17)


def test_it_can_be_left_out(tmp_path):
    run, _, incidents = trained(tmp_path, "health.on_nonfinite=skip", "trainer.max_steps=30", damage=17)
    assert len(incidents) == 1
    assert incidents[0]["action"] == "skip"
    assert run.step == 30


@pytest.mark.parametrize(
    "extra",
    [
        ("trainer.accumulate=4",),
        ("optimizer.sam_rho=0.05",),
        ("trainer.ema_decay=0.9",),
        ("optimizer=sophia",),
        ("clip=value", "trainer.clip_norm=0.01"),
        ("clip=adaptive",),
        ("health.detail_every=2",),
        ("task=digits_multitask", "surgery=pcgrad"),
        ("task=digits_multitask", "surgery=mgda", "surgery.level=features"),
        ("task=digits_multitask", "surgery=graddrop"),
    ],
    ids=" ".join,
)
def test_the_scale_changes_no_decision(extra):
    """With two scales, both far from over- and underflow, the same training up to float16's rounding."""
    ends = []
    for scale in (2.0**6, 2.0**10):
        run, _ = small_run("precision=fp16", f"precision.init_scale={scale}", "model=mlp", *extra)
        reports = steps(run, 6)
        assert all(float(r.health.found_inf) == 0 for r in reports)
        ends.append((weights(run), torch.stack([r.health.norm for r in reports])))
    (first, norms), (second, others) = ends
    assert torch.allclose(norms.double(), others.double(), rtol=0.02)
    assert torch.allclose(first, second, atol=6 * 1.1e-3 * 2)


def test_the_noise_scale_sees_gradients_without_the_loss_scale():
    found = []
    for scale in (2.0**4, 2.0**9):
        run, _ = small_run(
            "precision=fp16", f"precision.init_scale={scale}", "trainer.accumulate=4", "health.detail_every=1"
        )
        (report,) = steps(run, 1)
        found.append(report.detail.draw.estimates())
    assert found[0] == pytest.approx(found[1], rel=0.05)


def test_a_resumed_run_has_the_same_scale():
    run, _ = small_run("precision=fp16", HUGE, "precision.growth_interval=3")
    steps(run, 18)
    saved = copy.deepcopy(run.state())
    other, _ = small_run("precision=fp16", HUGE, "precision.growth_interval=3")
    other.restore(saved)
    for one in (run, other):
        steps(one, 5)
    assert torch.equal(weights(run), weights(other))
    assert run.policy.state_dict() == other.policy.state_dict()


def test_16_bit_weights_train_with_stochastic_rounding():
    """Steps below half a unit of the last place are kept in the mean; rounded to the nearest they are lost."""
    options = ("precision=bf16", "precision.parameters=bf16", "optimizer.stochastic_rounding=true")
    run, _ = small_run(*options, "optimizer.lr=1e-5", "scheduler=constant", "trainer.max_steps=40", "model=mlp")
    assert {p.dtype for p in run.model.parameters()} == {torch.bfloat16}
    start = weights(run).clone()
    steps(run, 20)
    moved = (weights(run).float() - start.float()).abs()
    assert 5e-5 < float(moved.mean()) < 4e-4
    saved = copy.deepcopy(run.state())
    other, _ = small_run(*options, "optimizer.lr=1e-5", "scheduler=constant", "trainer.max_steps=40", "model=mlp")
    other.restore(saved)
    for one in (run, other):
        steps(one, 5)
    assert torch.equal(weights(run), weights(other))


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (("precision.init_scale=8",), "belongs to precision=fp16"),
        (("precision=bf16", "precision.emulate=true"), "belongs to precision=fp8"),
        (("precision=fp8", "precision.emulate=true", "precision.margin=1"), "each tensor's own"),
        (("precision=bf16", "precision.parameters=bf16"), "stochastic_rounding=true"),
        (("precision.parameters=bf16", "optimizer.stochastic_rounding=true"), "precision=bf16"),
        (("precision=fp16", "optimizer.fused_backward=true", "clip=none"), "loss scale"),
        (("precision=fp8", "precision.emulate=true", "precision.qat=int8"), "linear layers"),
        (("trainer.deterministic=true", "trainer.cudnn_benchmark=true"), "deterministic"),
        (("trainer.compile_mode=max-autotune",), "compile=false"),
        (("trainer.prefetch=9",), "workers=0"),
        (("precision=fp16", "precision.growth_interval=99999999999999999999999"), "growth_interval"),
        (("precision=fp16", "precision.growth_factor=1e39"), "growth_factor"),
        (("precision.include=[a]",), r"precision.include=\[a\]"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_makes_no_sense_together_is_refused(overrides, says):
    with pytest.raises(InputError, match=says):
        small_run(*overrides)


def test_a_larger_scale_saves_small_gradients():
    """What float16 flushes at scale 1 it keeps at 4096."""
    shares = []
    for scale in (1.0, 4096.0):
        run, _ = small_run("precision=fp16", f"precision.init_scale={scale}", "trainer.log_every=1", "model=mlp")
        shares.append(float(steps(run, 1)[0].scaling.underflow))
    assert shares[1] < shares[0] / 2


def test_a_search_for_the_rate_leaves_the_scale_as_it_was():
    run, _ = small_run("precision=fp16", HUGE, "model=mlp")
    before = copy.deepcopy(run.policy.state_dict())
    range_test(run, LRFinderConfig(num_steps=12))
    assert run.policy.state_dict() == before


@pytest.mark.parametrize("scale", [2.0**30, 1.0])
def test_anomaly_looks_past_overflows_of_the_scale(scale):
    """An infinity of the backward pass is expected as long as the scale can fall, and an anomaly after that."""
    run, _ = small_run("precision=fp16", f"precision.init_scale={scale}", "model=mlp", "health.anomaly=true")
    if scale > 1:
        assert [float(r.health.found_inf) for r in steps(run, 2)] == [1, 1]
        return
    run.parameters[0].register_hook(lambda g: g / 0)
    with pytest.raises(NonFiniteOperation):
        steps(run, 1)


def test_the_finder_does_not_search_in_steps_that_overflow():
    """Its probes would not differ, and its rate would rise over steps that do nothing."""
    found = []
    for scale in (HUGE, "precision.init_scale=128"):
        run, _ = small_run("precision=fp16", scale, "model=mlp")
        before = copy.deepcopy(run.policy.state_dict())
        findings = search_lr(run, LRFinderConfig(num_steps=30, probe_steps=10))
        assert run.policy.state_dict() == before
        assert len({probe.loss for probe in findings.probes}) == len(findings.probes)
        found.append(findings.chosen.lr)
    assert found[0] == pytest.approx(found[1], rel=0.3)


def test_a_scale_that_grows_in_a_step_is_not_taken_for_the_one_it_had():
    found = []
    for interval in (1, 2000):
        scaling = ("precision.init_scale=64", f"precision.growth_interval={interval}")
        run, _ = small_run("precision=fp16", *scaling, "trainer.accumulate=4", "health.detail_every=1", "model=mlp")
        (report,) = steps(run, 1)
        found.append(report.detail.draw.estimates())
    assert found[0] == pytest.approx(found[1])
