"""Hindrance detection: whether something stands in the way of training, and what.

    detector = HindranceDetector()
    verdict = detector.judge(gradient_norm, loss)       # before the optimizer's step
    factor = detector.judge_update(update_norm)         # after it

Gradient norm, update norm and loss are each compared with what the steps before let expect (`baseline.py`); detectors,
one file each, make causes of that (`judgement.py`). Where the numbers are on the CPU the arithmetic is Python's; on an
accelerator the same code becomes one kernel (`fusing.py`), and the host never waits. Everything remembered is in one
tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from annotated_types import Gt, Le
from torch import Tensor

from ava.errors import InputError
from ava.optimization.optimizers.outside_graphs import outside_graphs
from ava.optimization.options import check_all
from ava.optimization.stability.fusing import Function, fused, one_by_one
from ava.optimization.stability.given import measured, told
from ava.optimization.stability.judgement import PHASES, Judgement, Told, sections
from ava.optimization.stability.memory import Memory
from ava.optimization.stability.parts import bind_all
from ava.optimization.stability.verdict import Number, Verdict
from ava.registry import PositiveFloat, PositiveInt


class HindranceDetector:
    """Judges steps by gradient norm, loss and update norm.

    Args:
        threshold: sensitivity, as AGMOHD's `hindrance_threshold`: alarms start at
            `sigmas * (threshold / 0.1)^(1/4)` deviations, so that a smaller threshold alarms earlier.
        sigmas: deviations beyond which something is a spike, at the threshold of 0.1.
        clip_sigmas: deviations above the expectation to which an outlying norm is brought.
        detectors: names, or name -> options; None for all that are registered.
        bad_steps: bad steps in a row that make a verdict persistent.
        nonfinite_steps: the same of steps that are not finite.

    Attributes:
        memory: everything remembered from step to step, one 1-D tensor on the device of what is judged; changed in
            place, but for the first step on an accelerator, which moves it there.

    Raises:
        InputError: a value is not allowed, or a detector is not registered.
    """

    def __init__(
        self, threshold: float = 0.1, sigmas: float = 5.0, clip_sigmas: float = 3.0,
        detectors: Sequence[str] | Mapping[str, Mapping[str, Any]] | None = None, bad_steps: int = 8,
        nonfinite_steps: int = 5,
    ) -> None:  # fmt: skip
        given = {"threshold": threshold, "sigmas": sigmas, "clip_sigmas": clip_sigmas, "bad_steps": bad_steps,
                 "nonfinite_steps": nonfinite_steps}  # fmt: skip
        checked = check_all("the hindrance detector", given, _ALLOWED)
        self.threshold, self.sigmas, self.clip_sigmas = (checked[k] for k in ("threshold", "sigmas", "clip_sigmas"))
        self.bad_steps, self.nonfinite_steps = float(checked["bad_steps"]), float(checked["nonfinite_steps"])
        self.alarm_sigmas: float = self.sigmas * (self.threshold / 0.1) ** 0.25
        self.parts = bind_all(detectors)
        self._judgement = Judgement(
            self.alarm_sigmas, self.sigmas, self.clip_sigmas, self.bad_steps, self.nonfinite_steps, tuple(self.parts)
        )
        self._memory = Memory(sections(self.parts))
        self._names = [part.name for part in self.parts]
        self._told = Told()
        self._sent: dict[int, tuple[float, Tensor]] = {}

    @property
    def memory(self) -> Tensor:
        """Everything remembered from step to step: 1-D, on the device of what is judged, changed in place."""
        return self._memory.tensor

    @memory.setter
    def memory(self, tensor: Tensor) -> None:
        self._memory.replace(tensor)

    @outside_graphs
    def judge(self, gradient_norm: Number, loss: Number | None = None) -> Verdict:
        """Judge this step, before the optimizer's step.

        Args:
            gradient_norm: of all gradients together; equal on all ranks.
            loss: the step's mean loss; equal on all ranks; None where it is not known.

        Raises:
            InputError: one is no number, or the norm is negative.
        """
        gradient_norm = measured("gradient_norm", gradient_norm)
        loss = None if loss is None else measured("loss", loss, may_be_negative=True)
        memory, vector = self._memory, None
        if memory.is_host(gradient_norm, loss):
            values = memory.read()
            given, norm = None if loss is None else float(loss), float(gradient_norm)
            norm = float(measured("gradient_norm", norm))  # a tensor's sign is known only now
            numbers = self._judgement.step(values, self._told, norm, given)
            memory.write(values)
        else:
            vector = self._on_device(self._judgement.after_step, len(self.parts) + 7, gradient_norm, loss)
            numbers = list(vector.unbind())
        hindrance, *severities, factor, skip, is_bad, persistent, norm, expected_loss = numbers
        causes = dict(zip(self._names, severities, strict=True))
        return Verdict(hindrance, causes, factor, skip, is_bad, persistent, norm, expected_loss, vector)

    @outside_graphs
    def judge_update(self, update_norm: Number) -> Number:
        """Judge what the optimizer's step did, after it.

        Args:
            update_norm: the norm of what all parameters changed by; equal on all ranks. NaN where it is not known.

        Returns:
            By what to multiply the change so that it is no outlier, at most 1; 0 where it is infinite.

        Raises:
            InputError: it is no number, or negative.
        """
        memory, update_norm = self._memory, measured("update_norm", update_norm)
        if not memory.is_host(update_norm):
            return self._on_device(self._judgement.after_update, 1, update_norm)[0]
        values = memory.read()
        factor: float = self._judgement.update(values, self._told, float(measured("update_norm", float(update_norm))))
        memory.write(values)
        return factor

    def tell(self, lr: float | None = None, phase: str | None = None, batch_size: float | None = None) -> None:
        """Tell what is known of the next step; where it jumps, what depends on it is learnt afresh.

        Args:
            lr: the learning rate; a jump is one by a factor of 2 at once.
            phase: "warmup", "main" or "cooldown"; thresholds are wider in the warmup.
            batch_size: samples of the step; a jump is one by a factor of 2 that stays. A single step of another size,
                such as an epoch's last, is judged with the deviations of its size.

        Raises:
            InputError: the phase is another word, the rate negative, the batch size not above 0, or one not finite.
        """
        if phase is not None and phase not in PHASES:
            raise InputError(f"phase must be one of {', '.join(PHASES)}.", key="phase", value=phase)
        known = self._told
        self._told = Told(
            known.lr if lr is None else told("lr", lr, may_be_zero=True),
            known.phase if phase is None else PHASES[phase],
            known.batch_size if batch_size is None else told("batch_size", batch_size),
        )

    def restart(self) -> None:
        """Forget everything that was learnt."""
        self._memory.restart()

    def state_dict(self) -> dict[str, Any]:
        """Everything remembered, with the names of its numbers."""
        return self._memory.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave.

        Raises:
            InputError: it is the state of other detectors, or no such state.
        """
        self._memory.load_state_dict(state)

    def _on_device(self, function: Function, num_results: int, *measured: Number | None) -> Tensor:
        """Judge where the host cannot read; the judgement's results, 1-D."""
        memory = self._memory
        numbers = [memory.scalar(one) for one in measured if one is not None]
        size, found = len(memory.slots), None
        if memory.is_fused:
            inputs, judgement = [memory.tensor, *self._send(), *numbers], self._judgement
            key = (function.__name__, judgement.key)
            found = fused(function, key, inputs, size + num_results, judgement.traced)
        if found is None:
            found = one_by_one(function, [memory.tensor, *self._told, *numbers])
        memory.tensor.copy_(found[:size])
        return found[size:]

    def _send(self) -> list[Tensor]:
        """What was told, on the device; only what changed is sent again."""
        like = self.memory
        for place, value in enumerate(self._told):
            sent = self._sent.get(place)
            if sent is None or sent[0] != value or (sent[1].device, sent[1].dtype) != (like.device, like.dtype):
                self._sent[place] = (value, self._memory.scalar(value))
        return [tensor for _, tensor in self._sent.values()]


_ALLOWED: dict[str, Any] = {
    "threshold": Annotated[float, Gt(0), Le(1)], "sigmas": PositiveFloat, "clip_sigmas": PositiveFloat,
    "bad_steps": PositiveInt, "nonfinite_steps": PositiveInt,
}  # fmt: skip
