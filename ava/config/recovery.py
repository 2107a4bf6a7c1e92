"""The section `recovery`: what cannot be, what would change nothing, and what it makes of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ava import registry
from ava.config.schema import Config
from ava.config.sections import Health, Recovery
from ava.errors import InputError, nearest

if TYPE_CHECKING:
    from ava.training.loop import Plan
    from ava.training.state import Run

DEFAULTS: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(Recovery)}
OF_DETECTION = ("sigmas", "clip_sigmas", "detectors")
OF_LADDER = tuple(key for key in DEFAULTS if key not in ("name", *OF_DETECTION))


def check_recovery(config: Config) -> Iterator[InputError]:
    """What recovery cannot do, or what would change nothing."""
    yield from _idle(config.recovery)
    yield from _unknown(config.recovery)
    if config.recovery.name != "off":
        yield from _together(config)


def _idle(recovery: Recovery) -> Iterator[InputError]:
    """Options of more recovery than is chosen."""
    name = recovery.name
    for keys, owner, is_theirs in (
        (OF_DETECTION, "skip", name != "off"),
        (OF_LADDER, "ladder", name == "ladder"),
    ):
        for key in keys if not is_theirs else ():
            value = getattr(recovery, key)
            if value != DEFAULTS[key]:
                problem = f"belongs to recovery={owner} and changes nothing with recovery={name}."
                hint = f"Set recovery={owner}, or leave it out."
                yield InputError(problem, key=f"recovery.{key}", value=_spelt(value), hint=hint)
    if name == "ladder" and recovery.snapshot_every is not None and recovery.snapshot_cost != DEFAULTS["snapshot_cost"]:
        problem = f"says how often snapshots are taken, which recovery.snapshot_every={recovery.snapshot_every} says."
        yield InputError(
            problem, key="recovery.snapshot_cost", value=recovery.snapshot_cost, hint="Leave one of them out."
        )


def _spelt(value: Any) -> Any:
    """As it was typed."""
    return f"[{','.join(value)}]" if isinstance(value, tuple) else value


def _unknown(recovery: Recovery) -> Iterator[InputError]:
    """Detectors that are not registered, or stand there twice."""
    names = recovery.detectors or ()
    known = [entry.name for entry in registry.detector]
    for index, name in enumerate(names):
        if name not in known:
            problem = f"there is no such detector; there are: {', '.join(known)}."
            yield InputError(problem, key="recovery.detectors", value=name, hint=nearest(name, known))
        elif name in names[:index]:
            yield InputError("stands there twice.", key="recovery.detectors", value=name, hint="Say it once.")
    if recovery.detectors == ():
        yield InputError(
            "names no detector, and nothing would be detected.", key="recovery.detectors", value="[]",
            hint="Leave it out for all, or set recovery=off.",
        )  # fmt: skip


def _together(config: Config) -> Iterator[InputError]:
    """What cannot stand beside recovery."""
    name = config.recovery.name
    if config.optimizer.options["fused_backward"]:
        problem = "judges all gradients before the first is used, but optimizer.fused_backward uses each as it comes."
        yield InputError(problem, key="recovery", value=name, hint="Set optimizer.fused_backward=false.")
    if config.health.on_nonfinite == "rollback":
        problem = f"goes back by itself, and so does recovery={name}: one of them has to decide."
        hint = "Leave it out with recovery=ladder, or set recovery=off."
        yield InputError(problem, key="health.on_nonfinite", value="rollback", hint=hint)
    if config.health.max_consecutive != Health.max_consecutive:
        problem = f"counts nothing with recovery={name}, which answers gradients that are not finite."
        hint = "Leave it out; recovery=ladder has recovery.nonfinite_steps and recovery.budget."
        yield InputError(problem, key="health.max_consecutive", value=config.health.max_consecutive, hint=hint)


def build_recovery(config: Config, run: Run, plan: Plan) -> None:
    """Give a run the guard and the memory that its section `recovery` asks for; nothing with `off`."""
    recovery = config.recovery
    if recovery.name == "off":
        return
    from ava.optimization.stability.hindrance import HindranceDetector
    from ava.optimization.stability.ladder import Ladder
    from ava.training.recovery.guard import Guard
    from ava.training.recovery.memory import Memory, Settings
    from ava.training.recovery.trivial import constant_loss

    detector = HindranceDetector(
        sigmas=recovery.sigmas, clip_sigmas=recovery.clip_sigmas, detectors=recovery.detectors,
        bad_steps=recovery.bad_steps, nonfinite_steps=recovery.nonfinite_steps,
    )  # fmt: skip
    run.guard = Guard(run, detector)
    ladder = None
    if recovery.name == "ladder":
        split = run.loader.split
        ladder = Ladder(
            plan.total_steps, recovery.lr_factor, recovery.restart_lr_factor, recovery.warmup_steps, recovery.early,
            recovery.budget, recovery.bad_steps, lambda: constant_loss(split),
        )  # fmt: skip
    settings = Settings(**{f.name: getattr(recovery, f.name) for f in dataclasses.fields(Settings)})
    run.recovery = Memory(run.world.device, ladder, settings)
