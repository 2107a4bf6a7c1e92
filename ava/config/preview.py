"""The schedule that a configuration would follow, looked at step by step, without training.

Step s, counted from 1 as in the metrics, uses what the scheduler says after s - 1 steps. Where not every step is
looked at (`preview_steps`), the extremes of the curves are searched around the best step known: a schedule with jags
finer than that may have a higher peak than the one that is found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any

import numpy as np

from ava.config.parts import build_scheduler
from ava.config.preview_steps import SAMPLES, corners, find_spans, looked_at, spread
from ava.config.schema import Config
from ava.data.loader import TrainingLoader
from ava.optimization.learning_rate.course import spelled
from ava.reporting.schedule_curves import Curve, Drawing, Panel

_FEW = 100
"""Steps at a time where an extreme is searched."""
_MOST = 6
"""Curves of a panel."""
_SOURCES = {"loss": "the training loss", "eval": "the evaluations' metric"}

Key = tuple[str, int]
"""A hyperparameter and the index of a param group."""


class Preview:
    """A schedule over the training that a configuration describes.

    Args:
        config: the checked configuration; its data is read.

    Attributes:
        total_steps: optimizer steps of that training.
        spans: the phases of the course that most groups follow.

    Raises:
        InputError: a part refuses its options or its data.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.scheduler, self.loader = build_scheduler(config)
        self.total_steps = self.scheduler.total_steps
        self.spans = find_spans(self._phase, self.total_steps)
        self._steps = looked_at(self.total_steps, self.spans)
        self._tables = self._evaluate(self._steps)
        self._members = _coinciding(self._tables)
        self._named = self._by_name()

    def drawing(self) -> Drawing:
        """What to draw, thinned out to about a thousand steps."""
        chosen = {name: self._choose(keys) for name, keys in self._named.items()}
        extremes = {key: (self._extreme(key, -1), self._extreme(key, 1)) for keys in chosen.values() for key in keys}
        exact = {step for pair in extremes.values() for step, _ in pair} | corners(self.spans)
        steps = sorted({*spread(1, self.total_steps, SAMPLES), *(exact if len(exact) <= SAMPLES else ())})
        values = self._evaluate(steps)
        panels = [
            Panel(
                name, [Curve(self._label(key), values[key].tolist(), *extremes[key]) for key in keys],
                left_out=len(self._named[name]) - len(keys),
            )
            for name, keys in chosen.items()
        ]  # fmt: skip
        title = f"scheduler={self.config.scheduler.name}  optimizer={self.config.optimizer.name}"
        source = _total_from(self.config, self.loader)
        return Drawing(title, self.total_steps, source, steps, panels, self.spans, self._notes())

    def rows(self) -> Iterator[dict[str, Any]]:
        """Every step with its phase and every distinct curve, for a CSV."""
        columns = {key: self._column(key) for keys in self._named.values() for key in keys}
        for step in range(1, self.total_steps + 1):
            values = self.scheduler.at(step - 1)
            row = {"step": step, "phase": self._phase(step)}
            yield row | {column: values[i].get(name) for (name, i), column in columns.items()}

    def _phase(self, step: int) -> str:
        return self.scheduler.course.rate(step - 1, self.total_steps).phase

    def _evaluate(self, steps: Sequence[int]) -> dict[Key, np.ndarray]:
        """The value of every hyperparameter of every group at some steps; NaN where it has none."""
        ends = [self.scheduler.at(step) for step in (0, self.total_steps - 1)]
        tables = {(name, i): np.full(len(steps), np.nan) for end in ends for i, g in enumerate(end) for name in g}
        for place, step in enumerate(steps):
            for i, group in enumerate(self.scheduler.at(step - 1)):
                for name, value in group.items():
                    if (name, i) in tables:
                        tables[name, i][place] = value
        return tables

    def _by_name(self) -> dict[str, list[Key]]:
        """Hyperparameter -> the first key of each distinct curve. Only what moves is there, and `lr`."""
        named: dict[str, list[Key]] = {}
        for key in self._members:
            values = self._tables[key]
            if key[0] == "lr" or np.nanmin(values) != np.nanmax(values):
                named.setdefault(key[0], []).append(key)
        return dict(sorted(named.items(), key=lambda item: item[0] != "lr"))

    def _choose(self, keys: Sequence[Key]) -> list[Key]:
        """A handful of curves: those of groups with schedules of their own first, then some of all the others."""
        if len(keys) <= _MOST:
            return list(keys)
        own = [key for key in keys if "scheduler" in self.scheduler.optimizer.param_groups[key[1]]][: _MOST - 2]
        others = [key for key in keys if key not in own]
        return sorted(own + [others[i] for i in spread(0, len(others) - 1, _MOST - len(own))], key=keys.index)

    def _extreme(self, key: Key, sign: int) -> tuple[int, float]:
        """The first step with the largest (sign 1) or smallest value, and that value."""
        steps, values = self._steps, self._tables[key]
        while True:
            best = int(np.nanargmax(sign * values))
            left, right = steps[max(best - 1, 0)], steps[min(best + 1, len(steps) - 1)]
            if right - left <= 2 or len(steps) == steps[-1] - steps[0] + 1:
                return steps[best], float(values[best])
            steps = sorted({*spread(left, right, _FEW), steps[best]})
            values = np.array([self.scheduler.at(step - 1)[key[1]].get(key[0], np.nan) for step in steps])

    def _label(self, key: Key) -> str:
        groups, members = self.scheduler.optimizer.param_groups, self._members[key]
        if len(members) == len(groups):
            return "all" if len(groups) == 1 else f"all {len(groups)}"
        names = [name for i in members for name in groups[i].get("param_names", [])]
        others = [name for i, group in enumerate(groups) if i not in members for name in group.get("param_names", [])]
        own = groups[key[1]].get("scheduler")
        follows = "" if own is None else f", follows {spelled(own, '')[0]}"
        return f"{_in_short(names, others)} ({len(members)} of {len(groups)}){follows}"

    def _column(self, key: Key) -> str:
        name, first = key
        return name if len(self._named[name]) == 1 else f"{name}[{first}] {self._label(key)}"

    def _notes(self) -> list[str]:
        config, notes = self.config, list[str]()
        if self.scheduler.metric is not None:
            notes.append(
                f"scheduler={config.scheduler.name} follows {_SOURCES[self.scheduler.metric]} as it is measured: "
                "what is drawn is the course without a change."
            )
        if any(group["lr"] is None for group in self.scheduler.optimizer.param_groups):
            notes.append("The optimizer chooses its own learning rate (lr is null).")
        for name in sorted(set(self.scheduler.course.also) - self._named.keys()):
            notes.append(f"{name} stays as it is: its schedule is constant.")
        if config.lr_finder.enabled and config.resume is None:
            lr = config.optimizer.options["lr"]
            notes.append(f"The run looks for its rate first (lr_finder); what is drawn begins from optimizer.lr={lr}.")
        if config.trainer.early_stop_patience is not None:
            notes.append(f"trainer.early_stop_patience={config.trainer.early_stop_patience} may end it earlier.")
        if len(self._steps) < self.total_steps:
            notes.append(f"Of {self.total_steps:,} steps {len(self._steps):,} were looked at, more around extremes.")
        return notes


def _coinciding(tables: dict[Key, np.ndarray]) -> dict[Key, list[int]]:
    """The first key of each distinct curve -> the groups that have it."""
    firsts: dict[tuple[str, bytes], Key] = {}
    members: dict[Key, list[int]] = {}
    for (name, i), values in tables.items():
        first = firsts.setdefault((name, values.tobytes()), (name, i))
        members.setdefault(first, []).append(i)
    return members


def _in_short(names: Sequence[str], others: Sequence[str]) -> str:
    """Some parameters: by the beginning that they share with no others, or by the first of them."""
    if len(names) < 2:
        return names[0] if names else "unnamed"
    ordered = sorted(name.split(".") for name in names)
    same = takewhile(lambda pair: pair[0] == pair[1], zip(ordered[0], ordered[-1], strict=False))
    beginning = "".join(f"{word}." for word, _ in same)
    if beginning and not any(other.startswith(beginning) for other in others):
        return f"{beginning}*"
    return f"{names[0]} and {len(names) - 1:,} more"


def _total_from(config: Config, loader: TrainingLoader) -> str:
    trainer, each = config.trainer, loader.steps_per_epoch
    if trainer.max_epochs is None or (trainer.max_steps is not None and trainer.max_steps < trainer.max_epochs * each):
        return "trainer.max_steps"
    samples, last = len(loader.split), len(loader.split) % loader.batch_size
    uneven = f", the last of {last:,}" if last else ""
    return (
        f"trainer.max_epochs={trainer.max_epochs} of {each:,} steps: "
        f"{samples:,} samples in batches of {loader.batch_size:,}{uneven}"
    )
