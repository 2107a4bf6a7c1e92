"""The recovery ladder above single steps: what to do about trouble that lasts, as a state machine without a training.

    3  persistent          go back to before it began, at `lr_factor` of the rate
    4  soon again          further back, with the optimizer's moments as new
    5  in a young training from the initialisation, at `restart_lr_factor` of the rate
    6  budget spent        give up

    ladder = Ladder(total_steps=1000)
    answer = ladder.see(Sight(step=812, loss=9.1, is_bad=True, is_persistent=True))
    if answer is not None:
        ...                              # go back to before `answer.before`
        ladder.went_back(answer, to=800)

Weights that are no longer what the last step left are a fault by themselves: they are put back at once, and the rate
stays. Where steps are bad right after sound weights were restored, the data are to blame: those steps are left out,
nothing more is undone, and the rate is what it was. Ranks that see the same decide the same.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ava.optimization.stability.beginning import Beginning
from ava.optimization.stability.comeback import Comeback

Cause = Literal["persistent", "bad_start", "weights_nonfinite", "weights_jumped", "budget_spent"]
Action = Literal["rollback", "rollback_reset", "restart", "restore", "stop"]

RECENT, SLACK = 3, 0.15
"""So many losses, and by what share they may be above the best average."""
MOSTLY = 0.75
"""Share of steps left out since going back by which it is the data that is bad."""
GAP = 3
"""Good steps after which a row of bad ones is over."""
PROVEN = 2
"""Steps left out at once after going back that show the data to be bad."""
MARGIN = 1
"""Steps before the first bad one that may have been its cause."""


@dataclass(frozen=True)
class Sight:
    """One step, as the ladder sees it.

    Attributes:
        step: its number, from 1.
        loss: mean over all ranks.
        is_bad: something acute was seen in it.
        is_persistent: and that has lasted.
        weights: "nonfinite" or "jumped" where they changed between two steps.
        is_finite: loss and gradient were.
        is_left_out: it changed nothing, for its loss was an outlier, or it was not finite.
        length: of the update, for a rate of 1; 0 where it is not known.
        norm: of the gradient.
        size: the norm of all weights; 0 where it is not known.
    """

    step: int
    loss: float
    is_bad: bool = False
    is_persistent: bool = False
    weights: Literal["sound", "nonfinite", "jumped"] = "sound"
    is_finite: bool = True
    is_left_out: bool = False
    length: float = 0.0
    norm: float = 0.0
    size: float = 0.0


@dataclass(frozen=True)
class Answer:
    """What to do.

    Attributes:
        level: of the ladder.
        cause: why.
        action: what.
        before: the last step that may be gone back to; 0 is the initialisation.
        sign: what the cause was seen by.
    """

    level: int
    cause: Cause
    action: Action
    before: int
    sign: str = ""


class Ladder:
    """Decides.

    Args:
        total_steps: of the training.
        lr_factor: on the rate after going back.
        restart_lr_factor: on the rate after starting anew.
        warmup_steps: in which the rate rises again.
        early: share of the training that is young.
        budget: so often it goes back or starts anew.
        bad_steps: of the detector: so many bad steps are no accident.
        trivial: as of `Beginning`.

    Attributes:
        spent: how often the run went back or began anew.
        comeback: the rate.
        is_finite: whether loss and gradient of the last step were.
    """

    def __init__(
        self, total_steps: int, lr_factor: float = 0.5, restart_lr_factor: float = 0.25, warmup_steps: int = 20,
        early: float = 0.2, budget: int = 8, bad_steps: int = 8, trivial: Callable[[], float | None] = lambda: None,
    ) -> None:  # fmt: skip
        self.lr_factor, self.restart_lr_factor, self.budget = lr_factor, restart_lr_factor, budget
        self.bad_steps = bad_steps
        self.soon, self.patience = warmup_steps + 4 * bad_steps, 8 * bad_steps
        self.comeback = Comeback(warmup_steps)
        self.beginning = Beginning(int(early * total_steps), trivial)
        self.spent, self.is_finite = 0, True
        self._onset: int | None = None
        self._good = 0
        self._since: int | None = None
        self._returned_to = 0
        self._restored = self._is_alert = False
        self._waited = self._quiet = 0
        self._losses: deque[float] = deque(maxlen=RECENT)
        self._average = self._best = math.nan
        self._is_grown = False

    @property
    def is_calm(self) -> bool:
        """Whether no row of bad steps is under way."""
        return self._onset is None

    @property
    def is_alert(self) -> bool:
        """Whether the run went back just now: then a loss that is only suspect is enough to leave a step out."""
        return self._is_alert

    @property
    def last_sound(self) -> int:
        """The last step before the row of bad ones that is under way."""
        return max((self._onset or 0) - 1 - MARGIN, 0)

    def is_young(self, step: int) -> bool:
        """Whether the training may still begin anew at that step."""
        return not self._is_grown and self.beginning.is_young(step)

    def grow_up(self) -> None:
        """The beginning is forgotten: there is no way back to it."""
        self._is_grown = True

    def see(self, sight: Sight) -> Answer | None:
        """Look at a step.

        Returns:
            What to do; None to go on.
        """
        self.is_finite = sight.is_finite
        self._count(sight)
        self._follow(sight)
        sign = None
        if self.is_young(sight.step):
            sign = self.beginning.see(sight.step, sight.loss, sight.is_bad, sight.length, sight.norm, sight.size)
        if sight.weights != "sound":
            return self._within_budget(self._restoring(sight))
        if sign is not None and not self._stands_at_start(sight):
            return self._within_budget(Answer(5, "bad_start", "restart", 0, sign))
        self._losses.append(sight.loss)
        if sight.is_persistent and not self._waits() and not self._is_well(sight):
            return self._within_budget(self._persistent(sight))
        return None

    def went_back(self, answer: Answer, to: int) -> None:
        """The answer was carried out.

        Args:
            answer: as `see` gave it.
            to: the step that the run stands at now.
        """
        self.spent += 1
        self._onset, self._good = None, 0
        self._since, self._returned_to, self._waited = 0, to, 0
        self._restored = answer.action == "restore"
        self._is_alert, self._quiet = answer.action in ("rollback", "rollback_reset"), 0
        if answer.action == "restart":
            self.beginning.restart()
            self._average = self._best = math.nan
            if answer.sign == "rate":  # it is what was planned by now
                self.comeback.recover()
            else:
                self.comeback.fall(self.restart_lr_factor)
            if answer.sign == "vain":  # nothing passed by: it is the rate
                self.comeback.stay()
        elif answer.action in ("rollback", "rollback_reset"):
            self.comeback.fall(self.lr_factor)

    def _count(self, sight: Sight) -> None:
        self.comeback.step(is_clean=not sight.is_bad)
        if self._since is not None:
            self._since += 1
            self._waited += sight.is_left_out
            self._look_at_data(sight)
        if sight.is_bad:
            self._good = 0
            if self._onset is None:
                self._onset = sight.step
        elif self._onset is not None:
            self._good += 1
            if self._good >= GAP:
                self._onset = None

    def _look_at_data(self, sight: Sight) -> None:
        """The first steps after going back: sound weights show whether the data are."""
        assert self._since is not None
        if self._is_alert and self._waited == self._since == PROVEN:
            self.comeback.excuse()
        self._quiet = 0 if sight.is_left_out or sight.is_bad else self._quiet + 1
        if self._quiet >= GAP or self._since > self.patience:
            self._is_alert = False

    def _waits(self) -> bool:
        """Whether most steps since going back were left out: sound weights find these losses outlying, so it is the
        data, and there is nothing to undo.
        """
        if self._since is None or self._since > self.patience:
            return False
        return self._waited >= MOSTLY * self._since

    def _stands_at_start(self, sight: Sight) -> bool:
        """Whether the weights are those of the initialisation and nothing is finite with them: to start anew is no
        help, other data may be.
        """
        is_there = self._returned_to == 0 and bool(self._since) and self._waited == self._since
        return is_there and not sight.is_finite and self._waits()

    def _is_well(self, sight: Sight) -> bool:
        """Whether the loss is as good as it ever was: then nothing has to be undone, whatever gradients look like."""
        if not sight.is_finite or math.isnan(self._best) or len(self._losses) < RECENT:
            return False
        return statistics.median(self._losses) <= self._best + SLACK * abs(self._best)

    def _follow(self, sight: Sight) -> None:
        if not math.isfinite(sight.loss) or sight.is_left_out:
            return
        self._average = sight.loss if math.isnan(self._average) else 0.9 * self._average + 0.1 * sight.loss
        self._best = self._average if math.isnan(self._best) else min(self._best, self._average)

    @property
    def _is_again(self) -> bool:
        return self._since is not None and self._since <= self.soon

    def _restoring(self, sight: Sight) -> Answer:
        cause: Cause = "weights_nonfinite" if sight.weights == "nonfinite" else "weights_jumped"
        # What was gone back to a moment ago may be spoilt itself.
        is_spoilt = self._restored and self._since is not None and self._since <= 1
        return Answer(3, cause, "restore", self._returned_to - 1 if is_spoilt else sight.step - 1)

    def _persistent(self, sight: Sight) -> Answer:
        onset = sight.step if self._onset is None else self._onset
        # A drift is seen late, and its first steps are not bad by themselves.
        before = max(min(onset - 1, sight.step - self.bad_steps) - MARGIN, 0)
        if not self._is_again or self._restored:
            return Answer(3, "persistent", "rollback", before)
        if self.is_young(sight.step):
            return Answer(5, "persistent", "restart", 0, "again")
        return Answer(4, "persistent", "rollback_reset", max(min(before, self._returned_to - 1), 0), "again")

    def _within_budget(self, answer: Answer) -> Answer:
        if self.spent < self.budget:
            return answer
        return Answer(6, "budget_spent", "stop", answer.before, answer.cause)

    def state_dict(self) -> dict[str, Any]:
        """Where it stands, as plain numbers."""
        return {
            "spent": self.spent, "onset": self._onset, "good": self._good, "since": self._since,
            "returned_to": self._returned_to, "restored": self._restored, "waited": self._waited,
            "alert": self._is_alert, "quiet": self._quiet, "is_grown": self._is_grown,
            "losses": list(self._losses), "average": self._average, "best": self._best,
            "comeback": self.comeback.state_dict(), "beginning": self.beginning.state_dict(),
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.spent, self._onset, self._good = int(state["spent"]), state["onset"], int(state["good"])
        self._since, self._returned_to = state["since"], int(state["returned_to"])
        self._restored, self._is_grown = bool(state["restored"]), bool(state["is_grown"])
        self._waited, self._is_alert, self._quiet = int(state["waited"]), bool(state["alert"]), int(state["quiet"])
        self._losses = deque(state["losses"], maxlen=RECENT)
        self._average, self._best = float(state["average"]), float(state["best"])
        self.comeback.load_state_dict(state["comeback"])
        self.beginning.load_state_dict(state["beginning"])
