"""Which layers of a model are quantized: its linear layers, but for those where that would break or gain nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from ava.errors import InputError

GROUP_SIZES = (128, 64, 32)
"""What kernels for 4 bits take; the larger ones store fewer scales."""
_MULTIPLE_OF_OUTPUTS = 16
"""What kernels for 4 bits want of a layer's outputs."""


@dataclass(frozen=True)
class Selection:
    """The layers of a model, by name.

    Attributes:
        chosen: linear layers to quantize.
        skipped: other linear layers -> why they stay as they are.
        share: of the model's parameters, those in the weights of `chosen`; from 0 to 1.
    """

    chosen: tuple[str, ...]
    skipped: dict[str, str]
    share: float

    def without(self, model: nn.Module, names: Sequence[str], reason: str) -> Selection:
        """The same, but for some layers that stay as they are.

        Raises:
            InputError: none would be left.
        """
        left = tuple(name for name in self.chosen if name not in names)
        skipped = self.skipped | dict.fromkeys(names, reason)
        if not left:
            raise _nothing(model, 8, skipped)
        weights = {name: _linear(model, name).weight.numel() for name in self.chosen}
        share = self.share * sum(weights[name] for name in left) / sum(weights.values())
        return Selection(left, skipped, share)


def select(model: nn.Module, bits: int, group_size: int | None) -> Selection:
    """Choose the layers.

    Args:
        model: the model.
        bits: of each weight.
        group_size: None where a whole row shares a scale.

    Raises:
        InputError: none can be quantized; says why for those that come nearest.
    """
    chosen: list[str] = []
    skipped: dict[str, str] = {}
    owners = _owners(model)
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear):
            reason = _why_not(layer, owners) or _why_not_in_groups(layer, bits, group_size)
            if reason is None:
                chosen.append(name)
            else:
                skipped[name] = reason
    if not chosen:
        raise _nothing(model, bits, skipped)
    total = sum(parameter.numel() for parameter in model.parameters())
    weights = sum(_linear(model, name).weight.numel() for name in chosen)
    return Selection(tuple(chosen), skipped, weights / total)


def choose_group_size(model: nn.Module, bits: int) -> int | None:
    """How many weights share a scale: for 8 bits a row; for 4 bits the largest group that fits every layer, for its
    size; for 2 bits the smallest, for its error.

    Returns:
        One of `GROUP_SIZES`, or None for rows.
    """
    if bits == 8:
        return None
    owners = _owners(model)
    widths = [
        layer.in_features
        for layer in model.modules()
        if isinstance(layer, nn.Linear) and _why_not(layer, owners) is None
    ]
    fitting = [size for size in GROUP_SIZES if all(width % size == 0 for width in widths)]
    return fitting[0] if fitting and bits == 4 else GROUP_SIZES[-1]


def _owners(model: nn.Module) -> Counter[int]:
    """How many modules hold each parameter."""
    return Counter(id(p) for module in model.modules() for p in module.parameters(recurse=False))


def _why_not(layer: nn.Linear, owners: Counter[int]) -> str | None:
    """Why a layer stays as it is whatever the bits, if it does."""
    if type(layer) is not nn.Linear:
        return f"is a {type(layer).__name__}, whose forward may be another than a linear layer's"
    if owners[id(layer.weight)] > 1:
        return "shares its weight with another module, which has to keep it"
    if layer._forward_hooks or layer._forward_pre_hooks:
        return "has hooks, which would be lost"
    if not layer.weight.is_floating_point() or layer.weight.is_meta:
        return f"has weights of {layer.weight.dtype} on {layer.weight.device}"
    return None


def _why_not_in_groups(layer: nn.Linear, bits: int, group_size: int | None) -> str | None:
    if group_size is not None and layer.in_features % group_size:
        return f"has {layer.in_features} inputs, no multiple of the group of {group_size}"
    if bits == 4 and layer.out_features % _MULTIPLE_OF_OUTPUTS:
        return f"has {layer.out_features} outputs, no multiple of {_MULTIPLE_OF_OUTPUTS}"
    return None


def _nothing(model: nn.Module, bits: int, skipped: dict[str, str]) -> InputError:
    if not skipped:
        kinds = ", ".join(sorted(set(_kinds(model)))) or "none"
        problem = f"there is nothing to quantize: the model has no linear layer (its layers with weights: {kinds})."
        return InputError(problem, hint="Convolutions and embeddings are left as they are; export it as it is.")
    name, reason = next(iter(skipped.items()))
    problem = f"there is nothing to quantize: no linear layer of {len(skipped)} fits; {name or 'the model'} {reason}."
    fits_in_rows = bits < 8 and any("multiple" in why for why in skipped.values())
    return InputError(problem, hint="Use 8 bits, which fit every width." if fits_in_rows else None)


def _kinds(model: nn.Module) -> Iterator[str]:
    return (type(m).__name__ for m in model.modules() if next(m.parameters(recurse=False), None) is not None)


def _linear(model: nn.Module, name: str) -> nn.Linear:
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    return layer
