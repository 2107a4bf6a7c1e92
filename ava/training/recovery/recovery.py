"""Carries out what the ladder says, and tells of everything that was mended.

After each step: what the host knows of it by now goes into the incidents and to the ladder; if that has an answer, the
run goes back, and on with the samples that come next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NoReturn

import torch

from ava.errors import TrainingFailed
from ava.optimization.stability.ladder import Answer, Sight
from ava.reporting.incidents import IncidentLog
from ava.reporting.listener import Listener
from ava.training.recovery.diagnosis import UNTRAINED, diagnosis
from ava.training.recovery.fresh_start import on_host, start_anew
from ava.training.recovery.guard import Guard
from ava.training.recovery.memory import Memory
from ava.training.recovery.refuge import at_refuge, sections_of
from ava.training.recovery.relay import Numbers
from ava.training.recovery.replicas import check_replicas, heal_replicas
from ava.training.recovery.snapshots import Snapshots
from ava.training.state import Run

_OLDEST = 1 << 30


class Recovery:
    """Levels 3 to 6, and the records of all levels.

    Args:
        run: what is trained; changed in place by going back.
        guard: mends its steps.
        memory: what is remembered.
        listeners: who is told; empty on ranks other than 0.
        incidents: where it is written; None on ranks other than 0.
        read: has what steps reported read, before the run goes back to before them.
    """

    def __init__(
        self, run: Run, guard: Guard, memory: Memory, listeners: Sequence[Listener], incidents: IncidentLog | None,
        read: Callable[[], object] = lambda: None,
    ) -> None:  # fmt: skip
        self.run, self.guard, self.memory, self._read = run, guard, memory, read
        self.listeners, self.incidents = listeners, incidents
        self.snapshots: Snapshots | None = None

    def begin(self) -> None:
        """Remember the run as it stands, before its first step."""
        memory, settings = self.memory, self.memory.settings
        if not memory.is_resumed:  # steps without recovery ended a run that was not finite
            memory.was_finite = self.run.step > 0
        if memory.ladder is None:
            return
        held = memory.refuge
        with nullcontext() if held is None else at_refuge(self.run, held):
            self.snapshots = Snapshots(
                self.run, settings.snapshots, settings.snapshot_every, settings.snapshot_cost, settings.snapshot_device
            )
        memory.before_saving = self._find_refuge
        if not memory.is_resumed and memory.ladder.is_young(self.run.step):
            memory.initial = on_host(self.run.state())
        self.guard.is_alert = memory.ladder.is_alert
        self._age()

    def _find_refuge(self) -> None:
        """While something is wrong a checkpoint holds what the run would go back to; every rank takes part."""
        memory, snapshots = self.memory, self.snapshots
        assert memory.ladder is not None
        assert snapshots is not None
        kept = None if memory.ladder.is_calm else snapshots.before(memory.ladder.last_sound)
        memory.refuge = None if kept is None else sections_of(self.run, kept)

    def answer(self, is_last: bool = False) -> int | None:
        """A step is over: learn what is known of the steps so far, and do what has to be done.

        Args:
            is_last: wait for all that the device knows, for no step comes after this one.

        Returns:
            The step that the run went back to; None if it did not.

        Raises:
            TrainingFailed: too often already, or the last step is over and none was finite.
        """
        memory = self.memory
        assert self.guard.mending is not None
        memory.relay.send(self.run.step, self.guard.mending.numbers())
        is_sound = True
        for step, seen in memory.relay.receive(is_last):
            self._tell_of(step, seen)
            memory.was_finite |= seen["finite"] > 0
            if memory.ladder is None:
                continue
            sight = self._sight(step, seen)
            answer = memory.ladder.see(sight)
            if answer is not None:
                return self._carry_out(answer, step, seen)
            is_sound = not sight.is_bad and memory.ladder.is_calm and not memory.ladder.beginning.is_above(sight.loss)
        if is_last and not memory.was_finite:
            self._fail_untrained()
        if self.snapshots is not None:
            self.run.scheduler.rescale(memory.multiplier)
            self.guard.is_alert = memory.ladder is not None and memory.ladder.is_alert
            self._check_ranks()
            self.snapshots.offer(is_sound)
            self._age()
        return None

    def check_weights(self) -> int | None:
        """Look whether all weights are finite; waits for the device.

        Returns:
            As of `answer`.
        """
        ladder = self.memory.ladder
        if ladder is None or self._weights_are_finite():
            return None
        step = self.run.step
        answer = ladder.see(Sight(step, math.nan, weights="nonfinite"))
        assert answer is not None
        return self._carry_out(answer, step, {})

    def _sight(self, step: int, seen: Numbers) -> Sight:
        """What the ladder is to know of a step."""
        is_broken = not math.isfinite(seen["update"])
        self.memory.broken_updates = self.memory.broken_updates + 1 if is_broken else 0
        lasts = self.memory.broken_updates >= self.memory.settings.nonfinite_steps
        is_suspect = seen["finite"] == 0 and not seen["damaged"]
        return Sight(
            step, seen["loss"], is_bad=seen["is_bad"] > 0 or is_broken, is_persistent=seen["persistent"] > 0 or lasts,
            weights="nonfinite" if is_suspect and not self._weights_are_finite() else "sound",
            is_finite=seen["finite"] > 0, is_left_out=seen["skipped"] > 0,
            length=seen["update"] / seen["rate"] if seen["rate"] > 0 and seen["update_factor"] == 1 else 0.0,
            norm=seen["norm"], size=seen["size"],
        )  # fmt: skip

    def _weights_are_finite(self) -> bool:
        """Whether those of all ranks are; asked on all of them."""
        norms = torch.stack([norm.float() for norm in torch._foreach_norm(self.run.parameters)])
        return not bool(self.run.world.max_((~torch.isfinite(norms)).any().float()))

    def _carry_out(self, answer: Answer, step: int, seen: Numbers) -> int:
        run, ladder, snapshots = self.run, self.memory.ladder, self.snapshots
        assert ladder is not None
        assert snapshots is not None
        if answer.action == "stop":
            self._give_up(answer, step)
        self._read()
        before = run.scheduler.planned_lr, self.memory.multiplier
        if answer.action == "restart":
            start_anew(run, self.memory, snapshots)
            self.guard.restart()
        else:
            kept = snapshots.before(answer.before) or snapshots.before(step, age=_OLDEST)
            assert kept is not None
            kept.restore(moments=answer.action != "rollback_reset")
        snapshots.drop_after(run.step)
        self.guard.weights.forget()
        self.memory.relay.clear()
        self.memory.broken_updates = 0
        ladder.went_back(answer, run.step)
        self.guard.is_alert = ladder.is_alert
        run.scheduler.rescale(self.memory.multiplier)
        run.scheduler.reapply()  # the snapshot's rates had the multiplier of their time
        details = {key: seen[key] for key in ("loss", "norm", "expected_loss", "expected_norm") if key in seen}
        self._note(
            step, answer.cause, answer.action, level=answer.level, **({"sign": answer.sign} if answer.sign else {}),
            from_step=step, to_step=run.step, **_rates(before[0], before[1], ladder.comeback.factor), **details,
            used=ladder.spent, budget=ladder.budget,
        )  # fmt: skip
        return run.step

    def _give_up(self, answer: Answer, step: int) -> None:
        ladder = self.memory.ladder
        assert ladder is not None
        self._read()
        self._note(step, "budget_spent", "stop", level=6, sign=answer.sign, used=ladder.spent, budget=ladder.budget)
        self._fail(diagnosis(answer, ladder, self.run.scheduler.planned_lr), step)

    def _fail_untrained(self) -> None:
        """The last step is over, and none of all was taken: weights as they were at first are no result."""
        self._read()
        self._note(self.run.step, "nonfinite_gradient", "stop", level=6)
        self._fail(UNTRAINED, self.run.step)

    def _fail(self, problem: str, step: int) -> NoReturn:
        path = None if self.incidents is None else self.incidents.path
        raise TrainingFailed(problem, step=step, incidents=path)

    def _age(self) -> None:
        """Let go of the beginning once the training is no longer young."""
        ladder, lag = self.memory.ladder, self.memory.relay.lag
        if ladder is not None and self.snapshots is not None and not ladder.is_young(self.run.step + 1 - lag):
            self.memory.initial = None
            ladder.grow_up()
            self.snapshots.forget_start()

    def _check_ranks(self) -> None:
        every = self.memory.settings.check_ranks_every
        if self.snapshots is None or self.run.world.size == 1 or not every or self.run.step % every:
            return
        wrong = check_replicas(self.run, self.snapshots.before(self.run.step))
        if wrong:
            heal_replicas(self.run, wrong)
            # What they took since the last comparison is as wrong as they were.
            self.snapshots.drop_after(max(self.run.step - every, 0))
            self.guard.weights.forget()
            self._note(self.run.step, "ranks_differ", "restore", level=3, ranks=", ".join(map(str, wrong)))

    def _tell_of(self, step: int, seen: Numbers) -> None:
        """Write down what was mended within a step; steps that are not finite are told with their samples later."""
        details = {key: seen[key] for key in ("loss", "norm")}
        if seen["damaged"]:
            self._mended(step, "weights_nonfinite" if not seen["finite"] else "weights_jumped", "restore", 0, details)
        elif not seen["finite"] and math.isfinite(seen["norm"]):  # only the loss: nobody else tells of it
            self._mended(step, "nonfinite_gradient", "skip", 0, details)
        elif seen["finite"] and seen["skip"] > 0:
            self._mended(step, "loss_outlier", "skip", 2, details | {"expected_loss": seen["expected_loss"]})
        elif seen["finite"] and seen["gradient_factor"] < 1:
            factor = seen["gradient_factor"]
            self._mended(step, "gradient_outlier", "clip", 1,
                         details | {"expected_norm": seen["expected_norm"], "factor": factor})  # fmt: skip
        if seen["update_factor"] < 1:
            sizes = {"update_norm": seen["update"], "factor": seen["update_factor"]}
            self._mended(step, "update_outlier", "shrink", 1, details | sizes)
        for row in self.memory.series.ended(step):
            self._note(row.last, row.kind, row.action, level=row.level, first=row.first, last=row.last,
                       steps=row.count, least_factor=row.least)  # fmt: skip

    def _mended(self, step: int, kind: str, action: str, level: int, details: dict[str, float]) -> None:
        if self.memory.series.add(step, kind, action, details.get("factor", 1.0), level):
            self._note(step, kind, action, level=level, **details)

    def _note(self, step: int, kind: str, action: str, **details: Any) -> None:
        if self.incidents is not None:
            self.incidents.write(step, kind, action, **details)
        for listener in self.listeners:
            listener.on_incident({"step": step, "kind": kind, "action": action, **details})


def _rates(planned: float | None, before: float, after: float) -> dict[str, float]:
    """The first group's rate, before and once it has warmed up again; none where the optimizer chooses it."""
    return {} if planned is None else {"lr_before": planned * before, "lr_after": planned * after}
