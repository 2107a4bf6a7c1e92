"""What a model is called with: tensors, or the batches that data loaders give."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ava.errors import InputError

KEY = "calibration_loader"
_FORMS = "Batches are tensors, (inputs, ...), a dict with `inputs`, or a dict of the model's keyword arguments."


@dataclass(frozen=True)
class Inputs:
    """The arguments of one call of a model.

    Attributes:
        args: positional ones.
        kwargs: keyword ones.
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] | None = None

    def call(self, model: nn.Module) -> Any:
        """The model's outputs, with the tensors on its device.

        Raises:
            InputError: the model does not take such arguments.
        """
        device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
        args, kwargs = [_moved(value, device) for value in self.args], self._named(device)
        _check_signature(model, args, kwargs)
        return model(*args, **kwargs)

    @property
    def batch_size(self) -> int | None:
        """Samples in it: the first dimension of the first tensor; None where there is none."""
        values = (*self.args, *(self.kwargs or {}).values())
        return next((len(value) for value in values if isinstance(value, Tensor) and value.ndim), None)

    def resized(self, size: int) -> Inputs:
        """So many samples: the first ones, repeated if there are too few; only of tensors that have a sample each."""
        had = self.batch_size
        assert had, "there are samples to repeat"

        def fitted(value: Any) -> Any:
            if not isinstance(value, Tensor) or not value.ndim or len(value) != had:
                return value
            return value.repeat(-(-size // had), *[1] * (value.ndim - 1))[:size]

        kwargs = {name: fitted(value) for name, value in (self.kwargs or {}).items()}
        return Inputs(tuple(fitted(value) for value in self.args), kwargs)

    def on(self, device: torch.device) -> Inputs:
        """The same with its tensors on a device."""
        return Inputs(tuple(_moved(value, device) for value in self.args), self._named(device))

    def _named(self, device: torch.device) -> dict[str, Any]:
        return {name: _moved(value, device) for name, value in (self.kwargs or {}).items()}


def of_batch(batch: Any) -> Inputs:
    """What a model takes of a loader's batch: the first of a tuple, `inputs` of a dict, or a dict as keyword arguments.

    Raises:
        InputError: the batch is nothing that has inputs.
    """
    if isinstance(batch, Mapping) and "inputs" not in batch and batch:
        return Inputs(kwargs={str(name): value for name, value in batch.items()})
    found = batch
    if isinstance(batch, Mapping):
        found = batch.get("inputs")
    elif isinstance(batch, Sequence) and batch:
        found = batch[0]
    if not isinstance(found, Tensor):
        problem = f"a batch of type {type(batch).__name__} has no input that is a tensor."
        raise InputError(problem, key=KEY, value=type(batch).__name__, hint=_FORMS)
    return Inputs((found,))


def of_example(example: Any) -> Inputs:
    """The call that a user gives as an example: a tensor, a tuple of positional arguments, a dict as `of_batch` has it.

    Raises:
        InputError: it is none of those.
    """
    if isinstance(example, tuple | list) and example:
        return Inputs(tuple(example))
    if isinstance(example, Tensor) or (isinstance(example, Mapping) and example):
        return of_batch(example)
    problem = "an example of inputs is a tensor, a tuple of positional or a dict of keyword arguments."
    raise InputError(problem, key="example_inputs", value=type(example).__name__)


def _moved(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value


def _check_signature(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    try:
        inspect.signature(model.forward).bind(*args, **kwargs)
    except TypeError as error:
        problem = f"the model's forward does not take these inputs: {error}."
        hint = "Give a dict of its keyword arguments, such as {'input_ids': tensor}."
        raise InputError(problem, key="inputs", value=[*map(_kind, args), *kwargs], hint=hint) from None
    except ValueError:
        return  # nothing says what it takes


def _kind(value: Any) -> str:
    return type(value).__name__
