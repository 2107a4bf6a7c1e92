"""Batches remembered from one step to the next, so that a step costs little where nothing but the gradients is new.

Whoever changes something (adds a parameter, loads or edits state, moves an option that chooses stages) is noticed by
identity or by the state's own count of changes, and the batches are made anew.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import compress, repeat
from operator import attrgetter, is_, is_not
from typing import Any

import torch
from torch import Tensor

from ava.optimization.optimizers.batches import Grammar, batches, common_values
from ava.optimization.optimizers.engines.batch import Batch
from ava.optimization.optimizers.watched import States

Scalars = Callable[[torch.device], tuple[Tensor | None, Tensor | None]]

_GRADIENT = attrgetter("grad")


class Roster:
    """One optimizer's batches, by param group."""

    def __init__(self) -> None:
        self._held: dict[int, _Held] = {}

    def batches(
        self, grammar: Grammar, group: dict[str, Any], state: States,
        numbers: dict[Tensor, int], scalars: Scalars,
    ) -> list[Batch]:  # fmt: skip
        """The batches of a group in this step; the arguments are those of `batches`."""
        parameters, gradients = _with_gradients(group["params"])
        held = self._held.get(id(group))
        if held is None or not held.goes_on(grammar, group, state, parameters):
            pairs = list(zip(parameters, gradients, strict=True))
            made = list(batches(grammar, group, state, numbers, scalars, pairs))
            self._held[id(group)] = held = _Held(grammar, group, state, parameters, made)
        else:
            held.refresh(gradients, scalars)
        return held.batches


def _with_gradients(parameters: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The parameters that have a gradient, and their gradients."""
    gradients = list(map(_GRADIENT, parameters))
    has = list(map(is_not, gradients, repeat(None)))
    return (parameters, gradients) if all(has) else (list(compress(parameters, has)), list(compress(gradients, has)))


def _storage(group: dict[str, Any]) -> tuple[Any, ...]:
    """The options that no stage speaks of, but what is stored depends on."""
    return group["state"], group["stochastic_rounding"]


class _Held:
    """The batches of one group as of some step, and what they depend on."""

    def __init__(
        self, grammar: Grammar, group: dict[str, Any], state: States,
        parameters: list[Tensor], made: list[Batch],
    ) -> None:  # fmt: skip
        self.group, self.state, self.batches = group, state, made
        self.sentences, self.storage = grammar.sentences(group), _storage(group)
        self.parameters = list(parameters)
        self.epoch = state.epoch.count
        place = {id(p): index for index, p in enumerate(self.parameters)}
        self.places = [[place[id(p)] for p in batch.parameters] for batch in made]

    def goes_on(
        self, grammar: Grammar, group: dict[str, Any], state: States,
        parameters: list[Tensor],
    ) -> bool:  # fmt: skip
        """Whether nothing has changed but gradients and numbers."""
        return (
            group is self.group
            and state is self.state
            and len(parameters) == len(self.parameters)
            and all(map(is_, parameters, self.parameters))
            and grammar.sentences(group) == self.sentences
            and _storage(group) == self.storage
            and state.epoch.count == self.epoch
        )

    def refresh(self, gradients: list[Tensor], scalars: Scalars) -> None:
        """Put this step's gradients and numbers in."""
        for batch, places in zip(self.batches, self.places, strict=True):
            batch.gradients = gradients if len(self.batches) == 1 else [gradients[i] for i in places]
            batch.common = common_values(batch.sentence, self.group, batch.parameters[0].device)
            batch.grad_scale, batch.skip = scalars(batch.parameters[0].device)
