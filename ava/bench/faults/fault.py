"""What a fault is: a kind, and when, how long, how much, where."""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from ava.errors import InputError, nearest

if TYPE_CHECKING:
    from ava.bench.faults.injection import Injection

    Install = Callable[[Injection], None]
F = TypeVar("F", bound="Install")


@dataclass(frozen=True)
class Fault:
    """One fault; what is None is as the kind has it.

    Attributes:
        kind: one of `list_faults()`.
        at: the attempt it begins with, counted from 1.
        duration: attempts that it lasts.
        size: how much; what it multiplies or which share it takes stands in the kind's first line.
        place: a glob of parameter names, such as "blocks.0.*".
        rank: the only process that it befalls; None for all.
        seed: of what is random in it.

    Raises:
        InputError: there is no such kind, or a number cannot be.
    """

    kind: str
    at: int | None = None
    duration: int | None = None
    size: float | None = None
    place: str | None = None
    rank: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _known(self.kind)
        for key, lowest in (("at", 1), ("duration", 1), ("rank", 0)):
            value = getattr(self, key)
            if value is not None and value < lowest:
                raise InputError(f"must be {lowest} or more.", key=key, value=value)
        if self.size is not None and math.isnan(self.size):
            raise InputError("must be a number.", key="size", value=self.size)

    def settled(self) -> Settled:
        """With the kind's values where this says nothing."""
        kind = _known(self.kind)
        return Settled(
            self.kind, at=kind.at if self.at is None else self.at,
            duration=kind.duration if self.duration is None else self.duration,
            size=kind.size if self.size is None else self.size, place=kind.place if self.place is None else self.place,
            rank=kind.rank if self.rank is None else self.rank, seed=self.seed,
        )  # fmt: skip


@dataclass(frozen=True)
class Settled:
    """A fault of which everything is said; attributes as of `Fault`. `place` None: the kind chooses by the seed."""

    kind: str
    at: int
    duration: int
    size: float
    place: str | None
    rank: int | None
    seed: int

    @property
    def end(self) -> int:
        """The first attempt after it."""
        return self.at + self.duration


@dataclass(frozen=True)
class Kind:
    """A sort of fault.

    Attributes:
        name: what `Fault` calls it.
        install: puts it into a training.
        at, duration, size, place, rank: what a fault of it has where it does not say otherwise.
    """

    name: str
    install: Install
    at: int
    duration: int
    size: float
    place: str | None
    rank: int | None

    @property
    def summary(self) -> str:
        """The first line of what it says of itself."""
        return (self.install.__doc__ or "").strip().split("\n", 1)[0]


_KINDS: dict[str, Kind] = {}


def kind(
    *, at: int = 50, duration: int = 1, size: float = 1.0, place: str | None = "*", rank: int | None = None
) -> Callable[[F], F]:
    """Register a function as a kind of fault, under its own name.

    Args:
        at: the attempt that faults of it begin with, where they do not say otherwise; so all of these, see `Fault`.
        duration: attempts.
        size: how much.
        place: a glob of parameter names; None leaves the choice of a layer to the seed.
        rank: the only process that it befalls; None for all.

    Raises:
        InputError: another function has that name.
    """

    def register(install: F) -> F:
        name = install.__name__
        taken = _KINDS.get(name)
        if taken is not None and taken.install.__module__ != install.__module__:
            problem = f"{install.__module__} registers fault {name!r}, which {taken.install.__module__} already has."
            raise InputError(problem, hint="Give yours another name.")
        _KINDS[name] = Kind(name, install, at, duration, size, place, rank)
        return install

    return register


def list_faults() -> list[Kind]:
    """Every kind, by name."""
    from ava.bench.faults import kinds

    for module in pkgutil.iter_modules(kinds.__path__):
        importlib.import_module(f"{kinds.__name__}.{module.name}")
    return [_KINDS[name] for name in sorted(_KINDS)]


def get_fault(name: str, **said: int | float | str | None) -> Fault:
    """A fault of a kind, with the kind's values where nothing is said.

    Args:
        name: one of `list_faults()`.
        said: attributes of `Fault`.

    Raises:
        InputError: there is no such kind or attribute, or a number cannot be.
    """
    known = [key for key in Fault.__dataclass_fields__ if key != "kind"]
    for key in said:
        if key not in known:
            raise InputError(f"a fault has no {key!r}; it has: {', '.join(known)}.", hint=nearest(key, known))
    return replace(Fault(name), **said)  # type: ignore[arg-type]


def _known(name: str) -> Kind:
    if name not in _KINDS:
        names = [kind.name for kind in list_faults()]
        if name not in names:
            problem = f"no fault is called {name!r}; there are: {', '.join(names)}."
            raise InputError(problem, hint=nearest(str(name), names))
    return _KINDS[name]
