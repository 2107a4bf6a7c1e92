"""The numbers of a param group that a schedule can move, by name.

`momentum` is a group's momentum, or the first of its `betas` where it has none; `beta1`, `beta2`, `beta3` are the
betas one by one; every other number of a group goes by its own name. A group keeps the value that it was
given under `initial_<name>`, as torch does for `lr`: a schedule multiplies that.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ava.errors import InputError, nearest

Group = dict[str, Any]


def read(group: Group, name: str) -> float | None:
    """The group's value of `name`; None where it has none that moves."""
    place = _place(group, name)
    if place is not None:
        return float(group["betas"][place])
    value = group.get(name)
    # Whole numbers are counts and seeds, which no factor multiplies.
    is_number = isinstance(value, float | Tensor) or name in ("lr", "weight_decay", "momentum", "eps")
    is_number = is_number and isinstance(value, int | float | Tensor) and not isinstance(value, bool)
    return float(value) if is_number and not name.startswith("initial_") else None  # type: ignore[arg-type]


def write(group: Group, name: str, value: float) -> None:
    """Set it; a tensor (but of betas) is filled in place, for a captured or compiled step reads that very tensor."""
    place = _place(group, name)
    if place is not None:
        betas = group["betas"]
        if betas[place] != value:
            group["betas"] = (*betas[:place], value, *betas[place + 1 :])
    elif isinstance(group[name], Tensor):
        group[name].fill_(value)
    else:
        group[name] = value


def remember(group: Group, name: str) -> float | None:
    """The value that the group was given, kept from the first call on; None where it has none."""
    value = read(group, name)
    return None if value is None else float(group.setdefault(f"initial_{name}", value))


def own_name(group: Group, name: str) -> str:
    """The name of the number itself: `beta1` for `momentum` where that is the first beta."""
    place = _place(group, name)
    return name if place is None else f"beta{place + 1}"


def limits(name: str) -> tuple[float, float]:
    """Between which values `name` has to stay; the upper one is excluded."""
    return (0.0, 1.0) if name == "momentum" or name.startswith("beta") else (0.0, float("inf"))


def check_known(groups: list[Group], name: str) -> None:
    """Refuse a name that no group has.

    Raises:
        InputError: says which there are.
    """
    if name == "lr":
        problem = "is what the schedule itself moves."
        raise InputError(problem, key="also", value=name, hint="Choose that by the scheduler's name.")
    values = [read(group, name) for group in groups]
    if all(value == 0 for value in values if value is not None) and any(value is not None for value in values):
        problem = "is 0, which a schedule multiplies in vain."
        raise InputError(problem, key=f"also.{name}", value=0, hint=f"Give the optimizer a {name}.")
    if all(value is None for value in values):
        known = sorted({n for group in groups for n in _names(group)})
        problem = f"is no number that this optimizer has; there are: {', '.join(known)}."
        raise InputError(problem, key="also", value=name, hint=nearest(name, known))


def _names(group: Group) -> list[str]:
    betas = [f"beta{i + 1}" for i in range(len(group["betas"]))] if "betas" in group else []
    first = ["momentum"] if betas else []
    return [*(n for n in group if n != "lr" and read(group, n) is not None), *betas, *first]


def _place(group: Group, name: str) -> int | None:
    """Which of the betas `name` is."""
    if "betas" not in group:
        return None
    if name == "momentum" and "momentum" not in group:
        return 0
    place = {"beta1": 0, "beta2": 1, "beta3": 2}.get(name)
    return place if place is not None and place < len(group["betas"]) else None
