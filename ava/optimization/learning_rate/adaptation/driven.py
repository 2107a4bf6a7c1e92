"""What the schedules that a measured value drives have in common: their word for a step is their adaptation's."""

from __future__ import annotations

from typing import Any

from ava.errors import InputError
from ava.optimization.learning_rate.adaptation.adaptation import Adaptation
from ava.optimization.learning_rate.change import Change
from ava.optimization.learning_rate.factors import Factors


class AdaptationShape:
    """A schedule whose multiplier an adaptation moves; abstract, for a schedule gives it the policy."""

    adaptation: Adaptation

    def __call__(self, step: int, total: int, /) -> Factors:
        """The factors of the step after `step` steps, as things stand."""
        return Factors(self.adaptation.factor(step))

    def observe(self, step: int, value: float) -> Change | None:
        """Take in a value, of which less is better, measured after `step` steps."""
        return self.adaptation.observe(step, value)

    def state_dict(self) -> dict[str, Any]:
        """All that was learned, as plain values."""
        return {"schedule": type(self).__name__.lower(), **self.adaptation.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        """Continue from there, exactly.

        Raises:
            InputError: the state is of another schedule.
        """
        own, saved = type(self).__name__.lower(), state_dict.get("schedule")
        if saved != own:
            problem = f"the state is not of the schedule {own}, but of {saved or 'another'}."
            raise InputError(problem, hint="Continue with the schedule it was saved with.")
        self.adaptation.load_state_dict(state_dict)
