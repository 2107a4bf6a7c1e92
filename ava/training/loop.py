"""From the first step to the last: steps, and between them what only watches.

The host reads the device only where a line is logged, an evaluation or a checkpoint is due, or the run ends.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ava.checkpoint.checkpoint import prune, save
from ava.data.loader import Window
from ava.data.prefetch import prefetched
from ava.errors import Interrupted, TrainingFailed
from ava.optimization.learning_rate.change import Change
from ava.reporting.incidents import IncidentLog
from ava.reporting.listener import Listener
from ava.training.accounting import Accounting
from ava.training.breakdown import breakdowns
from ava.training.evaluation import evaluate
from ava.training.interrupt import StopSignal
from ava.training.journal import Journal, tell_schedule
from ava.training.profiling import Profiler
from ava.training.recovery.binding import forget_later, recovery_of
from ava.training.rescue import Rescue
from ava.training.state import Run
from ava.training.step import training_step


@dataclass(frozen=True)
class Plan:
    """How long to train, and how often to do what; counted in optimizer steps.

    Attributes:
        total_steps: the last step.
        log_every: read losses and norms, and tell the listeners.
        eval_every: evaluate; 0 evaluates at the end only.
        checkpoint_every: save; None saves with every evaluation, 0 at the end only.
        keep_last: newest checkpoints to keep.
        keep_best: keep the checkpoint of the best evaluation besides.
        monitor: the metric that says which is best.
        mode: whether a smaller or a larger value of it is better.
        patience: evaluations without a better one after which training stops early; None never stops early.
        workers: processes that fetch validation data.
    """

    total_steps: int
    log_every: int
    eval_every: int
    checkpoint_every: int | None
    keep_last: int
    keep_best: bool
    monitor: str
    mode: Literal["min", "max"]
    patience: int | None = None
    workers: int = 0


class Trainer:
    """Takes a run to its last step.

    Args:
        run: what is trained.
        plan: for how long.
        folder: the run directory.
        listeners: who is told; empty on ranks other than 0.
        incidents: where anomalies are written; None on ranks other than 0.
        profiler: records its steps; None records nothing.
    """

    def __init__(
        self, run: Run, plan: Plan, folder: Path, listeners: list[Listener], incidents: IncidentLog | None = None,
        profiler: Profiler | None = None,
    ) -> None:  # fmt: skip
        self.run, self.plan, self.folder, self.listeners = run, plan, folder, listeners
        self.incidents, self.profiler = incidents, profiler
        self.journal, self.rescue = Journal(run, bool(listeners)), Rescue(run, folder, listeners, incidents)
        self.accounting = Accounting(run)
        self.recovery = recovery_of(run, listeners, incidents, self._read_reports)
        self._saved = -1

    def train(self) -> Literal["done", "stopped early"]:
        """Train until the plan's last step, or until evaluations stop improving.

        Raises:
            TrainingFailed: a gradient was not finite, or an evaluation broke down.
            Interrupted: SIGINT or SIGTERM came; a checkpoint was saved first.
        """
        self._resume_clock()
        self.run.network.train()
        with StopSignal() as signal, self._profiled():
            self._make_up()
            self.rescue.keep()
            if self.recovery is not None:
                self.recovery.begin()
            for window in self._windows():
                with self.accounting.watching(window):
                    report = training_step(self.run, window, stop=signal.received is not None)
                self.journal.add(report)
                looks = report.stop or self._is_looked_at()
                if not self._went_back(looks) and looks and self.rescue.is_sound(self.journal):
                    self._look(report.stop)
                    self.rescue.keep()
                if report.stop:
                    self._interrupt(signal.received)
                if self.profiler is not None:
                    self.profiler.step()
        return "stopped early" if self._has_stalled() else "done"

    def _read_reports(self) -> None:
        self.rescue.is_sound(self.journal)

    def _went_back(self, looks: bool) -> bool:
        """Let recovery answer the step; whether that undid it."""
        if self.recovery is None:
            return False
        to = self.recovery.answer(is_last=self._is_over())
        if to is None and looks:
            to = self.recovery.check_weights()
        if to is not None:
            self.journal.forget(after=to)
            self._saved = -1
            if forget_later(self.run, self.listeners, self.folder / "checkpoints", to):
                self._save()
        return to is not None

    def _is_looked_at(self) -> bool:
        """Whether something is due that needs to know how the steps so far went."""
        return self._is_due(self.plan.log_every) or self._is_due(self.plan.eval_every) or self._checkpoint_is_due()

    def _look(self, stop: bool) -> None:
        """What is due at this step."""
        if (self._is_due(self.plan.log_every) or stop) and not self.journal.is_empty:
            self._log()
        if self._is_due(self.plan.log_every):
            for change in tell_schedule(self.run):
                self._note_change(change)
        if stop:
            return
        if self._is_due(self.plan.eval_every):
            self._evaluate()
        if self._checkpoint_is_due():
            self._save()

    def _make_up(self) -> None:
        """Evaluate where the checkpoint stands, if a signal came before the evaluation that was due there."""
        if self.run.step > self.run.evaluated and self._is_due(self.plan.eval_every):
            self._evaluate()
            self._save()

    def _windows(self) -> Iterator[Window]:
        if self._is_over():
            return
        windows = prefetched(self.run.loader.windows(self.run.position), self.run.world.device)
        for window in self.journal.usage.waited(windows):
            yield window
            if self._is_over():
                return

    def _is_over(self) -> bool:
        return self.run.step >= self.plan.total_steps or self._has_stalled()

    def _has_stalled(self) -> bool:
        return self.plan.patience is not None and self.run.stale >= self.plan.patience

    def _is_due(self, every: int) -> bool:
        """Every so many steps, and at the end in any case."""
        return self._is_over() or (every > 0 and self.run.step % every == 0)

    def _checkpoint_is_due(self) -> bool:
        every = self.plan.eval_every if self.plan.checkpoint_every is None else self.plan.checkpoint_every
        is_best = self.plan.keep_best and self.run.best is not None and self.run.best[1] == self.run.step
        return is_best or self._is_due(every) or self.run.step == self.run.scheduler.cooldown_start

    def _kept(self) -> set[int]:
        """Checkpoints that stay whatever comes after them: the best, and the one from which a run is extended."""
        best = self.run.best[1] if self.plan.keep_best and self.run.best is not None else None
        return {step for step in (best, self.run.scheduler.cooldown_start) if step is not None}

    def _log(self) -> None:
        """Tell the listeners what happened since the last line."""
        self._read_clock()
        row = self.journal.read(self.run.seconds)
        details = self.journal.take_details()
        for listener in self.listeners:
            listener.on_layers(self.run.step, self.journal.layer_norms)
            listener.on_log(row)
            for detail in details:
                listener.on_detail(detail)

    def _note_change(self, change: Change) -> None:
        # A group with a schedule of its own does not follow.
        base = next((float(g["initial_lr"]) for g in self.run.optimizer.param_groups if "scheduler" not in g), 0.0)
        self._note(
            change.cause, change.action, lr_before=base * change.before, lr_after=base * change.after,
            smoothed=change.smoothed, noise=change.noise,
        )  # fmt: skip

    def _note(self, kind: str, action: str, **details: float) -> None:
        """Something was seen and answered: for the incidents and for those who watch."""
        if self.incidents is not None:
            self.incidents.write(self.run.step, kind, action, **details)
        for listener in self.listeners:
            listener.on_incident({"step": self.run.step, "kind": kind, "action": action, **details})

    def _evaluate(self) -> None:
        with self._paused(), breakdowns(lambda: self.run.step, self.incidents):
            metrics = evaluate(self.run, self.plan.workers)
            self._judge(metrics)
            self.run.evaluated = self.run.step
            row = {"step": self.run.step, "time": self.run.seconds} | metrics
            for listener in self.listeners:
                listener.on_eval(row)
        if self._has_stalled() and not self.journal.is_empty:
            self._log()

    def _judge(self, metrics: dict[str, float]) -> None:
        """Note whether this is the best evaluation so far, and how long there has been no better one."""
        if self.plan.monitor not in metrics:
            raise TrainingFailed(
                f"checkpoint.monitor={self.plan.monitor} is none of the metrics: {', '.join(metrics)}.",
                step=self.run.step,
            )
        value = metrics[self.plan.monitor]
        sign = 1.0 if self.plan.mode == "min" else -1.0
        is_first = self.run.best is None and not math.isnan(value)
        if is_first or (self.run.best is not None and sign * value < sign * self.run.best[0]):
            self.run.best, self.run.stale = (value, self.run.step), 0
        else:
            self.run.stale += 1
        if self.run.scheduler.metric == "eval" and (change := self.run.scheduler.observe(sign * value)) is not None:
            self._note_change(change)

    def _save(self) -> Path:
        checkpoints = self.folder / "checkpoints"
        path = checkpoints / f"step-{self.run.step}"
        if self._saved == self.run.step:
            return path
        with self._paused():
            self.journal.fetch()
            sections = self.run.state()
            if sections is not None:
                save(checkpoints, self.run.step, sections)
                prune(checkpoints, self.plan.keep_last, self._kept())
                for listener in self.listeners:
                    listener.on_checkpoint(self.run.step, path)
            self.run.world.barrier()
        self._saved = self.run.step
        return path

    def _interrupt(self, number: int | None) -> None:
        path = self._save()
        # Another rank may have been told; SIGTERM is what launchers send.
        raise Interrupted(number or 15, step=self.run.step, checkpoint=path)

    def _resume_clock(self) -> None:
        self._started = time.perf_counter() - self.run.seconds
        self.journal.restart_clock(self.run.seconds)

    def _read_clock(self) -> None:
        self.run.seconds = time.perf_counter() - self._started

    @contextmanager
    def _paused(self) -> Iterator[None]:
        """What happens here is not training time."""
        self._read_clock()
        began = time.perf_counter()
        with self.journal.usage.paused():
            yield
        pause = time.perf_counter() - began
        self._started += pause

    @contextmanager
    def _profiled(self) -> Iterator[None]:
        if self.profiler is None:
            yield
            return
        self.profiler.start()
        try:
            yield
        finally:
            self.profiler.stop()
