"""What a pilot remembers, in a state dict: as tensors, with the names of their numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ava.errors import InputError
from ava.optimization.optimizers.engines.batch import wide_dtype
from ava.optimization.optimizers.loading import as_tuple
from ava.optimization.stability.pilot import OF_ALL_GROUPS, Pilot

OF_THE_MACHINE = frozenset({"use_rtx_optimizations"})
"""Options that a training may go on without."""


def packed(pilot: Pilot) -> dict[str, Any]:
    """What is remembered: the pilot's numbers with those of its parts behind them, the detector's, and all names."""
    values = [*pilot.numbers.values(), *(value for part in pilot.bound_parts() for value in part.memory.values())]
    device = next((value.device for value in values if isinstance(value, Tensor)), torch.device("cpu"))
    wide = wide_dtype(device)
    numbers = torch.stack([torch.as_tensor(value, dtype=wide, device=device) for value in values])
    memory = pilot.detector.memory.detach().clone()
    return {"pilot_numbers": numbers, "pilot_detector": memory, "pilot_slots": _names(pilot)}


def refuse_other(pilot: Pilot, saved: Sequence[Mapping[str, Any]]) -> None:
    """Check that saved param groups can be continued from; those of another optimizer hold nothing for a pilot.

    Raises:
        InputError: they were saved with another value of an option that holds for all groups, or with other parts.
    """
    names, hint = _names(pilot), "Continue with what it was saved with, or start without that state."
    for group in saved:
        for key in OF_ALL_GROUPS:
            own, other = pilot.options[key], group.get(key, pilot.options[key])
            if as_tuple(other) != as_tuple(own) and key not in OF_THE_MACHINE:
                raise InputError(f"the state was saved with {other!r}.", key=key, value=own, hint=hint)
        if "pilot_numbers" in group and group.get("pilot_slots") != names:
            problem = "the saved state is of other detectors, another momentum schedule or other responses."
            raise InputError(problem, hint=hint)


def take_up(pilot: Pilot, held: Mapping[str, Any]) -> None:
    """Continue from what `packed` gave, and `refuse_other` found to fit."""
    numbers, seen = held["pilot_numbers"], held["pilot_detector"]
    slots: list[tuple[dict[str, Any], str]] = [(pilot.numbers, key) for key in pilot.numbers]
    slots += [(part.memory, key) for part in pilot.bound_parts() for key in part.memory]
    pilot.detector.load_state_dict(pilot.detector.state_dict() | {"memory": seen})
    pilot.memory["detector"] = pilot.detector.memory
    values = numbers.tolist() if numbers.device.type == "cpu" else list(numbers.unbind())
    for (memory, key), value in zip(slots, values, strict=True):
        memory[key] = value


def _names(pilot: Pilot) -> str:
    """The names of what is remembered: one text, which every file format brings back as it was."""
    parts = [f"{part.name}/{key}" for part in pilot.bound_parts() for key in part.memory]
    return ",".join([*pilot.numbers, *parts, *pilot.detector.state_dict()["slots"]])
