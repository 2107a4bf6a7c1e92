"""Which implementation runs a quantized layer on which device, behind one switch.

    backend    what it is                                       where
    torch.ao   the kernels of torch.ao's quantize_dynamic       8 bits on x86 processors; the fastest there
    torchao    torchao's tensors                                8 bits anywhere; 4 bits on CPU and CUDA
    torch      floats made of the integers in each call         2 bits anywhere

`auto` takes the fastest that the device has, and the report says which.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Literal

import torch
from torch import nn

from ava.errors import InputError, nearest
from ava.optimization.precision.fused_encoders import forbid_fused_encoders
from ava.optimization.precision.quantization import int8_cpu
from ava.optimization.precision.quantization.arithmetic import Plain
from ava.optimization.precision.quantization.dequantizing_linear import DequantizingLinear
from ava.optimization.precision.quantization.scheme import Scheme
from ava.optimization.precision.quantization.torchao_linear import TensorLinear, int4_linear, int8_linear

Backend = Literal["torch.ao", "torchao", "torch"]
CHOICES = ("auto", "torch.ao", "torchao")


def choose_backend(asked: str, scheme: Scheme, device: torch.device) -> Backend:
    """The implementation to use.

    Args:
        asked: of `CHOICES`; auto takes the fastest that is here.
        scheme: what is to run.
        device: where.

    Raises:
        InputError: no backend is called that, or it does not run that.
    """
    if asked not in CHOICES:
        problem = f"no backend is called that; there are: {', '.join(CHOICES)}."
        raise InputError(problem, key="backend", value=asked, hint=nearest(asked, CHOICES))
    runs_ao = scheme.bits == 8 and device.type == "cpu" and int8_cpu.is_available(scheme.activations)
    if asked == "torch.ao" and not runs_ao:
        problem = f"it does not run {scheme} on {device.type} here; it runs 8 bits on x86 processors."
        raise InputError(problem, key="backend", value=asked, hint="Use `auto`.")
    if scheme.bits == 2:
        if asked != "auto":
            problem = "it has no kernel for 2 bits, which are computed by making floats of them."
            raise InputError(problem, key="backend", value=asked, hint="Use `auto`.")
        return "torch"
    return "torch.ao" if runs_ao and asked != "torchao" else "torchao"


def build_layer(plain: Plain, scheme: Scheme, backend: Backend, device: torch.device) -> nn.Module:
    """A layer that computes from the plain tensors of a quantized one.

    Raises:
        InputError: something for it is missing on this machine.
    """
    if scheme.bits == 2:
        return DequantizingLinear({name: tensor.to(device) for name, tensor in plain.items()}, 2)
    if scheme.bits == 4:
        return int4_linear(plain, device)
    return int8_cpu.Int8CPULinear(plain) if backend == "torch.ao" else int8_linear(plain, device)


def check_floats(model: nn.Module) -> None:
    """Refuse a model that `build_layer` has layers in.

    Raises:
        InputError: so it is.
    """
    kinds = (DequantizingLinear, int8_cpu.Int8CPULinear, TensorLinear)
    if any(isinstance(module, kinds) for module in model.modules()):
        hint = "Quantize the model with float weights, each time anew; with inplace=True it is used up."
        raise InputError("the model is quantized already.", hint=hint)


def copied(model: nn.Module, instead: Mapping[int, object] | None = None) -> nn.Module:
    """A deep copy.

    Args:
        model: the model.
        instead: `id` of a part -> what stands in its place.

    Raises:
        InputError: the model holds what cannot be copied.
    """
    try:
        return copy.deepcopy(model, dict(instead or {}))
    except (RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())[:150]
        problem = f"the model cannot be copied, since it holds more than parameters and buffers ({reason})."
        hint = (
            "Where layers are pruned or normalised by hooks, make their weights parameters again first: "
            "torch.nn.utils.prune.remove(layer, 'weight'), torch.nn.utils.remove_weight_norm(layer)."
        )
        raise InputError(problem, hint=hint) from error


def with_layers(model: nn.Module, layers: Mapping[str, nn.Module]) -> nn.Module:
    """A copy of a model with other layers in the place of some. The model is not touched, nor are those copied.

    Args:
        model: the model.
        layers: name of one of its modules -> what stands in the copy wherever that module stood.
    """
    made = copied(model, {id(model.get_submodule(name)): layer for name, layer in layers.items()})
    forbid_fused_encoders(made, layers)
    return made


def put_layers(model: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    """The same in the model itself.

    Raises:
        InputError: a layer is the model itself, whose place only its owner can fill.
    """
    if "" in layers:
        raise InputError("the model is itself the layer to replace, which cannot be done in place.", key="inplace",
                         value=True, hint="Take what `quantize()` returns, with inplace=False.")  # fmt: skip
    replace_everywhere(model, {id(model.get_submodule(name)): layer for name, layer in layers.items()})
    forbid_fused_encoders(model, layers)


def replace_everywhere(model: nn.Module, by_identity: Mapping[int, nn.Module]) -> None:
    """Put modules wherever in a model others stand, which may be under several names.

    Args:
        model: changed.
        by_identity: `id` of a module -> what takes its place.
    """
    for module in list(model.modules()):
        for name, child in list(module._modules.items()):
            if id(child) in by_identity:
                module._modules[name] = by_identity[id(child)]
