"""A clip by name, for a training loop of one's own.

    clip = get_clip("zscore", clip_norm=2.5)
    ...
    loss.backward()
    norm = clip(model.parameters())
    optimizer.step()

A clip itself only decides: it gets what one pass over the gradients found and answers with a factor, which a trainer
can hand to its optimizer. Here it is carried out at once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from ava import registry
from ava.errors import InputError
from ava.optimization.gradients.health.measure import measure
from ava.optimization.gradients.health.measurement import Measurement
from ava.optimization.gradients.health.scale import scale_
from ava.optimization.options import check_all

Clip = Callable[[Measurement], Tensor | None]
"""Decides: the factor for all gradients, 0-dim, at most 1; None where they are left alone or were changed in place."""


def bind(name: str, **options: Any) -> Clip:
    """A registered clip with its options; one that remembers is an object of its own.

    Args:
        name: one of `list_clips()`.
        options: the clip's own.

    Raises:
        InputError: no clip has the name, or it has no such option, or the value is not allowed.
    """
    entry = registry.clip[name]
    checked = check_all(f"clip {name}", options, {key: kind for key, (kind, _) in entry.parameters.items()})
    builder = entry.load()
    if inspect.isclass(builder):
        return cast(Clip, builder(**checked))
    return lambda measured: builder(measured, **checked)


class Clipping:
    """A clip that measures the gradients and changes them in place.

    Args:
        name: one of `list_clips()`.
        options: the clip's own, such as `clip_norm`.

    Raises:
        InputError: no clip has the name, or it has no such option, or the value is not allowed.
    """

    def __init__(self, name: str, **options: Any) -> None:
        self.name, self.options = name, options
        self.clip = bind(name, **options)

    def __call__(self, parameters: Iterable[Tensor] | nn.Module, **options: Any) -> Tensor:
        """Clip the gradients.

        Args:
            parameters: of a model, or the model; those that have a gradient are measured and clipped.
            options: in place of those it was made with; only where it remembers nothing.

        Returns:
            The norm before clipping, 0-dim, on the gradients' device; not read here.

        Raises:
            InputError: the options cannot be, or come too late.
        """
        clip = self._with(options) if options else self.clip
        measured = measure(parameters.parameters() if isinstance(parameters, nn.Module) else parameters)
        factor = clip(measured)
        if factor is not None:
            scale_(measured, factor)
        return _as_given(measured)

    def state_dict(self) -> dict[str, Any]:
        """What the clip remembers, as tensors; empty where it remembers nothing."""
        return dict(cast(Any, self.clip).state_dict()) if self._remembers else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave.

        Raises:
            InputError: it is not the state of such a clip.
        """
        if self._remembers:
            cast(Any, self.clip).load_state_dict(state)
        elif state:
            raise InputError(f"clip {self.name} remembers nothing, but the saved state has {', '.join(state)}.")

    @property
    def _remembers(self) -> bool:
        return hasattr(self.clip, "state_dict")

    def _with(self, options: dict[str, Any]) -> Clip:
        if self._remembers:
            given = ", ".join(f"{key}={value!r}" for key, value in options.items())
            problem = f"clip {self.name} remembers the steps before, so its options are given once."
            raise InputError(problem, hint=f"Write `clip = get_clip({self.name!r}, {given})`, then `clip(parameters)`.")
        return bind(self.name, **{**self.options, **options})


def _as_given(measured: Measurement) -> Tensor:
    """The norm in the type that torch would give it: float32, unless a gradient is float64."""
    if any(gradient.dtype is torch.float64 for gradient in measured.gradients):
        return measured.norm
    largest = torch.finfo(torch.float32).max
    return torch.where(measured.norm.isfinite(), measured.norm.clamp(max=largest), measured.norm).float()
