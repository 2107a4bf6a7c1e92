"""What mends a step within the step: levels 0 to 2.

    0  a gradient or loss that is not finite     the step is left out
       weights damaged since the last step       put back to before that step, and this one is left out
    1  an outlying gradient                      scaled to what was to be expected
       an outlying update                        shrunk
    2  an outlying loss                          the step is left out; just after the run went back, one that is suspect

All of it is decided where the numbers are: an accelerator is not waited for. What was done becomes known to the host
through `Relay`. Ranks see the same numbers and do the same.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ava.data.loader import Window
from ava.optimization.gradients.health.measurement import Measurement
from ava.optimization.optimizers.wrappers.averaging import VARIANT as AVERAGE
from ava.optimization.stability.hindrance import HindranceDetector
from ava.optimization.stability.verdict import Number, Verdict
from ava.training.recovery.kept_weights import KeptWeights
from ava.training.recovery.mending import Mending, without_overflow

if TYPE_CHECKING:
    from ava.training.state import Run

SUSPECT = "loss_spike"
"""The detector that says whether a loss is."""
FADING = 0.95
PAST = 0.9
"""Weight of the past in the usual length of an update."""


class Guard:
    """Judges and mends every step of a run.

    Args:
        run: whose steps.
        detector: says what is an outlier.

    Attributes:
        mending: what was done in the step that is under way, or in the last one.
        usual: length of an update for a rate of 1, averaged over the last dozen steps; 0 while unknown.
        longest: of the last updates that were not shrunk, a twentieth less for each step since.
        is_alert: whether a suspect loss is enough to leave a step out.
    """

    def __init__(self, run: Run, detector: HindranceDetector) -> None:
        self.run, self.detector = run, detector
        self.on_host = run.world.device.type == "cpu"
        has_iterates = run.optimizer.speaks_of(AVERAGE)
        self.weights = KeptWeights(run.parameters, self._state_of if has_iterates else None)
        self.mending: Mending | None = None
        self.usual: Number = 0.0
        self.longest: Number = 0.0
        self.is_alert = False

    def _state_of(self, parameter: Tensor) -> Mapping[str, Any]:
        state: Mapping[str, Any] = self.run.optimizer.state.get(parameter, {})
        return state

    def judge(self, found: Measurement, loss: Tensor, window: Window) -> Mending:
        """Look at a step's gradients and loss before the optimizer uses them.

        Args:
            found: what was measured of its gradients.
            loss: 0-dim, the mean over all ranks.
            window: the step's samples.
        """
        run = self.run
        self.detector.tell(lr=run.scheduler.planned_lr, phase=run.phase, batch_size=float(run.loader.batch_size))
        if run.world.size > 1:
            norm, found_inf = self._agreed(torch.stack([found.norm.float(), found.found_inf.float()])).unbind()
            found = dataclasses.replace(found, norm=norm, found_inf=found_inf)
        # Of a few samples, as the last of an epoch, norm and loss are not those of a batch.
        is_whole = 2 * window.num_samples >= run.loader.batch_size
        judge = self._judge_on_host if self.on_host else self._judge_on_device
        self.mending = judge(found, loss, is_whole)
        planned = run.scheduler.planned_lr
        self.mending.rate = 1.0 if planned is None else planned * run.scheduler.multiplier
        return self.mending

    def _judge_on_host(self, found: Measurement, loss: Tensor, is_whole: bool) -> Mending:
        norm, value = float(found.norm), float(loss)
        is_finite = not bool(found.found_inf) and math.isfinite(value)
        is_overflow = not is_finite and bool(self._overflowed(found, loss))
        if (is_finite and not is_whole) or is_overflow:
            made = Mending(None, value, norm, found.found_inf, 1.0)
            return self._undamaged(made) if is_overflow else made
        verdict = self._alerted(self.detector.judge(norm, value))
        is_left_out = not is_finite or verdict.skip > 0
        made = Mending(verdict, value, norm, torch.ones(()) if is_left_out else found.found_inf, float(is_finite))
        return self._undamaged(made) if is_left_out or verdict.is_bad > 0 else made

    def _undamaged(self, made: Mending) -> Mending:
        """The same step, with weights put back that changed since the last one."""
        if self.weights.are_known:
            made.damaged = float(self.run.world.max_(self.weights.jumped().float()))
            if made.damaged:
                self.weights.put_back()
                made.skipped = torch.ones(())
        return made

    def _judge_on_device(self, found: Measurement, loss: Tensor, is_whole: bool) -> Mending:
        is_finite = (found.found_inf == 0) & torch.isfinite(loss)
        jumped = self.weights.jumped()
        if not is_whole:
            return Mending(None, loss, found.norm, 1 - is_finite.float(), is_finite.float())
        memory = self.detector.memory.clone()
        verdict = self._alerted(self.detector.judge(found.norm, loss))
        skip = torch.as_tensor(verdict.skip, device=loss.device)
        bad = torch.as_tensor(verdict.is_bad, device=loss.device) > 0
        made = Mending(verdict, loss, found.norm, (~is_finite | (skip > 0)).float(), is_finite.float())
        if self.run.policy.loss_scale is not None:
            overflowed = self._overflowed(found, loss)
            bad &= ~overflowed
            self.detector.memory.copy_(torch.where(overflowed, memory, self.detector.memory))
            without_overflow(made, overflowed)
        suspect = ~is_finite | (skip > 0) | bad
        made.damaged = self.run.world.max_((jumped & suspect).float())
        self.weights.put_back(made.damaged > 0)
        made.skipped = torch.maximum(made.skipped, made.damaged)
        return made

    def _alerted(self, verdict: Verdict) -> Verdict:
        """The verdict, with suspect losses left out where the run is on the alert."""
        suspicion = verdict.causes.get(SUSPECT)
        if not self.is_alert or suspicion is None:
            return verdict
        if isinstance(suspicion, Tensor):
            return dataclasses.replace(verdict, skip=torch.where(suspicion > 0, 1.0, verdict.skip))
        return dataclasses.replace(verdict, skip=1.0 if suspicion > 0 else verdict.skip)

    def factor(self, clip: Tensor | None) -> Tensor | None:
        """The factor for all gradients: the clip's own, and no more than an outlier may keep."""
        assert self.mending is not None
        verdict = self.mending.verdict
        if verdict is None:
            return clip
        own = verdict.gradient_factor
        if isinstance(own, Tensor):
            return own if clip is None else torch.minimum(clip, own.to(clip))
        if own >= 1:
            return clip
        return torch.tensor(own, dtype=torch.float64) if clip is None else clip.clamp(max=own)

    def before_step(self) -> None:
        """Remember the weights."""
        self.weights.keep()

    def after_step(self) -> None:
        """Shrink an update that is an outlier, to the usual length.

        Its length is judged in units of the rate that the schedule planned: so a legitimate rise of the rate is no
        outlier, and a rate that was raised behind the schedule's back is one. What is no longer than the last updates
        were is none either: averaged methods go on by as much while the rate falls.
        """
        made = self.mending
        assert made is not None
        length = self._agreed(self.weights.length())
        if self.on_host:
            self._bound_on_host(made, float(length))
        else:
            self._bound_on_device(made, length)
        self.weights.ended()
        made.size = self.weights.size()

    def _bound_on_host(self, made: Mending, length: float) -> None:
        made.update = 0.0 if bool(made.skipped) else length
        if not math.isfinite(made.update):
            made.update_factor = 0.0
        elif made.verdict is not None and made.update != 0:
            pace = made.update / made.rate if made.rate > 0 else math.nan
            factor = float(self.detector.judge_update(pace))
            made.update_factor = 1.0 if made.update <= float(self.longest) else factor
            if made.update_factor < 1 and self.usual > 0:
                made.update_factor = min(made.update_factor, float(self.usual) / float(pace))
            elif made.update_factor >= 1 and 0 < pace < math.inf:
                self.usual = pace if self.usual == 0 else float(self.usual) ** PAST * float(pace) ** (1 - PAST)
        if made.update_factor < 1:
            self.weights.shrink(made.update_factor)
        else:
            self.longest = max(made.update, FADING * float(self.longest))

    def _bound_on_device(self, made: Mending, length: Tensor) -> None:
        made.update = torch.where(made.skipped > 0, 0.0, length)
        if made.verdict is None:
            return
        pace = made.update / (made.rate if made.rate > 0 else math.nan)
        factor = torch.as_tensor(self.detector.judge_update(pace), device=length.device)
        longest = torch.as_tensor(self.longest, device=length.device, dtype=length.dtype)
        factor = torch.where(made.update <= longest, 1.0, factor)
        self.longest = torch.where(factor < 1, longest, torch.maximum(made.update, FADING * longest))
        usual = torch.as_tensor(self.usual, device=length.device, dtype=length.dtype)
        to_usual = torch.where((usual > 0) & (pace > 0), usual / pace, 1.0)
        made.update_factor = torch.where(factor < 1, torch.minimum(factor, to_usual.to(factor)), factor)
        learns = (factor >= 1) & (pace > 0) & torch.isfinite(pace)
        followed = torch.where(usual > 0, usual**PAST * pace ** (1 - PAST), pace)
        self.usual = torch.where(learns, followed, usual)
        self.weights.shrink(made.update_factor)

    def _agreed(self, measured: Tensor) -> Tensor:
        """The largest of all ranks, infinite where one is not a number: a rank whose gradient or optimizer's state is
        damaged must not decide otherwise than the others, which would wait for it for ever.
        """
        if self.run.world.size == 1:
            return measured
        return self.run.world.max_(measured.nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf))

    def _overflowed(self, found: Measurement, loss: Tensor) -> Tensor:
        """Whether the gradient was only too large with the loss scale on it, which will be lowered: no incident."""
        scale = self.run.policy.loss_scale
        if scale is None:
            return torch.zeros((), dtype=torch.bool, device=loss.device)
        has_room: Tensor = scale.scale > scale.floor
        return has_room & (found.found_inf != 0) & torch.isfinite(loss)

    def restart(self) -> None:
        """Forget what was learnt: the training begins anew."""
        self.detector.restart()
        self.usual = self.longest = 0.0

    def state_dict(self) -> dict[str, Any]:
        """What the detectors remember, and the usual length of an update."""
        return {"detector": dict(self.detector.state_dict()), "usual": float(self.usual),
                "longest": float(self.longest)}  # fmt: skip

    def hold(self) -> Callable[[], None]:
        """The way back to what is remembered now; no device is waited for."""
        # Lengths are replaced, never changed in place.
        memory, lengths = self.detector.memory.clone(), (self.usual, self.longest)

        def back() -> None:
            # In place where it can be: a kernel knows the memory by its address.
            now = self.detector.memory
            if (now.device, now.dtype) == (memory.device, memory.dtype):
                now.copy_(memory)
            else:
                self.detector.memory = memory.clone()
            self.usual, self.longest = lengths
            self.weights.forget()

        return back

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.detector.load_state_dict(dict(state["detector"]))
        self.usual, self.longest = float(state["usual"]), float(state["longest"])
        self.weights.forget()
