"""From a checked configuration to the parts of a run, each built by its registered builder."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ava import registry
from ava.config.schema import Config, Part
from ava.data.loader import TrainingLoader
from ava.distributed.world import World
from ava.errors import InputError
from ava.optimization import get_optimizer
from ava.optimization.learning_rate.scheduler import Scheduler
from ava.optimization.optimizers.parameter_groups import decay_groups
from ava.optimization.optimizers.wrappers.ema import EMA
from ava.optimization.precision.policy import Policy
from ava.registry import Registry
from ava.tasks.task import Task
from ava.training.determinism import seed_everything
from ava.training.loop import Plan
from ava.training.memory_saving import checkpoint_activations
from ava.training.state import Run


def build_run(config: Config, world: World) -> tuple[Run, Plan]:
    """Everything a training needs, on this rank's device; nothing is written.

    Raises:
        InputError: a part refuses its options or its data.
    """
    seed_everything(config.seed)
    task = _build_task(config)
    model = _build(registry.model, config.model, task.data.spec).to(world.device)
    if config.trainer.activation_checkpointing:
        checkpoint_activations(model)
    loader = TrainingLoader(
        task.data.train, batch_size=config.trainer.batch_size, accumulate=config.trainer.accumulate, seed=config.seed,
        rank=world.rank, world_size=world.size, workers=config.trainer.workers,
        pin_memory=world.device.type == "cuda",
    )  # fmt: skip
    plan = _build_plan(config, task, loader)
    optimizer = _build_optimizer(config, model)
    run = Run(
        task=task, model=model, network=_build_network(config, model, world), optimizer=optimizer,
        scheduler=_build_scheduler(config, optimizer, plan.total_steps),
        policy=Policy(config.precision.name, world.device.type), clip=_build_clip(config), loader=loader, world=world,
        ema=EMA(model, config.trainer.ema_decay) if config.trainer.ema_decay is not None else None,
    )  # fmt: skip
    # From here on each rank draws its own numbers (dropout); rank 0 draws what a run alone would.
    seed_everything(config.seed + world.rank * 1_000_003)
    return run, plan


def _build(parts: Registry, part: Part, *frame: Any) -> Any:
    """Call a registered builder; what it refuses is told with the group's name."""
    try:
        return parts[part.name].load()(*frame, **part.options)
    except InputError as error:
        raise error if error.key is not None else error.at(parts.sort, part.name) from error


def _build_task(config: Config) -> Task:
    data = _build(registry.data, config.data, config.seed)
    if len(data.train) == 0 or len(data.valid) == 0:
        empty = "training" if len(data.train) == 0 else "validation"
        raise InputError(f"there is no {empty} sample.", key="data", value=config.data.name)
    task: Task = _build(registry.task, config.task, data)
    return task


def _build_plan(config: Config, task: Task, loader: TrainingLoader) -> Plan:
    trainer, saving = config.trainer, config.checkpoint
    limits = [trainer.max_steps]
    if trainer.max_epochs is not None:
        limits.append(trainer.max_epochs * loader.steps_per_epoch)
    return Plan(
        total_steps=min(limit for limit in limits if limit is not None), log_every=trainer.log_every,
        eval_every=trainer.eval_every, checkpoint_every=saving.every, keep_last=saving.keep_last,
        keep_best=saving.keep_best, monitor=saving.monitor or task.monitor, mode=saving.mode or task.mode,
        patience=trainer.early_stop_patience, workers=trainer.workers,
    )  # fmt: skip


def _build_optimizer(config: Config, model: nn.Module) -> torch.optim.Optimizer:
    options = dict(config.optimizer.options)
    groups = decay_groups(model, options.get("weight_decay", 0.0))
    return get_optimizer(config.optimizer.name)(groups, **options)


def _build_scheduler(config: Config, optimizer: torch.optim.Optimizer, total_steps: int) -> Scheduler:
    options = dict(config.scheduler.options)
    warmup_steps = options.pop("warmup_steps", 0)
    shape = functools.partial(registry.scheduler[config.scheduler.name].load(), **options)
    return Scheduler(optimizer, shape, total_steps, warmup_steps)


def _build_clip(config: Config) -> Any:
    entry = registry.clip[config.trainer.clip]
    options = {"clip_norm": config.trainer.clip_norm} if "clip_norm" in entry.parameters else {}
    return functools.partial(entry.load(), **options)


def _build_network(config: Config, model: nn.Module, world: World) -> nn.Module:
    network: Any = torch.compile(model) if config.trainer.compile else model
    if world.size == 1:
        return network  # type: ignore[no-any-return]
    on_gpu = world.device.type == "cuda"
    return DistributedDataParallel(network, device_ids=[world.device.index] if on_gpu else None)
