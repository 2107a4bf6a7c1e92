"""What breaks while training, such as a disk, a data loader's worker or a plugin, is told with its step and kept."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from ava.errors import InputError, Interrupted, TrainingFailed
from ava.optimization.gradients.health.nonfinite_operation import NonFiniteOperation
from ava.reporting.incidents import IncidentLog


@contextlib.contextmanager
def breakdowns(step: Callable[[], int], incidents: IncidentLog | None) -> Iterator[None]:
    """Within it, every error that has no message of its own becomes a `TrainingFailed` and a line of the incidents.

    Args:
        step: gives the step at which it happens.
        incidents: where it is written, by the rank that it befell; None only tells.

    Raises:
        TrainingFailed: instead of an error that nobody expected.
        InputError: as it was.
    """
    try:
        yield
    except (TrainingFailed, Interrupted, BrokenPipeError):
        raise
    except InputError as error:
        error.of_one_rank = True
        raise
    except NonFiniteOperation as error:
        failure = TrainingFailed(str(error), step=step(), incidents=_written(incidents, step(), str(error)))
        failure.of_one_rank = True
        raise failure from error
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        failure = TrainingFailed(
            f"{reason.rstrip('.: ')}. AVA_TRACEBACK=1 shows where.", step=step(),
            incidents=_written(incidents, step(), reason),
        )  # fmt: skip
        failure.of_one_rank = True
        raise failure from error


def _written(incidents: IncidentLog | None, step: int, reason: str) -> Path | None:
    """Write the incident; a full disk may be what broke, and then it is only told."""
    if incidents is None:
        return None
    try:
        incidents.write(step, "error", "raise", error=reason)
    except OSError:
        return None
    return incidents.path
