"""Settings that are each allowed but cannot stand together."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence

from ava import registry
from ava.config.precision import check_precision, check_speed
from ava.config.recovery import check_recovery
from ava.config.schema import PARTS, Config
from ava.config.sections import LRFinder
from ava.config.validate import check_fields, gather
from ava.errors import InputError, nearest
from ava.optimization.learning_rate.course import course
from ava.optimization.learning_rate.finder.range_test import LRFinderConfig
from ava.optimization.learning_rate.lengths import in_steps
from ava.optimization.optimizers.composition import extend
from ava.optimization.optimizers.sentence import Stage, compose


def check_combinations(config: Config) -> None:
    """Refuse combinations that cannot train.

    Raises:
        InputError: names the keys, their values and what would do.
    """
    checks = (
        _kinds, _lengths, _trainer, _clip, _health, _surgery, _scheduler, _lr_finder, _checkpoint, _optimizer,
        check_precision, check_speed, check_recovery,
    )  # fmt: skip
    problems = [problem for check in checks for problem in check(config)]
    if problems:
        raise gather(problems)


def _kinds(config: Config) -> Iterator[InputError]:
    """Task, data and model are made for the same kind of input, where they are made for one."""
    task = PARTS["task"][config.task.name]
    wanted = task.tags.get("kind")
    for section in ("data", "model"):
        name = getattr(config, section).name
        given = PARTS[section][name].tags.get("kind")
        if wanted is not None and given is not None and given != wanted:
            fitting = [part.name for part in PARTS[section] if part.tags.get("kind") in (wanted, None)]
            problem = f"is for {given}, but task={task.name} is about {wanted}."
            hint = f"For {wanted} there are: {', '.join(fitting) or 'none'}."
            yield InputError(problem, key=section, value=name, hint=hint)


def _lengths(config: Config) -> Iterator[InputError]:
    trainer = config.trainer
    if trainer.max_steps is None and trainer.max_epochs is None:
        problem = "neither it nor trainer.max_epochs says when to stop."
        yield InputError(problem, key="trainer.max_steps", value=None, hint="Give one of them.")
    warmup = config.scheduler.options["warmup_steps"]
    if trainer.max_steps is not None and in_steps(warmup, trainer.max_steps) >= trainer.max_steps:
        problem = f"must be less than trainer.max_steps={trainer.max_steps}, or the warm-up never ends."
        yield InputError(problem, key="scheduler.warmup_steps", value=warmup)


def _trainer(config: Config) -> Iterator[InputError]:
    trainer = config.trainer
    if trainer.accumulate != "auto" and trainer.accumulate > trainer.batch_size:
        problem = f"cannot cut trainer.batch_size={trainer.batch_size} samples into more micro-batches than samples."
        yield InputError(problem, key="trainer.accumulate", value=trainer.accumulate)
    if trainer.early_stop_patience is not None and trainer.eval_every == 0:
        yield InputError(
            "counts evaluations, but trainer.eval_every=0 evaluates only at the end.",
            key="trainer.early_stop_patience", value=trainer.early_stop_patience, hint="Give trainer.eval_every.",
        )  # fmt: skip
    if config.distributed.backend == "nccl" and trainer.device == "cpu":
        problem = "needs GPUs, but trainer.device=cpu."
        yield InputError(problem, key="distributed.backend", value="nccl", hint="Use gloo or auto.")


def _clip(config: Config) -> Iterator[InputError]:
    """The clip has the options that are given."""
    trainer, problems = config.trainer, list[InputError]()
    fields = dict(registry.clip[trainer.clip].parameters)
    threshold = {key: fields.pop(key) for key in ("clip_norm",) if key in fields}
    if trainer.clip_norm is not None and not threshold:
        problem = f"trainer.clip={trainer.clip} has no threshold."
        yield InputError(problem, key="trainer.clip_norm", value=trainer.clip_norm, hint="Leave it out.")
    elif trainer.clip_norm is not None:
        check_fields("trainer", threshold, {"clip_norm": trainer.clip_norm}, problems, lambda key: None)

    def hint(path: str) -> str | None:
        key = path.rpartition(".")[2]
        return "Say `trainer.clip_norm=...`." if key in threshold else nearest(key, fields)

    check_fields("trainer.clip_options", fields, trainer.clip_options, problems, hint)
    yield from problems


def _health(config: Config) -> Iterator[InputError]:
    """What is to happen can happen."""
    health = config.health
    if config.optimizer.options["fused_backward"] and health.on_nonfinite != "raise":
        problem = "needs all gradients before the first is used, but optimizer.fused_backward uses each as it comes."
        yield InputError(
            problem, key="health.on_nonfinite", value=health.on_nonfinite, hint="Leave one of them out.",
        )  # fmt: skip

    if config.optimizer.options["fused_backward"] and health.detail_every:
        problem = "looks at gradients that optimizer.fused_backward has used and freed by then."
        yield InputError(problem, key="health.detail_every", value=health.detail_every, hint="Leave one of them out.")
    if health.anomaly and config.trainer.compile:
        problem = "looks at every operation, and compiling leaves none of them."
        yield InputError(problem, key="health.anomaly", value=True, hint="Set trainer.compile=false.")


def _surgery(config: Config) -> Iterator[InputError]:
    """What a method needs is there."""
    name, options, trainer = config.surgery.name, config.surgery.options, config.trainer
    if name == "none":
        return
    if trainer.compile:
        problem = "looks at each objective's part of the graph, which compiling makes one."
        yield InputError(problem, key="surgery", value=name, hint="Set trainer.compile=false.")
    if config.optimizer.options["fused_backward"]:
        problem = "reconciles gradients before they are used, but optimizer.fused_backward uses each as it comes."
        yield InputError(problem, key="surgery", value=name, hint="Set optimizer.fused_backward=false.")
    rho = config.optimizer.options["sam_rho"]
    if rho is not None and (options["every"] > 1 or remembers(name)):
        why = f"surgery.every={options['every']} counts" if options["every"] > 1 else f"surgery={name} learns from"
        problem = f"takes gradients twice a step, and {why} one."
        yield InputError(problem, key="optimizer.sam_rho", value=rho, hint="Leave one of them out.")
    if options["level"] == "features" and trainer.accumulate != 1:
        problem = f"compares features over all samples, but trainer.accumulate={trainer.accumulate} cuts them up."
        hint = "Use surgery.level=parameters, or trainer.accumulate=1."
        yield InputError(problem, key="surgery.level", value="features", hint=hint)
    if trainer.activation_checkpointing == "selective" and options["level"] == "parameters":
        problem = "keeps results for one backward pass, and surgery.level=parameters takes one for each objective."
        hint = "Use trainer.activation_checkpointing=true, or surgery.level=features."
        yield InputError(problem, key="trainer.activation_checkpointing", value="selective", hint=hint)
    if options["every"] > 1 and registry.surgery[name].tags.get("needs") == "rows":
        problem = f"surgery={name} has no weights to keep from one step to the next."
        yield InputError(problem, key="surgery.every", value=options["every"], hint="Set surgery.every=1.")
    if options["level"] == "features" and registry.surgery[name].tags.get("needs") == "losses":
        problem = f"surgery={name} weighs losses and looks at no gradient."
        yield InputError(problem, key="surgery.level", value="features", hint="Leave it out.")


def remembers(method: str) -> bool:
    """Whether a surgery method carries something from step to step."""
    return inspect.isclass(registry.surgery[method].load())


def _scheduler(config: Config) -> Iterator[InputError]:
    """Its options make a schedule, and there will be what drives it."""
    name = config.scheduler.name
    try:
        made = course(name, **config.scheduler.options)
    except InputError as error:
        yield error if error.key is None else error.at(f"scheduler.{error.key}", error.value)
        return
    if made.metric == "eval" and config.trainer.eval_every == 0:
        problem = "follows the evaluations, but trainer.eval_every=0 evaluates only at the end."
        yield InputError(problem, key="scheduler", value=name, hint="Give trainer.eval_every.")


def _lr_finder(config: Config) -> Iterator[InputError]:
    """The range is one, and there is a rate to find."""
    finder = config.lr_finder
    try:
        finder_config(finder)
    except InputError as error:
        yield error.at(f"lr_finder.{error.key}", error.value)
    if finder.enabled and not config.optimizer.options["lr"]:
        lr = {None: "null"}.get(config.optimizer.options["lr"], "0")
        problem = f"finds a learning rate in place of optimizer.lr, which is {lr}."
        yield InputError(problem, key="lr_finder.enabled", value=True, hint="Give optimizer.lr, or leave it out.")


def finder_config(finder: LRFinder) -> LRFinderConfig:
    """The range test that the section asks for."""
    return LRFinderConfig(**{key: value for key, value in vars(finder).items() if key not in ("enabled", "seeds")})


def _checkpoint(config: Config) -> Iterator[InputError]:
    checkpoint = config.checkpoint
    if checkpoint.mode is not None and checkpoint.monitor is None:
        problem = "says what is better, but checkpoint.monitor does not say of what."
        yield InputError(problem, key="checkpoint.mode", value=checkpoint.mode, hint="Give checkpoint.monitor.")
    if checkpoint.monitor is None:
        return
    if not checkpoint.monitor.startswith("eval/") or checkpoint.monitor == "eval/":
        hint = f"Did you mean `eval/{checkpoint.monitor.rpartition('/')[2] or 'loss'}`?"
        problem = "must be a metric of the evaluation, such as eval/loss."
        yield InputError(problem, key="checkpoint.monitor", value=checkpoint.monitor, hint=hint)
    if checkpoint.mode is None:
        problem = "needs checkpoint.mode to say whether less or more of it is better."
        yield InputError(problem, key="checkpoint.monitor", value=checkpoint.monitor, hint="Say min or max.")


def _optimizer(config: Config) -> Iterator[InputError]:
    """The options make a sentence, and the trainer can give it what it needs."""
    part = PARTS["optimizer"][config.optimizer.name]
    options = config.optimizer.options
    try:
        words = part.load()(**{name: options[name] for name in part.own})
        routes = extend(words, **{name: options[name] for name in part.shared})
    except InputError as error:
        yield error if error.key is None else error.at(f"optimizer.{error.key}", error.value)
        return
    stages = [*compose(routes.matrices), *compose(routes.others)]
    if config.trainer.ema_decay is not None and any("average" in stage.variants for stage in stages):
        problem = f"optimizer={part.name} evaluates an average of its own."
        key, hint = "trainer.ema_decay", "Leave it out."
        yield InputError(problem, key=key, value=config.trainer.ema_decay, hint=hint)
    if options["sam_adaptive"] and options["sam_rho"] is None:
        problem = "says how optimizer.sam_rho is measured, which is not given."
        yield InputError(problem, key="optimizer.sam_adaptive", value=True, hint="Set optimizer.sam_rho=0.5 too.")
    if options["fused_backward"]:
        yield from _fused_backward(config, stages)
    own_schedule = options.get("lr_scheduler", "none")
    if own_schedule != "none" and config.scheduler.name != "constant":
        problem = f"moves the learning rate, and so does scheduler={config.scheduler.name}."
        hint = "Leave it to one of them: scheduler=constant, or optimizer.lr_scheduler=none."
        yield InputError(problem, key="optimizer.lr_scheduler", value=own_schedule, hint=hint)


def _fused_backward(config: Config, stages: Sequence[Stage]) -> Iterator[InputError]:
    """What needs all gradients at once, when each is used and freed in the backward pass."""
    trainer, rho = config.trainer, config.optimizer.options["sam_rho"]
    name = config.optimizer.name
    summed = any(stage.totals or any(slot.shape == "optimizer" for slot in stage.slots) for stage in stages)
    reasons = [
        (rho is not None, f"optimizer.sam_rho={rho} takes gradients twice", "Leave one of them out."),
        (summed, f"optimizer={name} needs sums over all parameters", "Leave it out, or choose another optimizer."),
        (any("estimate" in stage.variants for stage in stages), f"optimizer={name} needs estimates beside the gradient",
         "Leave it out, or choose another optimizer."),
        (trainer.clip != "none", f"trainer.clip={trainer.clip} looks at all of them", "Add `trainer.clip=none`."),
        (trainer.accumulate != 1, f"trainer.accumulate={trainer.accumulate} adds up several", "Leave one of them out."),
    ]  # fmt: skip
    for applies, reason, hint in reasons:
        if applies:
            problem = f"uses each gradient in the backward pass and frees it, but {reason}."
            yield InputError(problem, key="optimizer.fused_backward", value=True, hint=hint)
