"""AutoClip: the threshold is a percentile of the norms seen so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from annotated_types import Gt, Le
from torch import Tensor

from ava.optimization.gradients.clip.limit import limit
from ava.optimization.gradients.clip.memory import Memory, on_device_of, take_up
from ava.optimization.gradients.health.measurement import Measurement
from ava.registry import PositiveInt, clip


@clip
class Percentile:
    """Percentile (AutoClip): all gradients scaled together to at most a percentile of the norms seen so far.

        h <- h with ||g||
        g <- g * min(1, percentile(h, clip_norm) / ||g||)

    The percentile lies between two norms as in `numpy.percentile`. A norm that is not finite is not remembered.

    Args:
        clip_norm: the percentile. The paper's 10 clips 90 % of the steps: it is a normalisation more than a guard.
        history: how many norms are remembered, the last ones. The paper remembers all.

    Reference: Seetharaman et al. 2020, https://arxiv.org/abs/2007.14469
    """

    def __init__(self, /, clip_norm: Annotated[float, Gt(0), Le(100)] = 10.0, history: PositiveInt = 1000) -> None:
        self.share = clip_norm / 100
        self.memory: Memory = {"norms": torch.full((history,), torch.inf), "seen": torch.tensor(0)}

    def __call__(self, measured: Measurement, /) -> Tensor:
        """Remember the norm and give the factor, 0-dim, on the gradients' device; not read here."""
        self.memory = _remember(on_device_of(self.memory, measured.norm), measured.norm)
        return limit(measured.norm, _percentile(self.memory, self.share))

    def state_dict(self) -> dict[str, Any]:
        """The norms remembered, and how many were seen."""
        return dict(self.memory)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` gave.

        Raises:
            InputError: it remembers another number of norms, or is no such state.
        """
        self.memory = take_up(self.memory, state)


def _remember(memory: Memory, norm: Tensor) -> Memory:
    """The memory with the norm in the place of the oldest; unchanged where it is not finite."""
    norms, seen = memory["norms"], memory["seen"]
    number = norm.to(norms.dtype)
    is_usable = torch.isfinite(number)
    is_next = torch.arange(len(norms), device=norms.device) == seen % len(norms)
    return {"norms": torch.where(is_next & is_usable, number, norms), "seen": seen + is_usable}


def _percentile(memory: Memory, share: float) -> Tensor:
    """The norm below which a share of those remembered lies, 0-dim; infinite where there are none.

    Places that hold no norm yet are infinite, so they come last when sorted.
    """
    last = (memory["seen"].clamp(max=len(memory["norms"])) - 1).clamp(min=0)
    rank = last * share
    below = rank.floor().long()
    either_side = torch.stack((below, torch.minimum(below + 1, last)))
    low, high = memory["norms"].sort().values.gather(0, either_side).unbind()
    return torch.where(low < high, low + (high - low) * (rank - below), low)
