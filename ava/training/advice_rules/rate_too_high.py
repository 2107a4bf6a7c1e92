"""The learning rate is too high: four ways in which that shows.

    at the start     the loss of the first steps rises to 1.5 times what it was before training
    later            the loss gives back a quarter of all it had gained, for 30 steps, and gradients grow with it
    never            the loss stops falling early at a level far from good, while the weights keep moving fast
    in recovery      the recovery had to go back twice, or to start anew, and lowered the rate itself

How far too high is told by how far the loss rose. At rates 30 times the best one, adamw, sgd and lion raised the loss
of convnet, mlp and a small GPT 1.8 to 6 times at the start, or never got past guessing by frequency; at good rates 1.2
times at most.
"""

from __future__ import annotations

import math
import statistics

from ava.registry import PositiveFloat, PositiveInt, advice
from ava.training.history import Advice, History, largest, loss, mean, norm, rounded

_START = 100
"""Steps that are the start."""
_CAUSES = ("persistent", "bad_start")
_BACK = ("rollback", "rollback_reset", "restart")


@advice
def rate_too_high(
    history: History, /, overshoot: PositiveFloat = 1.5, given_back: PositiveFloat = 0.25, steps: PositiveInt = 30
) -> Advice | None:
    """The loss rises, or will not fall while the weights move fast: the rate is too high.

    Args:
        history: the run so far.
        overshoot: times the first loss that is too much in the first steps.
        given_back: the share of what was gained that may not be lost again.
        steps: for which that has to last.
    """
    found = _in_recovery(history) or (_at_the_start(history, overshoot, steps) if history.has_ratio else None)
    if found is None and math.isfinite(history.first_loss):
        found = _later(history, given_back, steps)
    return found or (_never(history) if history.has_ratio else None)


def _in_recovery(history: History) -> Advice | None:
    went_back = [one for one in history.incidents if one.get("kind") in _CAUSES and one.get("action") in _BACK]
    restarts = sum(one["action"] == "restart" for one in went_back)
    # The planned rate is 0 where a schedule begins or ends: that says nothing of what recovery made of it.
    after = [one["lr_after"] for one in went_back if one.get("lr_after", 0.0) > 0]
    if len(went_back) + restarts < 2 or not after:
        return None
    since = int(went_back[0]["step"])
    factor = max((history.setting.lr or after[-1]) / after[-1], 2.0)
    did = "had to start anew" if restarts else f"went back {len(went_back)} times"
    text = f"the rate is too high (training {did}, at step {since} first, and goes on at {factor:.2g} times less)"
    return _told(history, factor, text, since, came_back=float(len(went_back)))


def _at_the_start(history: History, overshoot: float, steps: int) -> Advice | None:
    """Only the first steps can tell: the mean over them, and the highest."""
    rows = [row for row in history.lines if row["step"] <= _START] or list(history.lines)[:1]
    if "loss_first" not in history.lines[0] or rows[-1]["step"] < 20 or history.step > 4 * _START:
        return None
    if not _has_diverged(history):  # what is not finite was left out: of a broken sample it says nothing on the rate
        rows = [row for row in rows if math.isfinite(loss(row))]
    if not rows:
        return None
    before = [0.0, *(row["step"] for row in rows)]
    level = sum(loss(r) * (r["step"] - b) for r, b in zip(rows, before, strict=False)) / rows[-1]["step"]
    top = max(max(loss(row), row.get("loss_max", -math.inf)) if math.isfinite(loss(row)) else math.inf for row in rows)
    level, top = level / history.first_loss, top / history.first_loss
    if not (top > overshoot and level > 0.75) and math.isfinite(top + level):
        return None
    factor = 3.0 if level < 0.9 and top < 3 else 10.0 if level < 1.5 else 30.0
    high = f"{top:.1f} times its first value" if math.isfinite(top) else "beyond all numbers"
    text = f"the rate is about {factor:.0f}x too high since step 1 (the loss rose to {high} at the start)"
    return _told(history, factor, text, 1, overshoot=top, mean=level)


def _has_diverged(history: History) -> bool:
    """Whether neither loss nor gradient of the last lines is a number any more."""
    return not any(math.isfinite(loss(row)) or math.isfinite(norm(row)) for row in list(history.lines)[-3:])


def _later(history: History, given_back: float, steps: int) -> Advice | None:
    rows = list(history.lines)
    best = min(range(len(rows)), key=lambda i: loss(rows[i]) if math.isfinite(loss(rows[i])) else math.inf)
    level, after = loss(rows[best]), rows[best + 1 :]
    if not math.isfinite(level):
        return None
    limit = level + given_back * max(history.first_loss - level, 0.1 * abs(level))
    above = 0
    while above < len(after) and not loss(after[-1 - above]) < limit:
        above += 1
    if above < 3 or history.steps_of(above) < steps or level >= history.first_loss:
        return None
    grown = _ratio(largest(norm(row) for row in after[-above:]), norm(rows[best]))
    if not grown >= 1.5:
        return None
    since = int(after[-above]["step"])
    factor = 3.0 if largest(loss(row) for row in after[-above:]) < history.first_loss else 10.0
    text = f"the rate is about {factor:.0f}x too high since step {since} (gradient norm and loss rose together)"
    return _told(history, factor, text, since, best=level, grown=grown)


def _never(history: History) -> Advice | None:
    """A loss that stands still from early on, while every line finds the weights elsewhere."""
    rows = [row for row in history.lines if row["step"] > 20]
    if len(rows) < 3 or history.has_decayed or history.is_rising or history.is_converged:
        return None
    half = len(rows) // 2
    early, late = mean([loss(row) for row in rows[:half]]), mean([loss(row) for row in rows[half:]])
    begun = history.lines[0]["step"] == history.first_step
    apart = history.steps_of(len(rows)) / len(rows)
    # Weights that are thrown about wander: the distance grows with the square root of the steps.
    moved = statistics.median(row.get("weight_change", 0.0) for row in rows) * math.sqrt(apart * max(apart, _WHILE))
    stands = len(rows) >= 5 and history.step >= _START and 0.98 * early < late <= history.first_loss
    learned_nothing = history.step >= _START / 2 and min(early, late) > _NOTHING * history.first_loss
    if not begun or not (stands or learned_nothing) or moved < _FAST:
        return None
    since = int(rows[0]["step"])
    text = (
        f"the rate is about 10x too high since step {since} (the loss has stood at {late:.3g} since then, while the "
        f"weights move by {moved:.0%} in {max(apart, _WHILE):.0f} steps)"
    )
    return _told(history, 10.0, text, since, level=late, moved=moved)


_NOTHING = 0.93
"""Of the first loss: so much is left where nothing was learned."""
_WHILE, _FAST = 20, 0.05
"""Steps, and of their own size how far weights go in them that are thrown about, if nothing is gained by it."""


def _ratio(now: float, then: float) -> float:
    """How far a norm has grown; without end where it was 0, or where none is finite any more."""
    if not math.isfinite(then):
        return math.nan
    return now / then if then > 0 and math.isfinite(now) else math.inf


def _told(history: History, factor: float, text: str, since: int, **numbers: float) -> Advice:
    rate = history.setting.lr
    if rate is None:
        return Advice(f"{text}: try a lower rate", {"since": since, "factor": factor, **numbers})
    lower = rate / factor
    return Advice(
        f"{text}: try optimizer.lr={rounded(lower)}", {"since": since, "factor": factor, "lr": lower, **numbers}
    )
