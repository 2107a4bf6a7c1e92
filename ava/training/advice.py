"""Advice while a run goes on: rules look at every line of the log, and what they find is said once.

    {"step": 410, "kind": "advice", "action": "warn", "rule": "rate_too_high", "text": "the rate is about 3x ..."}

A rule is a registered function `history -> Advice or None`, or a class where it remembers; each stands in a file of
`advice_rules/`. Where several speak of the same line, all are heard, save that of the learning rate only the first says
something: it cannot be too high and too low.

A rule that has spoken is silent about the same subject until it has had nothing to say for a long time. All of it is
found anew from metrics.jsonl and incidents.jsonl when a run is resumed: nothing of it is in a checkpoint. Nothing that
a rule does ends a training: one that fails is not asked again.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from ava import registry
from ava.reporting.incidents import IncidentLog
from ava.reporting.listener import Listener
from ava.reporting.tail import Tail
from ava.training.history import LENGTH, Advice, History, Setting

Rule = Callable[[History], Advice | None]
SILENCE = 50
"""Lines for which a rule has nothing to say before it is heard again on the same subject."""
_ABOUT_THE_RATE = ("rate_too_high", "rate_too_low", "vanishing", "stagnation", "clipped_always")
"""The first of these that speaks of a line is right, and the others see what follows from it."""


class Adviser(Listener):
    """Gives advice to all who watch a run, and to its incidents.

    Args:
        setting: how the run was set up.
        run_dir: the run's directory; of a resumed run its metrics.jsonl holds the lines before.
        listeners: who is told; may hold the adviser itself.
        incidents: where it is written.
        rules: name -> rule; None takes all that are registered.
    """

    def __init__(
        self, setting: Setting, run_dir: Path, listeners: Sequence[Listener], incidents: IncidentLog,
        rules: dict[str, Rule] | None = None,
    ) -> None:  # fmt: skip
        self.history = History(setting)
        self.rules = registered_rules() if rules is None else dict(rules)
        self._run_dir, self._listeners, self._incidents = run_dir, listeners, incidents
        self._spoken: dict[str, tuple[str, int]] = {}
        self._noted, self._is_stale = Tail(incidents.path), incidents.path.exists()

    def on_start(self, info: dict[str, Any]) -> None:
        """Take up what a resumed run has logged before; what was said of it is not said again."""
        first_step = info.get("first_step", 1)
        if first_step <= 1:
            return
        path = self._run_dir / "metrics.jsonl"
        num_rows = sum(1 for _ in Tail(path).new())
        for number, row in enumerate(Tail(path).new()):
            if row["step"] < first_step and "loss" in row:
                self.history.take(row)
                if num_rows - number <= 2 * LENGTH:  # what was said before is of no consequence any more
                    self._found()
            elif row["step"] < first_step:
                self.history.evaluations.append(row)
        for one in Tail(self._incidents.path).new():
            if one.get("kind") == "advice" and one["step"] < first_step:
                self._spoken[one["rule"]] = (one.get("subject", ""), self.history.num_lines)

    def on_layers(self, step: int, norms: dict[str, float]) -> None:
        """Remember the norms of the layers' gradients."""
        self.history.look(step, norms)

    def on_log(self, row: dict[str, float]) -> None:
        """Ask every rule, and tell what is new."""
        if self._is_stale:
            for one in self._noted.new():
                if one.get("kind") != "advice":
                    self.history.note(one)
            self._is_stale = False
        self.history.take(row)
        for rule, advice in self._found():
            details: dict[str, Any] = {"rule": rule, "text": advice.text, **advice.numbers}
            details |= {"subject": advice.subject} if advice.subject else {}
            self._incidents.write(int(row["step"]), "advice", "warn", **details)
            for listener in self._listeners:
                listener.on_incident({"step": int(row["step"]), "kind": "advice", "action": "warn", **details})

    def on_eval(self, row: dict[str, float]) -> None:
        """Remember the evaluation."""
        self.history.evaluations.append(row)

    def on_rollback(self, step: int) -> None:
        """Forget what was told of later steps."""
        self.history.go_back(step)

    def on_incident(self, row: dict[str, Any]) -> None:
        """Read the incidents before the next line: they hold more than listeners are told."""
        self._is_stale = self._is_stale or row.get("kind") != "advice"

    def _found(self) -> list[tuple[str, Advice]]:
        """What the rules say of the last line and have not said before."""
        spoken = {name: advice for name in list(self.rules) if (advice := self._asked(name)) is not None}
        first = next((name for name in _ABOUT_THE_RATE if name in spoken), None)
        kept = {name: one for name, one in spoken.items() if name == first or name not in _ABOUT_THE_RATE}
        return [(name, advice) for name, advice in kept.items() if self._is_new(name, advice)]

    def _asked(self, name: str) -> Advice | None:
        try:
            return self.rules[name](self.history)
        except Exception as error:  # whatever a rule, or a plugin's, does wrong: the training is worth more
            del self.rules[name]
            text = f"the advice rule {name!r} failed ({type(error).__name__}: {error}), and is not asked any more."
            warnings.warn(text, stacklevel=2)
            return None

    def _is_new(self, name: str, advice: Advice) -> bool:
        subject, last = self._spoken.get(name, ("", -SILENCE - 1))
        self._spoken[name] = (advice.subject, self.history.num_lines)
        return self.history.num_lines - last > SILENCE or subject != advice.subject


def registered_rules() -> dict[str, Rule]:
    """Every rule with its own defaults, by name."""
    return {entry.name: _made(entry.load()) for entry in registry.advice}


def _made(builder: Callable[..., Any]) -> Rule:
    return cast(Rule, builder() if inspect.isclass(builder) else builder)
