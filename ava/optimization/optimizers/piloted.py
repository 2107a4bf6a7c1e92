"""Optimizers with a pilot: an object that looks at gradients and loss before each step, and sets how it is made.

A named optimizer asks for one by a tag of its decorator, `pilot="module:Class"`. Its class then has `observe` and
`get_training_stats`, and its state dict what the pilot remembers. A second tag, `live`, names the numbers that the
pilot sets in every param group and that rules read, with what they are before it has.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ava.optimization.options import check
from ava.registry import Entry
from ava.registry import optimizer as registry

if TYPE_CHECKING:
    from ava.optimization.optimizers.composed import ComposedOptimizer
    from ava.optimization.stability.pilot import Pilot
    from ava.optimization.stability.verdict import Verdict

MEMORY = ("pilot_numbers", "pilot_detector", "pilot_slots")
"""The keys of a saved param group under which the pilot's memory is."""


def pilot_of(optimizer: ComposedOptimizer) -> Pilot | None:
    """The pilot that a named optimizer asks for, of this one's options."""
    entry = registry[optimizer.name]
    address = entry.tags.get("pilot")
    if address is None:
        return None
    module, _, name = address.partition(":")
    # The rate may be a tensor, which no annotation knows; it is the groups' own.
    options = {key: check(key, optimizer.defaults[key], entry.parameters[key][0]) for key in entry.own if key != "lr"}
    pilot: Pilot = getattr(importlib.import_module(module), name)(options, optimizer.param_groups)
    return pilot


def live(name: str) -> dict[str, float]:
    """The numbers that the pilot of a named optimizer sets in every group, as they are before it has."""
    return dict(registry[name].tags.get("live", {}))


def prepared(optimizer: ComposedOptimizer) -> Tensor | None:
    """What the pilot finds before the update: not finite where the step is to be left out."""
    if optimizer.pilot is None:
        return None
    if getattr(optimizer, "_opt_called", False):  # as torch's schedulers mark what they are made for
        optimizer.pilot.give_way(optimizer.param_groups)
    scale, found_inf = getattr(optimizer, "grad_scale", None), getattr(optimizer, "found_inf", None)
    return optimizer.pilot.prepare(optimizer.param_groups, scale, found_inf)


def pack(optimizer: ComposedOptimizer, packed: dict[str, Any]) -> dict[str, Any]:
    """A state dict with what the pilot remembers, in every group: whichever is loaded has it."""
    if optimizer.pilot is None:
        return packed
    from ava.optimization.stability.saving import packed as remembered

    memory = remembered(optimizer.pilot)
    groups = [{**group, **memory} for group in packed["param_groups"]]
    return {**packed, "param_groups": groups}


def refuse_other(optimizer: ComposedOptimizer, state_dict: Mapping[str, Any]) -> None:
    """Check that a state dict was saved with the parts and options that this pilot has.

    Raises:
        InputError: it was not.
    """
    if optimizer.pilot is not None:
        from ava.optimization.stability.saving import refuse_other as refuse

        refuse(optimizer.pilot, state_dict["param_groups"])


def unpack(optimizer: ComposedOptimizer) -> None:
    """Give the pilot what the loaded groups hold for it; a file of another optimizer's holds nothing."""
    held: Mapping[str, Any] = {}
    for group in optimizer.param_groups:
        for key, value in live(optimizer.name).items():
            group.setdefault(key, value)
        held = {key: group.pop(key) for key in MEMORY if key in group} or held
    if optimizer.pilot is not None and held:
        from ava.optimization.stability.saving import take_up

        take_up(optimizer.pilot, held)


def members(entry: Entry) -> dict[str, Any]:
    """What a class with a pilot has besides an optimizer's: `observe`, `get_training_stats` and `verdict`."""
    if "pilot" not in entry.tags:
        return {}
    return {"observe": observe, "get_training_stats": get_training_stats, "verdict": property(verdict)}


def verdict(self: ComposedOptimizer) -> Verdict | None:
    """What the detectors said to the last step; None before the first."""
    return None if self.pilot is None else self.pilot.verdict


def observe(  # noqa: D417
    self: ComposedOptimizer, loss: float | Tensor | None, gradient_norm: float | Tensor | None = None, *,
    reduced: bool = False,
) -> None:  # fmt: skip
    """Tell the loss of the step to come; `step(closure)` does it by itself.

    Args:
        loss: of this rank's batch; of several (accumulated batches) the mean counts. None is not known.
        gradient_norm: of all gradients as they stand in `p.grad`, where it is known: it is not measured again. What
            the step divides them by (`grad_scale`) then counts as a clipping that was decided already.
        reduced: whether the loss is the same on all ranks; else it is averaged over the default process group, and
            every rank has to call.

    Raises:
        InputError: the loss or the norm is no number, or the norm is negative.
    """
    assert self.pilot is not None
    self.pilot.observe(loss, gradient_norm, reduced=reduced)


def get_training_stats(self: ComposedOptimizer) -> dict[str, Any]:
    """What the last step saw and did, as plain numbers; asking waits for an accelerator.

    Returns:
        `step`, `skipped_steps`, `clipped_steps`; `hindrance` and its `causes` by name; `momentum` and `lr` of the first
        group in that step; `gradient_norm` before clipping, `update_norm` with the rate, `loss`: NaN where they are not
        known; `momentum_factor`, `rate_factor`, `gradient_factor`: how far the step was turned down.
    """
    from ava.optimization.stability.stats import training_stats

    assert self.pilot is not None
    return training_stats(self.pilot, self.param_groups)
