"""Torch's encoder layer evaluates in one fused kernel, which reads the weights past its layers' own forward passes."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn


def forbid_fused_encoders(model: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    """Make encoder layers that hold one of `layers` call it, in evaluation too.

    Args:
        model: its `nn.TransformerEncoderLayer` and `nn.TransformerEncoder` are looked at, and changed in place.
        layers: name -> what computes in another way than with its weight in floats.

    Reference: https://docs.pytorch.org/docs/stable/generated/torch.nn.TransformerEncoderLayer.html
    """
    own = {id(layer) for layer in layers.values()}
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer) and own & {id(child) for child in module.children()}:
            module.activation_relu_or_gelu = 0  # what torch asks before it takes that kernel
        elif isinstance(module, nn.TransformerEncoder) and own & {id(inner) for inner in module.modules()}:
            module.use_nested_tensor = False  # where there is padding, it reads the first layer's weights to decide
