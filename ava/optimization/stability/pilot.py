"""What ties a HindranceDetector to an optimizer: before each step it looks, and sets how far the step is turned down.

    pilot.observe(loss)                                # where somebody knows the loss
    judged = pilot.prepare(groups, scale, found_inf)   # sets the groups' factors
    with optimizer.judging(judged):                    # not finite: the step is left out
        optimizer.update(...)

The gradients' norm is measured in one pass, unless it is told. The update's norm comes out of the step itself and is
judged before the next. On a processor everything is a Python number, on an accelerator a 0-dim tensor that stays there.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ava import registry
from ava.errors import InputError
from ava.optimization.optimizers.arithmetic import minimum, where
from ava.optimization.stability.acts import Act, act_of, rush, share_of
from ava.optimization.stability.bound import Bound
from ava.optimization.stability.given import measured
from ava.optimization.stability.hindrance import HindranceDetector
from ava.optimization.stability.loss import LossSoFar, on
from ava.optimization.stability.measuring import device_of, gradient_norm
from ava.optimization.stability.parts import options_by_name
from ava.optimization.stability.rate import factor_of, is_moved
from ava.optimization.stability.tensor_cores import use_tensor_cores
from ava.optimization.stability.verdict import Number, Verdict

Group: TypeAlias = dict[str, Any]

OF_ALL_GROUPS = (
    "hindrance_threshold", "momentum_schedule", "gradient_clipping", "lr_scheduler", "use_rtx_optimizations",
    "clip_norm", "schedule_steps", "detectors", "responses",
)  # fmt: skip
"""The options that hold for all groups together."""

RESPONSES = ("shrink", "skip")
"""What is done where nobody says otherwise."""

RETURN = 0.1
"""Share of the way back to its schedule that momentum goes in a step; down it goes at once."""

START: dict[str, Number] = {
    "calls": 0.0, "step": 0.0, "skipped": 0.0, "clipped": 0.0, "was_skipped": 0.0,
    "hindrance": 0.0, "rush": 0.0,
    "momentum_factor": 1.0, "rate_factor": 1.0, "gradient_factor": 1.0, "gradient_norm": math.nan, "loss": math.nan,
}  # fmt: skip
"""What a pilot remembers besides its detector, before the first step. `rush` is the hindrance that going
slower helps against."""


class Pilot:
    """Looks before each step, and turns momentum, gradient and rate down.

    Args:
        options: of the optimizer; those of `OF_ALL_GROUPS` are read.
        groups: its param groups.

    Attributes:
        verdict: on the last step; None before the first.
        memory: what changes from step to step: "numbers", and the "detector"'s tensor. What is put here counts.
        follows_a_schedule: whether a scheduler moves the rate, so that the option `lr_scheduler` does not.

    Raises:
        InputError: a part has no such name or option, or a group has an option of its own that holds for all.
    """

    def __init__(self, options: Mapping[str, Any], groups: Sequence[Group]) -> None:
        self.options = {key: options[key] for key in OF_ALL_GROUPS}
        self.check(groups)
        self.detector = HindranceDetector(threshold=options["hindrance_threshold"], detectors=options["detectors"])
        self.schedule = Bound(registry.momentum_schedule, options["momentum_schedule"])
        chosen = options["responses"]
        responses = options_by_name("responses", RESPONSES if chosen is None else chosen)
        self.responses = [Bound(registry.response, name, own) for name, own in responses.items()]
        causes: dict[str, Number] = {f"cause/{part.name}": 0.0 for part in self.detector.parts}
        self.memory: dict[str, Any] = {"numbers": START | causes, "detector": self.detector.memory}
        self.verdict: Verdict | None = None
        self.follows_a_schedule = False
        self._loss = LossSoFar()
        self._norm: Number | None = None
        self._home: tuple[torch.device, torch.device] | None = None
        if options["use_rtx_optimizations"]:
            use_tensor_cores(device_of(groups))

    def check(self, groups: Sequence[Group]) -> None:
        """Groups may have rates and moments of their own; the course of a training is one.

        Raises:
            InputError: a group says otherwise.
        """
        for group in groups:
            for key, value in self.options.items():
                if group.get(key, value) != value:
                    problem = f"holds for all param groups together, and is {value!r}."
                    raise InputError(problem, key=key, value=group[key], hint="Leave it out of the group.")

    def give_way(self, groups: Sequence[Group]) -> None:
        """Leave the rate to another scheduler, from the step on in which it moves it: two would multiply.

        Args:
            groups: the optimizer's, for which one of torch's schedulers was made.

        Warns:
            UserWarning: once: the option `lr_scheduler` is ignored.
        """
        kind = self.options["lr_scheduler"]
        if kind == "none" or self.follows_a_schedule or not any(map(is_moved, groups)):
            return
        self.follows_a_schedule = True
        warnings.warn(
            f"another scheduler moves the learning rate, so lr_scheduler={kind!r} is ignored from here on. Leave one "
            "of them out; get_agmohd_schedule(optimizer) makes a scheduler of the option.", stacklevel=4,
        )  # fmt: skip

    def observe(self, loss: Number | None, gradient_norm: Number | None = None, *, reduced: bool = False) -> None:
        """Take the loss of the step to come; of several (accumulated batches) the mean counts.

        Args:
            loss: of this rank's batch; None where it is not known.
            gradient_norm: of all gradients as they stand in `p.grad`, where it is known: it is not measured again. What
                the step divides them by (`grad_scale`) then counts as a clipping that was decided already.
            reduced: whether the loss is the same on all ranks; else it is averaged over the default process group.

        Raises:
            InputError: the loss or the norm is no number, or the norm is negative.
        """
        norm = None if gradient_norm is None else measured("gradient_norm", gradient_norm)
        if loss is not None:
            self._loss.add(loss, reduced=reduced)
        if norm is not None:
            is_free = isinstance(norm, Tensor) and norm.is_cpu and not torch.compiler.is_compiling()
            self._norm = measured("gradient_norm", float(norm)) if is_free else norm

    def prepare(self, groups: list[Group], scale: Tensor | None, found_inf: Tensor | None) -> Tensor | None:
        """Look at gradients and loss, and set the groups' factors.

        Args:
            groups: the optimizer's, whose parameters have their gradients.
            scale: what the gradients are multiplied with; None is 1.
            found_inf: above 0 where the step is left out in any case.

        Returns:
            What is not finite where the step is to be left out; None where nothing speaks against it.
        """
        device = self._device(groups)
        if all(parameter.grad is None for group in groups for parameter in group["params"]):
            self._norm, _ = None, self._loss.take(device)
            return None  # nothing moves, and nothing is counted
        norm = gradient_norm(groups, device, self._norm, scale, found_inf)
        decided = None if self._norm is None or scale is None else on(device, scale.reshape(()))
        loss, self._norm = self._loss.take(device), None
        # A rate of 0 moves nothing: whoever steps so only wants the state to be there.
        act = Act() if _stand_still(groups) else self._judge(groups, norm, loss, device)
        if decided is not None:  # of two clippings the tighter one
            act = replace(act, gradient=minimum(act.gradient * decided, 1.0))
        is_left_out: Number = where(is_finite(norm), where(act.skip > 0, 1.0, 0.0), 1.0)
        schedule = self._scheduled()
        self._remember(act, norm, loss, is_left_out)
        factors = {"gradient_factor": act.gradient, "momentum_factor": self.numbers["momentum_factor"],
                   "rate_factor": act.rate * schedule}  # fmt: skip
        for group in groups:
            group.update(factors)
        if isinstance(is_left_out, Tensor):
            return torch.where(is_left_out > 0, math.nan, 0.0)
        return torch.full((), math.nan) if is_left_out else None

    def bound_parts(self) -> list[Bound]:
        """Momentum schedule and responses."""
        return [self.schedule, *self.responses]

    @property
    def numbers(self) -> dict[str, Number]:
        """What is remembered besides the detector's memory."""
        numbers: dict[str, Number] = self.memory["numbers"]
        return numbers

    def _device(self, groups: Sequence[Group]) -> torch.device:
        """Where numbers live; asked anew where there are other parameters."""
        first = next((group["params"][0].device for group in groups if group["params"]), torch.device("cpu"))
        if self._home is None or self._home[0] != first:
            self._home = (first, device_of(groups))
        return self._home[1]

    def _judge(self, groups: list[Group], norm: Number, loss: Number | None, device: torch.device) -> Act:
        """What is to be done in this step."""
        detector = self.detector
        if self.memory["detector"] is not detector.memory:  # a snapshot put another one back
            detector.memory = self.memory["detector"]
        update_factor = self._look_back(groups[0], device)
        rates = [group["lr"] for group in groups]
        if not any(isinstance(rate, Tensor) and not rate.is_cpu for rate in rates):
            detector.tell(lr=max(map(float, rates)) * self._scheduled())
        self.verdict = verdict = detector.judge(norm, loss)
        self.memory["detector"] = detector.memory
        self.numbers.update({f"cause/{name}": severity for name, severity in verdict.causes.items()})
        self.numbers.update(hindrance=verdict.hindrance, rush=rush(verdict))
        act = Act(gradient=self._clipped(norm, verdict))
        for response in self.responses:
            act = act.and_then(self._asked(response, verdict, update_factor, device))
        return act

    def _asked(self, response: Bound, verdict: Verdict, update_factor: Number, device: torch.device) -> Act:
        """What a response says to this step.

        Raises:
            InputError: it asks for a detector that is not at work, or says what cannot be done.
        """
        try:
            said = response(verdict, update_factor)
        except KeyError as error:
            missing = error.args[0] if error.args else None
            if missing in verdict.causes or missing not in registry.detector:
                raise
            problem = f"response {response.name} asks for the detector {missing!r}, which is not among them."
            raise InputError(problem, key="detectors", value=list(verdict.causes), hint="Add it there.") from error
        return act_of(response.name, said, device)

    def _look_back(self, group: Group, device: torch.device) -> Number:
        """Judge the update that the last step made, if it made one: by what it was too long."""
        norm, numbers = group.get("update_norm"), self.numbers
        if norm is None:
            return 1.0
        was_skipped = numbers["was_skipped"] > 0
        factor = self.detector.judge_update(where(was_skipped, math.nan, on(device, norm)))
        shorter: Number = where(was_skipped, 1.0, factor)
        return shorter

    def _clipped(self, norm: Number, verdict: Verdict) -> Number:
        """The factor on all gradients."""
        kind, bound = self.options["gradient_clipping"], self.options["clip_norm"]
        if kind == "adaptive":
            return verdict.gradient_factor
        factor: Number = where(norm > bound, bound / norm, 1.0) if kind == "global_norm" else 1.0
        return factor

    def _scheduled(self) -> float:
        """The factor of the option `lr_scheduler`, unless a scheduler applies it."""
        if self.follows_a_schedule or self.options["lr_scheduler"] == "none":
            return 1.0
        return factor_of(self.options["lr_scheduler"], self.calls, self.options["schedule_steps"])

    def _remember(self, act: Act, norm: Number, loss: Number | None, is_left_out: Number) -> None:
        """Write this step down; one that is left out turns nothing down for those that follow."""
        numbers = self.numbers
        old = numbers["momentum_factor"]
        target = share_of(self.schedule.name, self.schedule(numbers["rush"]))
        new = minimum(target, old + RETURN * (target - old))
        is_clipped = where(act.gradient < 1, 1.0, 0.0) * (1 - is_left_out)
        numbers |= {
            "step": numbers["step"] + (1 - is_left_out), "skipped": numbers["skipped"] + is_left_out,
            "clipped": numbers["clipped"] + is_clipped, "was_skipped": is_left_out,
            "momentum_factor": where(is_left_out > 0, old, new), "rate_factor": act.rate,
            "gradient_factor": act.gradient, "gradient_norm": norm, "loss": math.nan if loss is None else loss,
        }  # fmt: skip
        # Only the host's own numbers move a schedule: on an accelerator a step that was left out counts too.
        numbers["calls"] = self.calls + (1 if isinstance(is_left_out, Tensor) or not is_left_out else 0)

    @property
    def calls(self) -> int:
        """Steps along the option `lr_scheduler`."""
        return int(self.memory["numbers"]["calls"])


def is_finite(norm: Number) -> Any:
    """Whether a norm is; true or false, or a tensor of that."""
    return norm.isfinite() if isinstance(norm, Tensor) else math.isfinite(norm)


def _stand_still(groups: Sequence[Group]) -> bool:
    """Whether every rate is known to be 0."""
    return all(not isinstance(group["lr"], Tensor) and group["lr"] == 0 for group in groups)
