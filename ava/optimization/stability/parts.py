"""Detectors by name, with what they remember in a common memory."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from numbers import Real
from typing import Any

from torch import Tensor

from ava import registry
from ava.errors import InputError
from ava.optimization.options import check_all
from ava.optimization.stability.operands import clamp, where
from ava.optimization.stability.seen import Seen


class Part:
    """A registered detector with its options.

    Args:
        name: one of `list_detectors()`.
        options: the detector's own.

    Attributes:
        is_acute: whether 0.5 of it makes a step bad; others warn.
        slots: what it remembers -> the value to start from.
        key: equal of parts that judge alike.

    Raises:
        InputError: there is none of that name, or it has no such option, or the value is not allowed.
    """

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        entry = registry.detector[name]
        checked = check_all(f"detector {name}", options, {key: kind for key, (kind, _) in entry.parameters.items()})
        builder = entry.load()
        self.name, self.is_acute = name, bool(entry.tags.get("acute", False))
        self._object: Any = builder(**checked) if inspect.isclass(builder) else None
        call: Any = partial(builder, **checked) if self._object is None else self._object
        self.call: Callable[[Seen], Any] = call
        self.slots: dict[str, float] = {k: float(v) for k, v in getattr(self._object, "memory", {}).items()}
        self.key: Hashable = (name, builder, repr(sorted(checked.items())))

    def remembering(self, seen: Seen, values: list[Any]) -> tuple[Any, list[Any]]:
        """Judge a step, where something is remembered.

        Args:
            seen: the step.
            values: what is remembered, in the order of `slots`.

        Returns:
            The severity, and what to remember.
        """
        own = self._object
        own.memory = dict(zip(self.slots, values, strict=True))
        severity = self.call(seen)
        memory = own.memory
        return severity, [memory[name] for name in self.slots]

    def bounded(self, said: Any) -> Any:
        """What the detector said, brought to [0, 1]; 0 where it is not a number (NaN).

        Raises:
            InputError: it is neither a number nor a tensor.
        """
        if said.__class__ is float and 0.0 <= said <= 1.0:
            return said
        if isinstance(said, Real):
            said = float(said)
        elif not isinstance(said, Tensor):
            raise InputError(f"detector {self.name} has to return a number from 0 to 1, not {said!r}.")
        return where(said == said, clamp(said, 0.0, 1.0), 0.0)

    @contextmanager
    def traced(self) -> Iterator[None]:
        """Within it the detector is called with stand-ins for numbers, of which nothing may stay.

        Raises:
            InputError: it changes something that is not in its `memory`, which would be lost.
        """
        if self._object is None or not hasattr(self._object, "__dict__"):
            yield
            return
        attributes = vars(self._object)
        before, memory = self._others(), attributes.get("memory")
        try:
            yield
        finally:
            if memory is not None:
                attributes["memory"] = memory
        if self._others() != before:
            raise InputError(f"detector {self.name} keeps something outside of its `memory`.")

    def _others(self) -> str:
        return repr({name: value for name, value in vars(self._object).items() if name != "memory"})


def bind_all(names: Sequence[str] | Mapping[str, Mapping[str, Any]] | None) -> list[Part]:
    """The detectors of these names, each once.

    Args:
        names: names, or name -> options; None for all that are registered.

    Raises:
        InputError: as `Part`, or a name stands twice, or there is none.
    """
    if names is None:
        names = registry.detector.names()
    if isinstance(names, str) or not names or len(set(names)) < len(names):
        raise InputError(
            f"detectors have to be a list of different names, not {names!r}.",
            hint=f"There are: {', '.join(registry.detector.names())}; null takes all.",
        )
    return [Part(name, options) for name, options in options_by_name("detectors", names).items()]


def options_by_name(key: str, parts: Sequence[str] | Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Parts and their options, in the order given.

    Args:
        key: what they are, for the message.
        parts: names, or name -> options; None for options is none.

    Raises:
        InputError: options are no mapping.
    """
    given = dict(parts) if isinstance(parts, Mapping) else dict.fromkeys(parts, None)
    for name, options in given.items():
        if options is not None and not isinstance(options, Mapping):
            hint = f"Such as {key}={{{name}: {{}}}}."
            raise InputError("must be a mapping of options.", key=f"{key}.{name}", value=options, hint=hint)
    return {name: options or {} for name, options in given.items()}
