"""A checked configuration becomes a run: its parts, its directory, its training, its summary.

Everything is built before anything is written, so that bad input leaves nothing behind.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ava import registry
from ava.checkpoint import atomic
from ava.checkpoint.checkpoint import load
from ava.config.advising import setting
from ava.config.fitting import fit_accumulate
from ava.config.launch import claimed, launched
from ava.config.notices import notices
from ava.config.parts import build_run
from ava.config.saved import to_yaml
from ava.config.schema import Config, ResumePlan
from ava.config.search import search, take_up
from ava.errors import InputError, Interrupted, TrainingFailed, nearest
from ava.reporting.conflict_plot import ConflictPlot
from ava.reporting.environment import peak_memory
from ava.reporting.gradient_flow import GradientFlow
from ava.reporting.incidents import IncidentLog
from ava.reporting.listener import Listener
from ava.reporting.metrics import MetricsLog
from ava.reporting.progress import progress
from ava.reporting.stability_plot import StabilityPlot
from ava.reporting.summary import Summary
from ava.training.advice import Adviser
from ava.training.breakdown import breakdowns
from ava.training.evaluation import metric_names, objective_names
from ava.training.loop import Plan, Trainer
from ava.training.profiling import Profiler
from ava.training.state import Run


def run(config: Config, *, saved: ResumePlan | None) -> dict[str, Any]:
    """Train what `config` says, on every rank of this launch.

    Args:
        config: the checked configuration.
        saved: the checkpoint to continue from, if any.

    Returns:
        What `summary.json` holds; an empty dict on ranks other than 0.

    Raises:
        InputError: a part, the data, the run directory or the checkpoint cannot be used; nothing was written.
        TrainingFailed: training went wrong.
        Interrupted: it was told to stop, and saved a checkpoint.
    """
    with launched(config) as (config, world, settled):
        config, fitted = fit_accumulate(config, world)
        training, plan = build_run(config, world)
        _check_monitor(config, training)
        _check_objectives(config, training)
        if saved is not None and saved.new_run:
            world.together(lambda: training.restore(load(saved.checkpoint)))
        with claimed(config, saved, world) as folder:
            if saved is not None and not saved.new_run:
                world.together(lambda: training.restore(load(saved.checkpoint)))
            remarks = [*settled, *fitted, *notices(training, saved)]
            if config.lr_finder.enabled and saved is None:
                config, said = take_up(config, search(config, training, folder))
                training, plan = build_run(config, world)
                remarks.append(said)
            return _train(config, training, plan, folder, remarks)


def _check_monitor(config: Config, training: Run) -> None:
    """A metric that the user chose has to be one of the task's: known before hours of training, not after."""
    chosen = config.checkpoint.monitor
    if chosen is None or chosen == training.task.monitor:
        return
    known = metric_names(training)
    if chosen not in known:
        raise InputError(
            f"is none of the metrics of task={config.task.name}: {', '.join(known)}.",
            key="checkpoint.monitor", value=chosen, hint=nearest(chosen, known),
        )  # fmt: skip


def _check_objectives(config: Config, training: Run) -> None:
    """Surgery has something to reconcile."""
    if training.surgery is None:
        return
    names = objective_names(training)
    if len(names) == 1:
        problem = f"reconciles several objectives, and task={config.task.name} has one: {names[0]}."
        hint = "Leave it out, or choose a task with several, such as task=digits_multitask."
        raise InputError(problem, key="surgery", value=config.surgery.name, hint=hint)


def _train(config: Config, training: Run, plan: Plan, folder: Path, remarks: list[str]) -> dict[str, Any]:
    world = training.world
    summary = Summary(folder / "summary.json", {plan.monitor: plan.mode})
    listeners = _listeners(config, training, folder, summary) if world.is_main else []
    incidents = IncidentLog(folder / "incidents.jsonl") if world.is_main else None
    if incidents is not None:
        listeners.append(Adviser(setting(config, training, plan.total_steps), folder, listeners, incidents))
    profiler = Profiler(folder / "profile", plan.total_steps - training.step) if config.trainer.profile else None
    trainer = Trainer(training, plan, folder, listeners, incidents, profiler if world.is_main else None)
    try:
        if world.is_main:
            # A finished run that is resumed takes no step, and its record stays what it was trained with.
            if training.step < plan.total_steps or not (folder / "config.yaml").exists():
                atomic.write_text(folder / "config.yaml", to_yaml(config))
            info = _introduction(config, training, plan, folder) | {"notices": remarks}
            for listener in listeners:
                listener.on_start(info)
        # What breaks on one rank only is written there: the others know no more than that it is gone.
        with breakdowns(lambda: training.step + 1, IncidentLog(folder / "incidents.jsonl")):
            status = trainer.train()
        if not world.is_main:
            return {}
        baselines = [vars(baseline) for baseline in training.task.baselines()]
        facts = _facts(config, trainer, folder, status, baselines)
        final = summary.complete(facts, str(world.device))
        for listener in listeners:
            listener.on_end(final)
        return final
    except (TrainingFailed, Interrupted) as error:
        if world.is_main:
            ending = "failed" if isinstance(error, TrainingFailed) else "interrupted"
            facts = _facts(config, trainer, folder, ending, [])
            summary.on_end(summary.complete(facts, str(world.device)))
        raise
    finally:
        for listener in listeners:
            listener.close()


def _listeners(config: Config, training: Run, folder: Path, summary: Summary) -> list[Listener]:
    """Who watches, metrics first; what a resumed run wrote after its checkpoint is dropped here."""
    metrics = MetricsLog(folder / "metrics.jsonl")
    metrics.truncate_after(training.step)
    for row in metrics.read():
        summary.observe(row)
    closely: list[Listener] = []
    if config.health.detail_every:
        closely.append(flow := GradientFlow(folder))
        flow.truncate_after(training.step)
    if training.surgery is not None:
        closely.append(ConflictPlot(folder))
    bound = setting(config, training, 0).clip_norm
    closely.append(StabilityPlot(folder, always=config.recovery.name != "off", clip_norm=bound))
    loggers = [registry.logger[name].load()(folder, training.step + 1) for name in config.logger]
    return [metrics, summary, *closely, *loggers, progress()]


def _introduction(config: Config, training: Run, plan: Plan, folder: Path) -> dict[str, Any]:
    return {
        "run_dir": str(folder), "first_step": training.step + 1, "total_steps": plan.total_steps,
        "parameters": _num_parameters(training), "unit": "samples", "task": config.task.name,
        "model": config.model.name, "optimizer": config.optimizer.name, "scheduler": config.scheduler.name,
        "device": str(training.world.device), "ranks": training.world.size, "precision": training.policy.name,
        "data": training.task.data.description,
    }  # fmt: skip


def _facts(
    config: Config, trainer: Trainer, folder: Path, status: str, baselines: list[dict[str, Any]]
) -> dict[str, Any]:
    training, plan = trainer.run, trainer.plan
    samples = training.position.epoch * len(training.loader.split) + training.position.sample
    return {
        "status": status, "steps": training.step, "seconds": training.seconds,
        "throughput": samples / max(training.seconds, 1e-9), "peak_memory": peak_memory(training.world.device),
        "parameters": _num_parameters(training), "monitor": plan.monitor, "mode": plan.mode, "baselines": baselines,
        "run_dir": str(folder), "task": config.task.name, "model": config.model.name,
        "optimizer": config.optimizer.name, "scheduler": config.scheduler.name, "seed": config.seed,
        "precision": training.policy.name, **trainer.accounting.facts(training.seconds), **_compiled(training),
        **_overflows(training),
    }  # fmt: skip


def _compiled(training: Run) -> dict[str, Any]:
    """What compiling took, and whether anything was compiled after the start, which would have cost time again."""
    made = training.compilation
    return {} if made is None else {"compile_seconds": made.seconds, "recompiles": made.recompiles}


def _overflows(training: Run) -> dict[str, int]:
    """Steps that were left out while the loss scale found its place."""
    scale = training.policy.loss_scale
    return {} if scale is None else {"overflows": int(scale.state_dict()["overflows"])}


def _num_parameters(training: Run) -> int:
    return sum(p.numel() for p in training.model.parameters())
