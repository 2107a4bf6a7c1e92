"""What `ModelQuantizer` can be asked for; everything else is refused before any work."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from ava.errors import InputError, nearest
from ava.optimization.precision.quantization.backends import CHOICES
from ava.optimization.precision.quantization.inputs import KEY, of_example
from ava.optimization.precision.quantization.qat import BITS
from ava.optimization.precision.quantization.selection import GROUP_SIZES

TYPES = ("dynamic", "static", "qat")


def check_model(model: object, evaluate: object, example_inputs: Any) -> None:
    """Refuse what is no model, no function of one, or no call of one.

    Raises:
        InputError: so it is.
    """
    if not isinstance(model, nn.Module):
        raise InputError("a torch.nn.Module is needed.", key="model", value=type(model).__name__)
    if evaluate is not None and not callable(evaluate):
        raise InputError("a function of a model is needed.", key="evaluate", value=type(evaluate).__name__)
    if example_inputs is not None:
        of_example(example_inputs)


def check_scheme(quantization_type: object, bits: object, group_size: object, backend: object) -> None:
    """Refuse what cannot be rounded like that.

    Raises:
        InputError: so it is; says what is allowed.
    """
    _check_choice("quantization_type", quantization_type, TYPES)
    _check_choice("backend", backend, CHOICES)
    if type(bits) is not int or bits not in BITS.values():
        raise InputError("weights can have 8, 4 or 2 bits.", key="bits", value=bits)
    if group_size is not None and (bits == 8 or group_size not in GROUP_SIZES):
        problem = f"groups are of {', '.join(map(str, GROUP_SIZES))}, for 4 or 2 bits; with 8 a row has one scale."
        raise InputError(problem, key="group_size", value=group_size)
    if quantization_type == "static" and bits != 8:
        problem = "static rounds inputs to 8 bits beside weights of 8; with fewer, only weights are rounded."
        raise InputError(problem, key="bits", value=bits, hint="Use quantization_type='dynamic', or bits=8.")


def check_calibration(quantization_type: str, loader: object, most: object) -> None:
    """Refuse what inputs cannot be looked at in.

    Raises:
        InputError: so it is.
    """
    if quantization_type == "static" and loader is None:
        problem = "static quantization needs data to find the range of each layer's inputs."
        hint = "Give batches of training data, or use quantization_type='dynamic', which needs none."
        raise InputError(problem, key=KEY, value=None, hint=hint)
    if loader is not None and not isinstance(loader, Iterable):
        raise InputError("an iterable of batches is needed, such as a DataLoader.", key=KEY, value=loader)
    if type(most) is not int or most < 1:
        raise InputError("a whole number of batches is needed, at least 1.", key="calibration_batches", value=most)


def _check_choice(key: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(f"there are: {', '.join(known)}.", key=key, value=value, hint=nearest(str(value), known))
