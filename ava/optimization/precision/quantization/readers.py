"""Linear layers whose weight or bias the model reads itself, past the layer: quantized, they have none to read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


class _Watched(nn.Linear):
    """Notes in `outside` whether its tensors are read while it does not run itself."""

    def forward(self, input: Tensor) -> Tensor:
        self.__dict__["runs"] = True
        try:
            return super().forward(input)
        finally:
            self.__dict__["runs"] = False

    def __getattr__(self, name: str) -> Any:  # where a module looks for its parameters
        if name in ("weight", "bias") and not self.__dict__.get("runs", False):
            self.__dict__["outside"] = True
        return super().__getattr__(name)


def read_outside(model: nn.Module, layers: Sequence[str], call: Callable[[], object]) -> list[str]:
    """The layers whose tensors are read by others in a call.

    Args:
        model: the model; as it was afterwards.
        layers: names of its linear layers.
        call: calls the model.
    """
    with _watched([model.get_submodule(name) for name in layers]):
        call()
        return [name for name in layers if model.get_submodule(name).__dict__.get("outside", False)]


@contextmanager
def _watched(layers: Sequence[nn.Module]) -> Iterator[None]:
    kinds = [type(layer) for layer in layers]
    for layer in layers:
        layer.__class__ = _Watched
    try:
        yield
    finally:
        for layer, kind in zip(layers, kinds, strict=True):
            layer.__class__ = kind
            layer.__dict__.pop("outside", None)
            layer.__dict__.pop("runs", None)
