"""What a pilot's optimizer did and saw, as plain numbers; asking waits for an accelerator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ava.optimization.stability.pilot import Pilot

COUNTS = {"step": "step", "skipped": "skipped_steps", "clipped": "clipped_steps"}
FACTORS = ("hindrance", "gradient_norm", "loss", "momentum_factor", "rate_factor", "gradient_factor")


def training_stats(pilot: Pilot, groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The state of a training after its last step.

    Args:
        pilot: the optimizer's.
        groups: its param groups.

    Returns:
        `step`, `skipped_steps`, `clipped_steps`: how many updates were made, left out, and clipped; `hindrance` and its
        `causes` by name; `momentum`, the first group's b1 in the last step; `lr`, the first group's rate in it; the
        factors on both and on the gradients; `gradient_norm` before clipping, `update_norm` with the rate, and `loss`:
        NaN where they are not known.
    """
    numbers, group = pilot.numbers, groups[0]
    beta1, floor = float(group["betas"][0]), float(group["momentum_floor"])
    return {
        **{name: int(numbers[key]) for key, name in COUNTS.items()},
        **{name: float(numbers[name]) for name in FACTORS},
        "causes": {key[6:]: float(severity) for key, severity in numbers.items() if key[:6] == "cause/"},
        "momentum": max(min(float(numbers["momentum_factor"]), 1.0) * beta1, min(floor, beta1)),
        "lr": float(group["lr"]) * float(group.get("rate_factor", 1.0)),
        "update_norm": float(group.get("update_norm", float("nan"))),
    }
