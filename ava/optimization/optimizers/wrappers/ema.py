"""An exponential moving average of the weights: often better at the end than the last step's weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ava.errors import InputError
from ava.optimization.options import check
from ava.registry import Decay


class EMA:
    """Averages the parameters of a model; everything else in its state (buffers, integers) is copied.

        average <- d average + (1 - d) parameter,  d = min(decay, (1 + n) / (10 + n)) at update n

    The early updates forget faster, so that the random start does not weigh on a short training.

    Args:
        model: the module whose weights are averaged; of a compiled or data-parallel one, the module inside.
        decay: weight of the past, in [0, 1); 0.999 averages over about 1000 steps.

    Raises:
        InputError: the decay is not allowed.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay: float = check("decay", decay, Decay)
        self.updates = 0
        module = _plain(model)
        self._parameters = {n: p for n, p in module.named_parameters() if p.is_floating_point()}
        rest = [*module.named_parameters(), *module.named_buffers()]
        self._others = {n: t for n, t in rest if n not in self._parameters}
        # 16-bit averages would lose the small steps 1 - decay, so averages are at least float32.
        self._averages = {n: _widened(p.detach()).clone() for n, p in self._parameters.items()}
        self._copies = {n: t.detach().clone() for n, t in self._others.items()}

    @torch.no_grad()
    def update(self, skipped: bool | Tensor = False) -> None:
        """Take the model's current weights in; call after each optimizer step.

        Args:
            skipped: whether the step changed nothing; then the averages do not change either. A 0-dim tensor on an
                accelerator is not waited for: the update is counted in any case there.
        """
        if isinstance(skipped, Tensor) and skipped.device.type == "cpu":
            skipped = bool(skipped.numpy())  # memory of the host, which is there already
        if skipped is True:
            return
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        averages = list(self._averages.values())
        weights = [_widened(p) for p in self._parameters.values()]
        if averages and isinstance(skipped, Tensor):
            share = (1 - decay) * (skipped == 0)
            torch._foreach_lerp_(averages, weights, [share.to(a.device, a.dtype) for a in averages])
        elif averages:
            torch._foreach_lerp_(averages, weights, 1 - decay)
        _copy(self._copies, self._others)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Within it the model has the averaged weights; after it, its own again, bit for bit."""
        own = {n: t.detach().clone() for n, t in {**self._parameters, **self._others}.items()}
        _copy(self._parameters, self._averages)
        _copy(self._others, self._copies)
        try:
            yield
        finally:
            _copy(self._parameters, own)
            _copy(self._others, own)

    def state_dict(self) -> dict[str, Any]:
        """The number of updates, and the averaged model's tensors by name."""
        return {"updates": self.updates, "averages": {**self._averages, **self._copies}}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from a state dict.

        Raises:
            InputError: it holds other names or shapes than the model.
        """
        saved: Mapping[str, Tensor] = state_dict["averages"]
        own = {**self._averages, **self._copies}
        wrong = sorted(
            n for n in saved.keys() | own.keys() if n not in saved or n not in own or saved[n].shape != own[n].shape
        )
        if wrong:
            raise InputError(f"the saved averages do not fit the model; at fault: {', '.join(wrong[:5])}.")
        self.updates = int(state_dict["updates"])
        _copy(own, saved)


def _plain(model: nn.Module) -> nn.Module:
    """The user's module inside torch.compile and DistributedDataParallel, whose names have no prefix."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.parallel.DistributedDataParallel):
            inner = model.module
        if inner is None:
            return model
        model = inner


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype.itemsize < 4 else tensor


@torch.no_grad()
def _copy(targets: Mapping[str, Tensor], sources: Mapping[str, Tensor]) -> None:
    """Copy by name into the targets."""
    if targets:
        torch._foreach_copy_(list(targets.values()), [sources[name] for name in targets])
