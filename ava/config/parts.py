"""From a checked configuration to the parts of a run, each built by its registered builder."""

from __future__ import annotations

import functools
import re
import warnings
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ava import registry
from ava.config.precision import float8_options, scaling_options
from ava.config.recovery import build_recovery
from ava.config.schema import Config, Part
from ava.data.loader import TrainingLoader
from ava.distributed.world import World
from ava.errors import InputError
from ava.optimization import OptimizerFactory, SchedulerFactory
from ava.optimization.gradients.clip.clipping import Clip
from ava.optimization.gradients.clip.clipping import bind as bind_clip
from ava.optimization.gradients.surgery.binding import bind, needs
from ava.optimization.gradients.surgery.reconciler import Reconciler
from ava.optimization.learning_rate.scheduler import Scheduler
from ava.optimization.offload.activations import OffloadedActivations
from ava.optimization.offload.optimizer import offload_optimizer
from ava.optimization.optimizers.composed import ComposedOptimizer
from ava.optimization.optimizers.parameter_groups import decay_groups
from ava.optimization.optimizers.wrappers.ema import EMA
from ava.optimization.optimizers.wrappers.estimates import VARIANT as ESTIMATE
from ava.optimization.precision.names import grouped
from ava.optimization.precision.policy import Policy, bf16_parameters
from ava.registry import Registry
from ava.tasks.task import ModelDemands, SamplingTask, Task
from ava.training.compiling import compile_losses
from ava.training.determinism import seed_everything
from ava.training.graphs import GraphedBackward, check_recordable
from ava.training.health import Watch
from ava.training.loop import Plan
from ava.training.memory_saving import checkpoint_activations
from ava.training.state import Run
from ava.training.step import forward

_TOO_LARGE = re.compile(r"MemoryError|allocate|out of memory|overflow", re.IGNORECASE)
"""How Python and torch say, in errors of many types, that a size is beyond memory or beyond a machine's integers."""
_CONTRACTS = {"data": "source", "task": "task", "model": "mlp"}
"""Sort of part -> the module of its package that says or shows what one has to be."""


def build_run(config: Config, world: World) -> tuple[Run, Plan]:
    """Everything a training needs, on this rank's device; nothing is written.

    Raises:
        InputError: a part refuses its options or its data, on this rank or on another.
    """
    run, plan = world.together(lambda: _build_alone(config, world))
    run.network = _build_network(config, run, world)
    if config.trainer.cuda_graphs:
        check_recordable(run)
        run.graphs = GraphedBackward(functools.partial(forward, run), run.model, world.device)
    # From here on each rank draws its own numbers (dropout); rank 0 draws what a run alone would.
    seed_everything(config.seed + world.rank * 1_000_003)
    return run, plan


def _build_alone(config: Config, world: World) -> tuple[Run, Plan]:
    """What a rank builds without the others: all but the network that joins them."""
    seed_everything(config.seed)
    task = _build_task(config)
    model = _build_model(config, task).to(world.device)
    if config.precision.parameters == "bf16":
        bf16_parameters(model)
    checkpoint_activations(model, config.trainer.activation_checkpointing)
    loader = TrainingLoader(
        task.data.train, batch_size=config.trainer.batch_size, accumulate=_micro_batches(config), seed=config.seed,
        rank=world.rank, world_size=world.size, workers=config.trainer.workers,
        pin_memory=world.device.type == "cuda", prefetch=config.trainer.prefetch,
    )  # fmt: skip
    plan = _build_plan(config, task, loader)
    policy = _build_policy(config, model, world)
    if isinstance(task, ModelDemands):
        task.check_model(model)
    optimizer = _build_optimizer(config, model)
    if config.trainer.offload_optimizer:
        offload_optimizer(optimizer)
    _check_backward(optimizer, task, world)
    run = Run(
        task=task, model=model, network=model, optimizer=optimizer,
        scheduler=_build_scheduler(config, optimizer, plan.total_steps),
        policy=policy, clip=_build_clip(config), loader=loader, world=world,
        ema=EMA(model, config.trainer.ema_decay) if config.trainer.ema_decay is not None else None,
        watch=_build_watch(config),
    )  # fmt: skip
    run.surgery = _build_surgery(config, run)
    build_recovery(config, run, plan)
    if config.trainer.offload_activations:
        run.offload = OffloadedActivations(world.device, model.parameters())
    return run, plan


def build_scheduler(config: Config) -> tuple[Scheduler, TrainingLoader]:
    """The schedule that a run would follow, and the data that it would pass over; nothing of it can train.

    The parameters stand on the meta device, where they take neither memory nor time.

    Raises:
        InputError: a part refuses its options or its data.
    """
    seed_everything(config.seed)
    task = _build_task(config)
    loader = TrainingLoader(
        task.data.train, batch_size=config.trainer.batch_size, accumulate=_micro_batches(config), seed=config.seed
    )
    total_steps = _build_plan(config, task, loader).total_steps

    def build(device: str) -> Scheduler:
        with torch.device(device):
            model = _build_model(config, task)
        return _build_scheduler(config, _build_optimizer(config, model), total_steps)

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*copying from a non-meta parameter", UserWarning)
            return build("meta"), loader
    except Exception:
        # A model may compute with its weights as it is built, or read them from a file: then they have to be there.
        # What is wrong with the configuration shows again, in its own words.
        return build("cpu"), loader


def _build(parts: Registry, part: Part, *frame: Any) -> Any:
    """Call a registered builder; what it refuses, or has no memory for, is told with the group's name."""
    try:
        return parts[part.name].load()(*frame, **part.options)
    except InputError as error:
        raise error if error.key is not None else error.at(parts.sort, part.name) from error
    except Exception as error:
        if not _TOO_LARGE.search(f"{type(error).__name__}: {error}"):
            raise
        problem = f"is too large for this machine ({' '.join(str(error).split())[:200]})."
        raise InputError(problem, key=parts.sort, value=part.name, hint="Give it smaller options.") from error


def _build_task(config: Config) -> Task:
    data = _build(registry.data, config.data, config.seed)
    _check_made(registry.data, config.data, data, ("train", "valid", "spec", "description"))
    for split in (data.train, data.valid):
        _check_made(registry.data, config.data, split, ("__len__", "fetch"))
    if len(data.train) == 0 or len(data.valid) == 0:
        empty = "training" if len(data.train) == 0 else "validation"
        raise InputError(f"there is no {empty} sample.", key="data", value=config.data.name)
    task: Task = _build(registry.task, config.task, data)
    methods = ("losses", "count", "evaluate", "summarise", "baselines")
    _check_made(registry.task, config.task, task, ("data", "monitor", "mode", *methods))
    return task


def _build_model(config: Config, task: Task) -> nn.Module:
    model: nn.Module = _build(registry.model, config.model, task.data.spec)
    _check_made(registry.model, config.model, model, ("forward", "to", "parameters"))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError("it has no parameter to train.", key="model", value=config.model.name)
    return model


def _check_made(parts: Registry, part: Part, made: object, wanted: tuple[str, ...]) -> None:
    """Check that what a plugin's builder made has what the frame will ask of it."""
    missing = [name for name in wanted if not hasattr(made, name)]
    if missing:
        problem = f"what it makes, of type {type(made).__name__}, lacks: {', '.join(missing)}."
        owner = parts[part.name].module
        hint = f"{owner} has to make what {parts.package}.{_CONTRACTS[parts.sort]} describes."
        raise InputError(problem, key=parts.sort, value=part.name, hint=hint)


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


def _build_optimizer(config: Config, model: nn.Module) -> ComposedOptimizer:
    options = dict(config.optimizer.options)
    groups = decay_groups(model, options.get("weight_decay", 0.0), spare_ends=options.get("use_muon") is True)
    try:
        return OptimizerFactory.create(config.optimizer.name, groups, **options)
    except InputError as error:
        raise error if error.key is None else error.at(f"optimizer.{error.key}", error.value) from error


def _check_backward(optimizer: ComposedOptimizer, task: Task, world: World) -> None:
    """Refuse an optimizer that wants more of the backward pass than there will be."""
    if optimizer.fused is not None and world.size > 1:
        problem = f"uses gradients in the backward pass, but {world.size} ranks average them only after it."
        raise InputError(problem, key="optimizer.fused_backward", value=True, hint="Train with one process.")
    estimator = optimizer.param_groups[0].get("estimator")
    if estimator == "hutchinson" and isinstance(task, ModelDemands) and not task.twice_differentiable:
        problem = "differentiates twice, and a loss computed by chunks has one derivative."
        raise InputError(problem, key="optimizer.estimator", value=estimator, hint="Set task.chunked_loss=0.")
    if estimator == "gauss_newton_bartlett" and optimizer.speaks_of(ESTIMATE) and not isinstance(task, SamplingTask):
        raise InputError(
            f"needs a task that can draw targets from the model, and {type(task).__name__} has no sampled_losses.",
            key="optimizer.estimator", value=estimator, hint="Use `optimizer.estimator=hutchinson`.",
        )  # fmt: skip


def _build_scheduler(config: Config, optimizer: torch.optim.Optimizer, total_steps: int) -> Scheduler:
    try:
        return SchedulerFactory.create(config.scheduler.name, optimizer, total_steps, **config.scheduler.options)
    except InputError as error:
        raise error if error.key is None else error.at(_place(error.key), error.value) from error


def _place(key: str) -> str:
    """Where a scheduler's option stands: a group's own schedule is said with the optimizer's groups."""
    return f"optimizer.{key}" if key.startswith("param_groups") else f"scheduler.{key}"


def _micro_batches(config: Config) -> int:
    """How many a share is cut into; 1 as long as nobody has looked how many it takes."""
    return 1 if config.trainer.accumulate == "auto" else config.trainer.accumulate


def _build_policy(config: Config, model: nn.Module, world: World) -> Policy:
    """What computes in which type; the model's layers are made to."""
    precision = config.precision
    policy = Policy(precision.name, world.device, emulate=precision.emulate, **scaling_options(precision))
    if precision.name == "fp8":
        from ava.optimization.precision.float8.training import prepare_float8

        policy.float8 = float8 = prepare_float8(
            model, device=world.device, max_over_ranks=world.max_, **float8_options(precision)
        )
        policy.remarks += float8.sentences()
    if precision.qat is not None:
        from ava.optimization.precision.quantization.qat import prepare_qat

        layers = prepare_qat(model, precision.qat)
        policy.remarks.append(
            f"Rounded to {precision.qat} as they train ({len(layers)}): {', '.join(grouped(layers))}."
        )
    return policy


def _build_clip(config: Config) -> Clip:
    trainer = config.trainer
    threshold = {} if trainer.clip_norm is None else {"clip_norm": trainer.clip_norm}
    return bind_clip(trainer.clip, **threshold, **trainer.clip_options)


def _build_watch(config: Config) -> Watch:
    health = config.health
    return Watch(
        health.on_nonfinite, health.max_consecutive, config.trainer.log_every if health.statistics else 0,
        health.detail_every, health.anomaly,
    )  # fmt: skip


def _build_surgery(config: Config, run: Run) -> Reconciler | None:
    """How several objectives become one; None is their sum, in one backward pass."""
    name, options = config.surgery.name, config.surgery.options
    if name == "none":
        return None
    shared = registry.surgery[name].shared
    method = bind(name, **{key: value for key, value in options.items() if key not in shared})
    return Reconciler(
        method, run.parameters, needs=needs(name), sum_over_ranks=run.world.sum_ if run.world.size > 1 else None,
        world_size=run.world.size, accumulates=config.trainer.accumulate != 1, **{key: options[key] for key in shared},
    )  # fmt: skip


def _build_network(config: Config, run: Run, world: World) -> nn.Module:
    network: nn.Module = run.model
    if config.trainer.compile:
        network, run.compilation = world.together(lambda: compile_losses(run, config.trainer.compile_mode))
    if world.size == 1:
        return network
    on_gpu = world.device.type == "cuda"
    return DistributedDataParallel(network, device_ids=[world.device.index] if on_gpu else None)
