"""Options of AGMOHD that would do nothing are refused: who gave them expects something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ava.errors import InputError


def refuse_idle_options(groups: Sequence[Mapping[str, Any]], defaults: Mapping[str, Any]) -> None:
    """Check that every option that is not at its default has something to do.

    Args:
        groups: the optimizer's param groups, as it was built.
        defaults: of its options.

    Raises:
        InputError: one has not; says what it is for.
    """
    for group in groups:
        given = {key for key in ("clip_norm", "schedule_steps", "momentum_floor") if group[key] != defaults[key]}
        floor, beta1 = group["momentum_floor"], group["betas"][0]
        if "clip_norm" in given and group["gradient_clipping"] != "global_norm":
            _refuse(group, "clip_norm", "is the norm that gradient_clipping=global_norm clips at, and that is not set.",
                    "Set gradient_clipping=global_norm too, or leave clip_norm out.")  # fmt: skip
        if "schedule_steps" in given and group["lr_scheduler"] == "none":
            _refuse(group, "schedule_steps", "is the length of lr_scheduler, which is none.",
                    "Set lr_scheduler to cyclical, cosine or step, or leave schedule_steps out.")  # fmt: skip
        if "momentum_floor" in given and group["momentum_schedule"] == "fixed":
            _refuse(group, "momentum_floor", "bounds how far momentum falls, and momentum_schedule=fixed keeps it.",
                    "Set momentum_schedule=adaptive, or leave momentum_floor out.")  # fmt: skip
        if "momentum_floor" in given and floor > beta1:
            _refuse(group, "momentum_floor", f"is above the momentum itself, {beta1}, which could never fall.",
                    "Lower it, or set momentum_schedule=fixed to keep momentum.")  # fmt: skip


def _refuse(group: Mapping[str, Any], key: str, problem: str, hint: str) -> None:
    raise InputError(problem, key=key, value=group[key], hint=hint)
