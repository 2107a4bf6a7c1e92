"""torchao's float8 linear layers: each scale from the tensor itself, at the time of its cast.

`tensorwise` has one scale for a tensor and is the fastest; `rowwise` has one for each row, which an outlier then has to
itself; `rowwise_with_gw_hp` computes the weight's gradient in bf16 besides and is the most accurate. The number of rows
of an input is padded with zeros to a multiple of 16, which changes no product.

Reference: https://github.com/pytorch/ao/tree/main/torchao/float8
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ava.errors import InputError
from ava.optimization.precision.float8.formats import Casts, Operand, dtype
from ava.optimization.precision.float8.hardware import as_autocast, on_aligned_rows
from ava.optimization.precision.torchao import import_torchao

if TYPE_CHECKING:
    from torchao.float8 import CastConfig, Float8LinearConfig


def convert(
    model: nn.Module, layers: list[str], recipe: str, casts: Casts, device: torch.device, *, emulate: bool,
    float8_all_gather: bool = False,
) -> None:  # fmt: skip
    """Replace the layers in place by torchao's; their parameters stay the same objects, but with `float8_all_gather`.

    Args:
        model: holds the layers.
        layers: their names.
        recipe: tensorwise, rowwise or rowwise_with_gw_hp.
        casts: the type of each operand.
        device: where they compute.
        emulate: multiply in float32 what was cast to 8 bits.
        float8_all_gather: under FSDP2 ranks exchange the weights in 8 bits.

    Raises:
        InputError: torchao is missing.
    """
    try:
        convert_to_float8_training = import_torchao("torchao.float8", "this recipe").convert_to_float8_training
    except InputError as error:
        raise error.at("precision.recipe", recipe) from error

    config = configuration(recipe, casts, device, emulate, float8_all_gather)
    chosen = set(layers)
    convert_to_float8_training(model, module_filter_fn=lambda module, name: name in chosen, config=config)
    for name in layers:
        layer = model.get_submodule(name)
        layer.forward = functools.partial(_aligned, layer.forward)


def configuration(
    recipe: str, casts: Casts, device: torch.device, emulate: bool, float8_all_gather: bool = False
) -> Float8LinearConfig:  # fmt: skip
    """Torchao's configuration; every operand has a cast of its own, since torchao writes into a shared one."""
    from torchao.float8 import CastConfig, Float8LinearConfig, ScalingGranularity, ScalingType

    by_row, whole = ScalingGranularity.AXISWISE, ScalingGranularity.TENSORWISE

    def cast(operand: Operand, granularity: ScalingGranularity, as_elsewhere: Operand) -> CastConfig:
        if operand == "none":
            # torchao wants to read the type of the operand's other product here.
            return CastConfig(scaling_type=ScalingType.DISABLED, target_dtype=dtype(as_elsewhere, device))
        return CastConfig(scaling_granularity=granularity, target_dtype=dtype(operand, device))

    kind = whole if recipe == "tensorwise" else by_row
    # A weight that is scaled by rows for the output would have to be scaled by columns for the input's gradient.
    backward = whole if recipe == "rowwise_with_gw_hp" else kind
    return Float8LinearConfig(
        cast_config_input=cast(casts.input, kind, casts.input),
        cast_config_input_for_grad_weight=cast(casts.input_again, kind, casts.input),
        cast_config_weight=cast(casts.weight, kind, casts.weight),
        cast_config_weight_for_grad_input=cast(casts.weight, backward, casts.weight),
        cast_config_grad_output=cast(casts.grad, kind, casts.grad),
        cast_config_grad_output_for_grad_weight=cast(casts.grad_again, kind, casts.grad),
        enable_fsdp_float8_all_gather=float8_all_gather,
        emulate=emulate,
        round_scales_to_power_of_2=recipe != "tensorwise",
    )


def renew_gathered_scales(model: nn.Module) -> None:
    """After an optimizer step, with `float8_all_gather`: the scales of all sharded weights in one exchange."""
    from torchao.float8 import precompute_float8_dynamic_scale_for_fsdp

    precompute_float8_dynamic_scale_for_fsdp(model)


def _aligned(forward: Callable[[Tensor], Tensor], input: Tensor) -> Tensor:
    """A layer's forward pass on rows and in the type it needs; torchao's own padding copies, needed or not."""
    # torchao asks CUDA's autocast alone.
    return on_aligned_rows(forward, as_autocast(input))
