"""The two ways a run ends badly, each with its exit code.

Bad input is the user's to mend: it is found before anything is built, names the key, the value, what is
allowed and the nearest valid name, and ends with exit code 2. A training that failed names the step and
the incident file, and ends with exit code 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class InputError(ValueError):
    """Something the user gave cannot be used; exit code 2.

    Args:
        problem: what is wrong and what is allowed, in one sentence.
        key: the configuration key at fault, as its full dotted path.
        value: what was given for it.
        hint: the remedy, or the nearest valid name, as a sentence.
    """

    exit_code = 2
    of_one_rank = False
    """Whether the other ranks may not know of it, so that the rank it befell has to tell."""

    def __init__(self, problem: str, *, key: str | None = None, value: object = None, hint: str | None = None) -> None:
        self.problem, self.key, self.value, self.hint = problem, key, value, hint
        where = "" if key is None else f"{key}={_shown(value)}: "
        super().__init__(where + problem + ("" if hint is None else f" {hint}"))

    def at(self, key: str, value: object) -> InputError:
        """The same error, told of configuration key `key`: parts do not know where in the config they stand."""
        return InputError(self.problem, key=key, value=value, hint=self.hint)


class TrainingFailed(RuntimeError):  # noqa: N818
    """Training cannot go on; exit code 1.

    Args:
        problem: what happened and what to try, in one or two sentences.
        step: the optimizer step at which it happened, counted from 1.
        incidents: the run's `incidents.jsonl`, if a run directory exists.
    """

    exit_code = 1
    of_one_rank = False
    """As of `InputError`."""

    def __init__(self, problem: str, *, step: int, incidents: Path | None = None) -> None:
        self.step, self.incidents = step, incidents
        super().__init__(f"step {step}: {problem}" + ("" if incidents is None else f" See {incidents}."))


def nearest(name: str, known: Iterable[str], label: str = "{}") -> str | None:
    """The sentence "Did you mean ...?" for the known name closest to `name`, or None if none is close."""
    by_lower = {one.lower(): one for one in known}
    close = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.6)
    return f"Did you mean `{label.format(by_lower[close[0]])}`?" if close else None


def _shown(value: object, limit: int = 80) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= limit else text[: limit - 3] + "..."


class Interrupted(Exception):  # noqa: N818
    """SIGINT or SIGTERM ended the training after a checkpoint; exit code 130 or 143.

    Args:
        signal_number: which of the two.
        step: optimizer steps taken.
        checkpoint: the folder of the checkpoint that continues the run.
    """

    def __init__(self, signal_number: int, *, step: int, checkpoint: Path) -> None:
        self.exit_code = 128 + signal_number
        self.step, self.checkpoint = step, checkpoint
        super().__init__(f"interrupted after step {step}; continue with resume={checkpoint.parent.parent}")
