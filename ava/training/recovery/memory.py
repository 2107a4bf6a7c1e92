"""What recovery remembers and going back does not undo: how often it was done, the rate, what the host will learn.

It is a section of every checkpoint. While a training is young the section holds its beginning too, so that one that is
resumed can still start anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from ava.optimization.stability.ladder import Ladder
from ava.training.recovery.relay import Relay
from ava.training.recovery.series import Series


@dataclass(frozen=True)
class Settings:
    """What the trainer needs of the section `recovery`; as there."""

    snapshots: int = 3
    snapshot_every: int | None = None
    snapshot_cost: float = 0.01
    snapshot_device: Literal["same", "cpu"] = "same"
    check_ranks_every: int = 50
    nonfinite_steps: int = 5


@dataclass
class Memory:
    """Recovery's own state.

    Attributes:
        device: of the training.
        ladder: levels 3 to 6; None mends single steps only.
        settings: numbers of the configuration.
        initial: the sections of a checkpoint of the beginning, while the training is young; on rank 0, or resumed.
        refuge: the same of the state that the run would go back to, while something is wrong.
        is_resumed: whether the run was resumed from a checkpoint.
        was_finite: whether loss and gradient of any step were.
        broken_updates: steps in a row whose update was not finite.
    """

    device: torch.device
    ladder: Ladder | None
    settings: Settings = field(default_factory=Settings)
    initial: dict[str, Any] | None = None
    refuge: dict[str, Any] | None = None
    is_resumed: bool = False
    was_finite: bool = False
    broken_updates: int = 0

    def __post_init__(self) -> None:
        self.relay, self.series = Relay(self.device), Series()
        self.before_saving: Callable[[], None] = lambda: None

    @property
    def multiplier(self) -> float:
        """On the schedule's rate, in the next step."""
        return 1.0 if self.ladder is None else self.ladder.comeback.multiplier

    def state_dict(self) -> dict[str, Any]:
        """A tree for a checkpoint."""
        ladder = None if self.ladder is None else self.ladder.state_dict()
        return {
            "relay": self.relay.state_dict(), "series": self.series.state_dict(), "ladder": ladder,
            "initial": self.initial, "refuge": self.refuge, "broken_updates": self.broken_updates,
            "was_finite": self.was_finite,
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave; a ladder begins where there was none."""
        self.relay.load_state_dict(state["relay"])
        self.series.load_state_dict(state["series"])
        self.broken_updates = int(state["broken_updates"])
        self.was_finite = bool(state.get("was_finite", True))  # an older checkpoint does not say
        if self.ladder is not None and state["ladder"] is not None:
            self.ladder.load_state_dict(state["ladder"])
        self.initial, self.refuge, self.is_resumed = state["initial"], state["refuge"], True
