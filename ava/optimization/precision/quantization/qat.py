"""Quantization-aware training: the forward pass rounds weights as they will be once quantized, gradients pass through.

    y = x round(W)^T,  dL/dW = dL/dround(W)        (the straight-through estimator)

The weights stay floats under their own names, so that optimizers, averages and checkpoints see an ordinary model. With
8 bits the inputs of each layer are rounded too, row by row, as the kernels will round them.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from ava.errors import InputError, nearest
from ava.optimization.precision.quantization.backends import copied, replace_everywhere
from ava.optimization.precision.quantization.scheme import Bits, Scheme
from ava.optimization.precision.quantization.selection import choose_group_size, select
from ava.optimization.precision.torchao import import_torchao, quiet

Weight = Literal["int8", "int4", "int2"]
BITS: dict[str, Bits] = {"int8": 8, "int4": 4, "int2": 2}
KEY = "precision.qat"
_ROUNDS = "weight_fake_quantizer"
"""What torchao's rounding layers have."""


def scheme_of(model: nn.Module, weight: str, group_size: int | None = None) -> Scheme:
    """How a model is rounded in training for these weights, and what it is converted to.

    Args:
        model: before or after `prepare_qat`.
        weight: of `BITS`.
        group_size: of 4 and 2 bits; None takes the one that fits the model's widths.

    Raises:
        InputError: there are no such weights.
    """
    if weight not in BITS:
        problem = f"no training for such weights; there are: {', '.join(BITS)}."
        raise InputError(problem, key=KEY, value=weight, hint=nearest(weight, BITS))
    bits = BITS[weight]
    size = None if bits == 8 else group_size or choose_group_size(without_rounding(model), bits)
    return Scheme(bits, "dynamic" if bits == 8 else "float", size)


def prepare_qat(model: nn.Module, weight: Weight, group_size: int | None = None) -> list[str]:
    """Let a model's linear layers round as if they were quantized, in place. Draws no random numbers.

    Call it before the optimizer is built: the layers are new, their parameters and names are the same.

    Args:
        model: the model.
        weight: int8 rounds weights by row and inputs too; int4 and int2 round weights by group.
        group_size: as in `scheme_of`.

    Returns:
        The names of the layers that round.

    Raises:
        InputError: no layer fits, or torchao is missing.

    Reference: Jacob et al. 2018, https://arxiv.org/abs/1712.05877; Bengio et al. 2013, https://arxiv.org/abs/1308.3432
    """
    scheme = scheme_of(model, weight, group_size)
    try:
        chosen = set(select(model, scheme.bits, scheme.group_size).chosen)
    except InputError as error:
        raise error.at(KEY, weight) from None
    if "" in chosen:
        problem = "the model is itself the layer to replace, which cannot be done in place."
        raise InputError(problem, key=KEY, value=weight, hint="Put it into a module: `nn.Sequential(layer)`.")
    api = import_torchao("torchao.quantization", "quantization-aware training")
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    layers = {name: model.get_submodule(name) for name in chosen}
    with quiet(), torch.random.fork_rng(devices):  # torchao initialises each new layer before it hands it the weights
        api.quantize_(model, _preparation(scheme), filter_fn=lambda _, name: name in chosen)
    for name, before in layers.items():
        assert model.get_submodule(name).weight is before.weight, f"{name} got another parameter"
    replace_everywhere(model, {id(before): model.get_submodule(name) for name, before in layers.items()})
    return [name for name, _ in model.named_modules() if name in chosen]


def without_rounding(model: nn.Module) -> nn.Module:
    """The model as it would be without `prepare_qat`: itself if it is that, else a copy with ordinary layers."""
    if not any(hasattr(module, _ROUNDS) for module in model.modules()):
        return model
    api = import_torchao("torchao.quantization", "quantization-aware training")
    qat = import_torchao("torchao.quantization.qat", "quantization-aware training")
    plain = copied(model)
    layers = {name: module for name, module in plain.named_modules() if hasattr(module, _ROUNDS)}
    with quiet():
        api.quantize_(plain, qat.QATConfig(step="convert"))
    replace_everywhere(plain, {id(before): plain.get_submodule(name) for name, before in layers.items()})
    return plain


def check_prepared(model: nn.Module, bits: int) -> None:
    """Refuse to convert a model that was not trained with the rounding of its conversion.

    Raises:
        InputError: no layer of it rounds, or to other weights.
    """
    quantizers = [getattr(module, _ROUNDS) for module in model.modules() if hasattr(module, _ROUNDS)]
    hint = "Train what `quantize()` or `prepare_qat` made: `prepared = q.quantize()`, train, `q.convert(prepared)`."
    if not quantizers:
        raise InputError("the model was never prepared: none of its layers rounds as it trains.", hint=hint)
    kinds = sorted({str(quantizer.config.dtype).removeprefix("torch.") for quantizer in quantizers})
    if kinds != [f"int{bits}"]:
        raise InputError(f"the model was prepared for {', '.join(kinds)}, not for int{bits}.", hint=hint)


def _preparation(scheme: Scheme) -> Any:
    qat = import_torchao("torchao.quantization.qat", "quantization-aware training")
    domains = import_torchao("torchao.quantization.quant_primitives", "quantization-aware training").ZeroPointDomain
    fake = qat.IntxFakeQuantizeConfig
    if scheme.group_size is None:
        inputs, weights = fake(torch.int8, "per_token", is_symmetric=False), fake(torch.int8, "per_channel")
        return qat.QATConfig(activation_config=inputs, weight_config=weights, step="prepare")
    weights = fake(
        getattr(torch, f"int{scheme.bits}"), group_size=scheme.group_size, is_symmetric=False,
        scale_precision=torch.bfloat16, zero_point_precision=torch.bfloat16, zero_point_domain=domains.FLOAT,
    )  # fmt: skip
    return qat.QATConfig(weight_config=weights, step="prepare")
