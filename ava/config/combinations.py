"""Settings that are each allowed but cannot stand together."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ava.config.schema import PARTS, Config
from ava.config.validate import gather
from ava.errors import InputError


def check_combinations(config: Config) -> None:
    """Refuse combinations that cannot train.

    Raises:
        InputError: names the keys, their values and what would do.
    """
    checks: list[Callable[[Config], Iterator[InputError]]] = [_kinds, _lengths, _trainer, _checkpoint]
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
    warmup = config.scheduler.options.get("warmup_steps", 0)
    if trainer.max_steps is not None and isinstance(warmup, int) and warmup >= trainer.max_steps:
        problem = f"must be less than trainer.max_steps={trainer.max_steps}, or the warm-up never ends."
        yield InputError(problem, key="scheduler.warmup_steps", value=warmup)


def _trainer(config: Config) -> Iterator[InputError]:
    trainer = config.trainer
    if trainer.accumulate > trainer.batch_size:
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
