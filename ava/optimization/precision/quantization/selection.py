"""Which layers of a model are quantized: its linear layers, but for those where that would break or gain nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
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
    if layer.in_features == 1:
        return "has 1 input, so that scales would take as much as weights"
    if not layer.weight.is_floating_point() or layer.weight.is_meta:
        return f"has weights of {layer.weight.dtype} on {layer.weight.device}"
    return None


def _why_not_in_groups(layer: nn.Linear, bits: int, group_size: int | None) -> str | None:
    if group_size is not None and layer.in_features % group_size:
        return f"has {layer.in_features} inputs, no multiple of the group of {group_size}"
    if bits == 4 and layer.out_features % _MULTIPLE_OF_OUTPUTS:
        return f"has {layer.out_features} outputs, no multiple of {_MULTIPLE_OF_OUTPUTS}"
    return None


def counted(number: int, noun: str) -> str:
    """1 layer, 2 layers."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def quoted(name: str) -> str:
    """How a layer is called in a sentence."""
    return f"`{name}`" if name else "the model itself"


def other_layers(model: nn.Module) -> str:
    """The layers with weights that are no `nn.Linear`, such as "8 layers of Conv1D"; empty where there are none."""
    kinds = Counter(type(module).__name__ for module in model.modules() if _has_matrix(module))
    return ", ".join(f"{counted(number, 'layer')} of {kind}" for kind, number in kinds.most_common())


def _has_matrix(module: nn.Module) -> bool:
    own = module.parameters(recurse=False)
    return not isinstance(module, nn.Linear | nn.Embedding) and any(parameter.ndim > 1 for parameter in own)


def _nothing(model: nn.Module, bits: int, skipped: dict[str, str]) -> InputError:
    others, why = other_layers(model), []
    if others:
        why.append(f"the model has {others}, and only nn.Linear is quantized")
    if skipped:
        name, reason = min(skipped.items(), key=lambda item: "multiple" not in item[1])
        if len(skipped) == 1:
            why.append(f"its only nn.Linear, {quoted(name)}, {reason}")
        else:
            why.append(f"none of its {len(skipped)} nn.Linear layers fits: {quoted(name)} {reason}")
    problem = f"there is nothing to quantize: {'; '.join(why) or 'the model has no layer with weights for it'}."
    hint = "Leave the model as it is, or build it with nn.Linear."
    if "Conv1D" in others:
        hint = "Put nn.Linear in the place of each Conv1D, with its weight transposed, or leave the model as it is."
    elif bits < 8 and any("multiple" in reason for reason in skipped.values()):
        hint = "Use 8 bits, which fit every width."
    return InputError(problem, hint=hint)


def _linear(model: nn.Module, name: str) -> nn.Linear:
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    return layer
