"""The weights from before a step: how far it went, taking a part of it back, and undoing what else moved them.

    weights <- before + factor (weights - before),   factor <= 1

Nothing of a training changes weights between two steps. So where their norms are no longer what the last step left,
they were damaged, and the copy from before that step is the newest sound one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

ITERATES = "z"
"""The state of Schedule-Free methods from which, with the parameter, the average follows: both move together."""
_MOST = 1 << 24
"""Elements whose differences are held at a time on an accelerator."""


class KeptWeights:
    """The parameters before a step.

    Args:
        parameters: what steps move.
        state: gives an optimizer's state of a parameter; None where it has no iterates besides the parameters.
    """

    def __init__(
        self, parameters: Sequence[Tensor], state: Callable[[Tensor], Mapping[str, Any]] | None = None
    ) -> None:  # fmt: skip
        self._state = state
        self._parameters = [p.detach() for p in parameters]
        self._owners = list(parameters)
        self._before = [torch.empty_like(p) for p in self._parameters]
        self._iterates: list[Tensor] = []
        self._iterates_before: list[Tensor] = []
        self._left: Tensor | None = None

    @torch.no_grad()
    def keep(self) -> None:
        """Remember the parameters as they stand; call before the optimizer's step."""
        torch._foreach_copy_(self._before, self._parameters)
        if self._state is not None:
            self._iterates = [z for p in self._owners if (z := self._state(p).get(ITERATES)) is not None]
            self._iterates_before = [z.clone() for z in self._iterates]

    @torch.no_grad()
    def length(self) -> Tensor:
        """How far they have moved since `keep`, 0-dim: the Euclidean norm over all of them, on their device."""
        if self._parameters[0].device.type == "cpu":
            pairs = zip(self._parameters, self._before, strict=True)
            return _norm([torch.dist(now, before).double() for now, before in pairs])
        norms = chain.from_iterable(torch._foreach_norm(torch._foreach_sub(a, b)) for a, b in self._chunks())
        return _norm([norm.float() for norm in norms])

    @torch.no_grad()
    def ended(self) -> None:
        """The step is over: nobody may move the parameters before the next one."""
        self._left = self._norms()

    def size(self) -> Tensor | float:
        """The norm of all of them as the last step left them, 0-dim; 0 while there was none."""
        return 0.0 if self._left is None else torch.linalg.vector_norm(self._left)

    def forget(self) -> None:
        """The parameters are put elsewhere on purpose."""
        self._left = None

    @property
    def are_known(self) -> bool:
        """Whether there is a step before this one to compare with."""
        return self._left is not None

    @torch.no_grad()
    def jumped(self) -> Tensor:
        """Whether the parameters are no longer what the last step left, 0-dim bool; a NaN among them counts."""
        now = self._norms()
        if self._left is None:
            return torch.zeros((), dtype=torch.bool, device=now.device)
        return (~((now - self._left).abs() <= 1e-6 * self._left)).any()

    @torch.no_grad()
    def put_back(self, where: Tensor | None = None) -> None:
        """Make them what they were before the last step.

        Args:
            where: 0-dim bool on their device, whether to; None does.
        """
        if where is None:
            torch._foreach_copy_(self._parameters, self._before)
            return
        for now, before in zip(self._parameters, self._before, strict=True):
            now.copy_(torch.where(where, before, now))

    @torch.no_grad()
    def shrink(self, factor: float | Tensor) -> None:
        """Take the step back but for a share of `factor`; a tensor on an accelerator is not waited for."""
        after, before = [*self._parameters, *self._iterates], [*self._before, *self._iterates_before]
        for now, then in zip(after, before, strict=True):
            if not isinstance(factor, Tensor):
                now.copy_(then.lerp(now, factor) if factor > 0 else then)
                continue
            part = then.lerp(now, factor.to(now.device, now.dtype))
            now.copy_(torch.where(factor >= 1, now, torch.where(factor > 0, part, then)))

    def _norms(self) -> Tensor:
        """(N,) of each parameter."""
        return torch.stack([norm.float() for norm in torch._foreach_norm(self._parameters)])

    def _chunks(self) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        """Pairs by and by, so that their differences need not all be held at once."""
        first, size = 0, 0
        for index, one in enumerate(self._parameters):
            size += one.numel()
            if size >= _MOST or index == len(self._parameters) - 1:
                yield self._parameters[first : index + 1], self._before[first : index + 1]
                first, size = index + 1, 0


def _norm(numbers: list[Tensor]) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(torch.stack(numbers))
    return norm
