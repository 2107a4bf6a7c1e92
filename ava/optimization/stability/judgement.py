"""One step's judgement as a pure function: what is remembered and what is measured in, verdict and new memory out.

Its numbers are Python's on a processor, 0-dim tensors on an accelerator; nothing branches on a number that may be one,
so that a compiler can follow it (`fusing.py`).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from ava.optimization.stability.baseline import SLOTS, Baseline, Kind
from ava.optimization.stability.operands import absolute, clamp, exp, maximum, minimum, sqrt, where
from ava.optimization.stability.parts import Part
from ava.optimization.stability.seen import Seen
from ava.optimization.stability.signals import is_finite, log_loss, log_norm, to_loss

GRADIENT = Kind(floor=0.05, least=math.log(2.0), jump=math.log(100.0), most=math.log(6.0), drift=1.5,
                slack=math.log(4.0), early_slack=math.log(20.0), gone=math.log(100.0))  # fmt: skip
LOSS = Kind(floor=0.03, least=math.log(1.65), jump=math.log(10.0), most=math.log(2.5), drift=1.0,
            slack=0.15, early_slack=math.log(2.0), gone=math.inf)  # fmt: skip
UPDATE = Kind(floor=0.1, least=math.log(2.5), jump=math.log(100.0), most=math.log(8.0), drift=math.inf,
              slack=math.log(100.0), early_slack=math.log(100.0), gone=math.log(100.0))  # fmt: skip
"""The constants of the three signals, measured on clean trainings: `ava bench false_alarms`."""

JOINT = 0.7
"""Share of `sigmas` that is enough where gradient and loss agree."""
PHASES = {"warmup": 0.0, "main": 1.0, "cooldown": 2.0}
WARMUP_WIDTH = 1.25
"""By what thresholds are wider in the warmup."""
JUMP = 1.99
"""What a rate or a batch size changes by at once where it jumps; a little below 2, for rounding."""
SLOWEST_SIZE = 1 / 200
LARGEST_NORM = 3.4e38
RUN = ("bad", "nonfinite", "size", "losses", "lr", "phase", "batch_size", "other_size", "update_lr")
"""What is remembered besides the signals: bad and non-finite steps in a row, the usual size of the loss, the number of
losses, and what was told last; 0 is unknown (-1 of the phase)."""
_SIGNALS = 3 * len(SLOTS)
_GRADIENT, _LOSS, _UPDATE = (slice(place, place + len(SLOTS)) for place in range(0, _SIGNALS, len(SLOTS)))
_RUN = slice(_SIGNALS, _SIGNALS + len(RUN))


class Told(NamedTuple):
    """What is known of the step from elsewhere; 0 is unknown, -1 of the phase."""

    lr: Any = 0.0
    phase: Any = -1.0
    batch_size: Any = 0.0


def sections(parts: Sequence[Part]) -> dict[str, dict[str, float]]:
    """What is remembered: section -> slot -> the value to start from, in the order that judgements expect."""
    signals = {signal: dict.fromkeys(SLOTS, 0.0) for signal in ("gradient", "loss", "update")}
    run = dict.fromkeys(RUN, 0.0) | {"phase": -1.0}
    return {**signals, "run": run, **{f"detector {part.name}": part.slots for part in parts}}


@dataclass(frozen=True)
class Judgement:
    """The rules by which steps are judged.

    Attributes:
        alarm_sigmas: deviations beyond which something is a spike.
        rare_sigmas: deviations beyond which something belongs to the tail of the noise.
        clip_sigmas: deviations above the expectation to which an outlying norm is brought.
        bad_steps: bad steps in a row that make a verdict persistent.
        nonfinite_steps: the same of steps that are not finite.
        parts: the detectors.
    """

    alarm_sigmas: float
    rare_sigmas: float
    clip_sigmas: float
    bad_steps: float
    nonfinite_steps: float
    parts: tuple[Part, ...]

    def step(self, values: list[Any], told: Told, norm: Any, given: Any | None) -> list[Any]:
        """Judge a step by gradient norm and loss.

        Args:
            values: what is remembered; changed in place.
            told: of this step.
            norm: of the gradients.
            given: the loss, or None.

        Returns:
            A verdict's numbers, in its order.
        """
        run = dict(zip(RUN, values[_RUN], strict=True))
        gradient, losses = Baseline(GRADIENT, values[_GRADIENT]), Baseline(LOSS, values[_LOSS])
        width = _hear(run, told, gradient, losses)
        norm_is_finite, loss_is_finite = is_finite(norm), True if given is None else is_finite(given)
        gradient.look(log_norm(where(norm_is_finite, norm, 1.0)), norm_is_finite & (norm > 0.0), width)
        expected_loss = _look_at_loss(losses, run, given, loss_is_finite, width)
        sigmas, rare = self._sigmas(run, self.alarm_sigmas), self._sigmas(run, self.rare_sigmas)
        gradient.bound(sigmas, rare)
        losses.bound(sigmas, rare)
        both = gradient.exceeds(JOINT) & losses.exceeds(JOINT)
        for baseline in (gradient, losses):
            baseline.learn(baseline.exceeds() | both, 4.0 * self.bad_steps)
        is_zero = norm_is_finite & (norm <= 0.0)
        seen = Seen(gradient, losses, norm_is_finite & loss_is_finite, is_zero, sigmas, given is not None)
        numbers = self._conclude(seen, run, values, expected_loss)
        values[_GRADIENT], values[_LOSS], values[_RUN] = gradient.values(), losses.values(), run.values()
        return numbers

    def update(self, values: list[Any], told: Told, norm: Any) -> Any:
        """Judge an update by its norm.

        Args:
            values: what is remembered; changed in place.
            told: of this step.
            norm: of what all parameters changed by.

        Returns:
            By what to multiply it.
        """
        run, update = dict(zip(RUN, values[_RUN], strict=True)), Baseline(UPDATE, values[_UPDATE])
        update.loosen(_jumps(run, told.lr, "update_lr"))
        finite = is_finite(norm)
        update.look(log_norm(where(finite, norm, 1.0)), finite & (norm > 0.0))
        update.bound(self._sigmas(run, self.alarm_sigmas), self._sigmas(run, self.rare_sigmas))
        update.learn(update.exceeds(), 4.0 * self.bad_steps)
        values[_UPDATE], values[_RUN] = update.values(), run.values()
        return where(norm > LARGEST_NORM, 0.0, self._factor(update))

    def after_step(self, values: list[Any], lr: Any, phase: Any, batch_size: Any, norm: Any, loss: Any = None) -> Any:
        """`step` as a pure function: what is remembered from then on, and behind it the verdict's numbers."""
        values = list(values)
        numbers = self.step(values, Told(lr, phase, batch_size), norm, loss)
        return values + numbers

    def after_update(self, values: list[Any], lr: Any, phase: Any, batch_size: Any, norm: Any) -> Any:
        """`update` as a pure function: what is remembered from then on, and behind it the factor."""
        values = list(values)
        factor = self.update(values, Told(lr, phase, batch_size), norm)
        return [*values, factor]

    @property
    def key(self) -> Hashable:
        """Equal of those that judge alike."""
        limits = (self.alarm_sigmas, self.rare_sigmas, self.clip_sigmas, self.bad_steps, self.nonfinite_steps)
        return limits, tuple(part.key for part in self.parts)

    @contextmanager
    def traced(self) -> Iterator[None]:
        """Within it, judging leaves nothing behind in the detectors.

        Raises:
            InputError: a detector keeps something outside of its `memory`.
        """
        with ExitStack() as stack:
            for part in self.parts:
                stack.enter_context(part.traced())
            yield

    def _sigmas(self, run: dict[str, Any], usual: float) -> Any:
        return usual * where(run["phase"] == PHASES["warmup"], WARMUP_WIDTH, 1.0)

    def _conclude(self, seen: Seen, run: dict[str, Any], values: list[Any], expected_loss: Any) -> list[Any]:
        severities, place = [], _RUN.stop
        calm: Any = 1.0
        acute: Any = 0.0
        for part in self.parts:
            if part.slots:
                section = slice(place, place := place + len(part.slots))
                severity, values[section] = part.remembering(seen, values[section])
            else:
                severity = part.call(seen)
            severity = part.bounded(severity)
            severities.append(severity)
            calm = calm * (1.0 - severity)
            acute = maximum(acute, severity) if part.is_acute else acute
        is_bad = acute >= 0.5
        run["bad"] = where(is_bad, run["bad"] + 1.0, 0.0)
        run["nonfinite"] = where(seen.is_finite, 0.0, run["nonfinite"] + 1.0)
        gradient, loss = seen.gradient, seen.loss
        lasts = (run["bad"] >= self.bad_steps) | (run["nonfinite"] >= self.nonfinite_steps)
        lasts = lasts | (gradient.moved > 0.0) | (loss.moved > 0.0)
        return [
            1.0 - calm, *severities, self._factor(gradient), where(seen.is_finite, loss.alarm, 1.0),
            where(is_bad, 1.0, 0.0), where(lasts, 1.0, 0.0),
            where(gradient.was_known, exp(gradient.expected), math.nan),
            where(loss.was_known, expected_loss, math.nan),
        ]  # fmt: skip

    def _factor(self, signal: Baseline) -> Any:
        """What brings an outlier to `clip_sigmas` deviations above the expectation."""
        is_outlier = signal.is_known & (signal.alarm > 0.0)
        if is_outlier is False:
            return 1.0
        return where(is_outlier, exp(-clamp(signal.residual - self.clip_sigmas * signal.deviation, 0.0, 80.0)), 1.0)


def _hear(run: dict[str, Any], told: Told, gradient: Baseline, losses: Baseline) -> Any:
    """Take up what was told; by what this step's deviations are wider than those of others."""
    width, has_other_size = _size(run, told.batch_size)
    is_new = _jumps(run, told.lr, "lr") | has_other_size
    changes = (told.phase >= 0.0) & (run["phase"] != told.phase)
    if changes is not False:
        for baseline in (gradient, losses):
            baseline.relearn(changes & (run["phase"] >= 0.0))
        run["phase"] = where(changes, told.phase, run["phase"])
    for baseline in (gradient, losses):
        baseline.loosen(is_new)
    return width


def _size(run: dict[str, Any], told: Any) -> tuple[Any, Any]:
    """By what a batch of another size widens deviations, and whether that size has come to stay.

    Noise goes with 1 / sqrt(batch size). One batch of another size is an epoch's last, two are a change.
    """
    is_told, last = told > 0.0, run["batch_size"]
    if is_told is False or ((told == last) is True and (run["other_size"] <= 0.0) is True):
        return 1.0, False
    ratio = maximum(told / maximum(last, 1e-30), last / maximum(told, 1e-30))
    differs = is_told & (last > 0.0) & (ratio > JUMP)
    stays = differs & (run["other_size"] == told)
    width = where(stays, 1.0, where(differs, sqrt(ratio), 1.0))
    run["batch_size"] = where(is_told & (width <= 1.0), told, last)
    run["other_size"] = where(is_told, where(width > 1.0, told, 0.0), run["other_size"])
    return width, stays


def _jumps(run: dict[str, Any], told: Any, slot: str) -> Any:
    """Whether what was told differs by a factor of 2 from what `slot` remembers; it is remembered there."""
    is_told, last = told > 0.0, run[slot]
    if is_told is False or (told == last) is True:
        return False
    ratio = told / maximum(last, 1e-30)
    run[slot] = where(is_told, told, last)
    return is_told & (last > 0.0) & ((ratio > JUMP) | (ratio < 1.0 / JUMP))


def _look_at_loss(losses: Baseline, run: dict[str, Any], given: Any, is_known: Any, width: Any) -> Any:
    """Compare the loss with what was expected, and follow its usual size; the loss that was expected."""
    if given is None:
        losses.look(losses.level, False)
        return to_loss(losses.expected, run["size"])
    loss = where(is_known, given, run["size"])
    size = absolute(loss)
    usual = where(run["losses"] > 0.0, run["size"], size)
    # Of zeros alone nobody knows what is large.
    is_known = is_known & (usual > 0.0)
    losses.look(log_loss(loss, usual), is_known, width)
    learns = is_known & (losses.alarm <= 0.0)
    weight = maximum(1.0 / (run["losses"] + 1.0), SLOWEST_SIZE)
    run["size"] = where(learns, usual + weight * (minimum(size, 10.0 * usual) - usual), run["size"])
    run["losses"] = where(learns, run["losses"] + 1.0, run["losses"])
    return to_loss(losses.expected, usual)
