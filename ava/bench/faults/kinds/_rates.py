"""Other learning rates within a step."""

from __future__ import annotations

from typing import Any

from ava.bench.faults.injection import Injection


def multiply_rates(injection: Injection) -> None:
    """Multiply every group's rate as a step begins, and put it back as it ends."""
    groups: list[dict[str, Any]] = injection.parts.optimizer.param_groups
    held: list[Any] = []

    def before() -> None:
        held[:] = [group["lr"] for group in groups]
        for group in groups:
            group["lr"] = group["lr"] * injection.fault.size

    def after() -> None:
        for group, lr in zip(groups, held, strict=True):
            group["lr"] = lr

    injection.around_step(before, after)
