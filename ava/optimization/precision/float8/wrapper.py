"""A model with FP8 layers that answers to the names of the model it wraps."""

from __future__ import annotations

import copy as copying
from collections.abc import Iterator
from typing import Any

from torch import nn

from ava.optimization.precision.float8.handler import FP8Handler


class FP8ModelWrapper(nn.Module):
    """Convert a model's linear layers as the handler says, and call it as before.

    The wrapper shares the tables of the model's parameters, buffers and children: the names of parameters and the state
    dict are the model's own, and load into a model that was never wrapped. Attributes are looked up in the model too,
    and set there where it has them. A copy, or what comes out of a pickle, has a handler of its own, `fp8_handler`.

    Args:
        model: its layers are converted in place, unless `copy`.
        fp8_handler: which layers, and how; disabled it leaves the model alone.
        copy: convert a copy and leave `model` as it is.

    Raises:
        InputError: the handler's device has no hardware for FP8, or no layer can be converted.
    """

    def __init__(self, model: nn.Module, fp8_handler: FP8Handler, copy: bool = False) -> None:
        super().__init__()
        model = copying.deepcopy(model) if copy else model
        fp8_handler.prepare(model)
        # Past nn.Module's registration: as a child the model would put its own name before all others.
        vars(self).update(wrapped=model, fp8_handler=fp8_handler, training=model.training)
        for table in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set"):
            vars(self)[table] = vars(model)[table]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the model makes of the arguments."""
        return self.wrapped(*args, **kwargs)

    def train(self, mode: bool = True) -> FP8ModelWrapper:
        """Switch the model between training and evaluation."""
        self.wrapped.train(mode)
        self.training = mode
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The model's state, under its own names."""
        return self.wrapped.state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Load the state of the model, wrapped or not."""
        return self.wrapped.load_state_dict(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "wrapped" not in vars(self):
                raise
            return getattr(vars(self)["wrapped"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        wrapped = vars(self).get("wrapped")
        own = name in vars(self) or hasattr(type(self), name)
        if wrapped is None or own or not hasattr(wrapped, name):
            super().__setattr__(name, value)
        else:
            setattr(wrapped, name, value)

    def __getitem__(self, key: Any) -> Any:
        return self.wrapped[key]

    def __len__(self) -> int:
        return len(self.wrapped)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.wrapped)

    def __bool__(self) -> bool:
        # Without this one a model without a length would have no truth value, for `__len__` fails.
        return bool(self.wrapped)
