"""Which linear layers compute in 8-bit floats, and why the others do not.

Casting costs a pass over each operand, which only a large product earns back; a product's sizes have to be multiples
of 16; and the layer that makes the logits decides the loss with its own rounding, so it stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import nn

from ava.errors import InputError, nearest
from ava.optimization.precision.float8.hardware import MULTIPLE

_HEADS = {"head", "heads", "lm_head", "output", "output_layer", "classifier", "logits", "unembedding"}
_WIDE = (torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Selection:
    """Every linear layer of a model, once.

    Attributes:
        converted: names of the layers to convert.
        skipped: name -> why it stays as it is.
    """

    converted: list[str]
    skipped: dict[str, str]


def select(
    model: nn.Module, recipe: str, *, include: tuple[str, ...] = (), exclude: tuple[str, ...] = (),
    emulate: bool = False,
) -> Selection:  # fmt: skip
    """Choose the layers.

    Args:
        model: its `nn.Linear` layers are looked at.
        recipe: its scales decide from which size on a layer gains.
        include: globs of layers to convert though they are small or heads.
        exclude: globs of layers to leave; stronger than `include`.
        emulate: nothing is gained at any size, so size does not count.

    Raises:
        InputError: a glob matches no linear layer, a layer asked for cannot be converted, or nothing is left.
    """
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    _check_globs("precision.include", include, linears)
    _check_globs("precision.exclude", exclude, linears)
    heads, impossible = _heads(model, linears), _impossible(model, linears)
    converted, skipped = [], {}
    for name, linear in linears.items():
        if _matches(name, exclude):
            skipped[name] = "excluded"
        elif name in impossible:
            if _matches(name, include):
                problem = f"{_called(name)} cannot be converted: it {impossible[name]}."
                raise InputError(problem, key="precision.include", value=", ".join(include), hint="Leave it out.")
            skipped[name] = impossible[name]
        elif _matches(name, include):
            converted.append(name)
        elif (reason := heads.get(name) or (None if emulate else too_small(linear, recipe))) is not None:
            skipped[name] = reason
        else:
            converted.append(name)
    if not converted:
        raise _nothing(model, skipped, impossible)
    return Selection(converted, skipped)


def too_small(linear: nn.Linear, recipe: str) -> str | None:
    """Why the layer would lose time: torchao's measurements on an H100. N outputs, K inputs.

    Reference: https://github.com/pytorch/ao/tree/main/torchao/float8#performance
    """
    n, k = linear.out_features, linear.in_features
    if recipe.startswith("rowwise"):
        small = n <= 2048 or k <= 1024 or (n <= 4096 and k <= 2048)
    else:
        small = k <= 4096 and n <= 1024
    return f"is too small to gain ({n} x {k})" if small else None


def _impossible(model: nn.Module, linears: dict[str, nn.Linear]) -> dict[str, str]:
    """Layers that no option can convert, with the reason."""
    reasons = {}
    used_directly = {
        id(part) for module in model.modules() if isinstance(module, nn.MultiheadAttention) for part in module.modules()
    }
    for name, linear in linears.items():
        n, k = linear.out_features, linear.in_features
        if id(linear) in used_directly:
            reasons[name] = "belongs to nn.MultiheadAttention, which multiplies with its weight itself"
        elif type(linear) is not nn.Linear:
            reasons[name] = f"is a {type(linear).__name__}, whose forward pass is its own"
        elif linear is model:
            reasons[name] = "is the whole model"
        elif n % MULTIPLE or k % MULTIPLE:
            reasons[name] = f"has sizes that are not multiples of {MULTIPLE} ({n} x {k})"
        elif linear.weight.dtype not in _WIDE:
            reasons[name] = f"has weights in {str(linear.weight.dtype).removeprefix('torch.')}"
    return reasons


def _heads(model: nn.Module, linears: dict[str, nn.Linear]) -> dict[str, str]:
    """Layers that make the output, with what shows it."""
    embeddings = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    tied = {id(embedding.weight) for embedding in embeddings}
    last = _last(model)
    heads = {}
    for name, linear in linears.items():
        if id(linear.weight) in tied:
            heads[name] = "shares its weight with an embedding"
        elif _named_as_head(name) or linear is last:
            heads[name] = "is the output layer"
    if not heads and linears:
        name, linear = list(linears.items())[-1]
        if linear.out_features in {embedding.num_embeddings for embedding in embeddings}:
            heads[name] = "is the output layer, over the vocabulary"
    return heads


def _named_as_head(name: str) -> bool:
    """A part of the name says so, and no number before it puts the layer inside one of many blocks."""
    for part in name.split("."):
        if part.isdigit():
            return False
        if part in _HEADS:
            return True
    return False


def _last(module: nn.Module) -> nn.Module | None:
    """What a sequence of layers ends with."""
    while isinstance(module, nn.Sequential) and len(module) > 0:
        module = module[-1]
    return module


def _matches(name: str, globs: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


def _check_globs(key: str, globs: tuple[str, ...], linears: dict[str, nn.Linear]) -> None:
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in linears):
            names, more = list(map(_called, linears)), ", ..." if len(linears) > 8 else "."
            close = nearest(glob, linears) or f"There are: {', '.join(names[:8]) or 'none'}{more}"
            raise InputError("no linear layer has such a name.", key=key, value=glob, hint=close)


def _called(name: str) -> str:
    return f"`{name}`" if name else "the only layer"


def _nothing(model: nn.Module, skipped: dict[str, str], impossible: dict[str, str]) -> InputError:
    """Nothing is left to convert; with the remedies that there are for these reasons."""
    shown = "; ".join(f"{_called(name)} {reason}" for name, reason in list(skipped.items())[:3])
    remedies = []
    if "" in skipped:
        remedies.append('wrap nn.Sequential(layer), with precision.include=["0"]')
    elif any(name not in impossible and reason != "excluded" for name, reason in skipped.items()):
        remedies.append("name layers in precision.include, widen the model")
    if "excluded" in skipped.values():
        remedies.append("leave layers out of precision.exclude")
    conv1d = sum(type(module).__name__ == "Conv1D" for module in model.modules())
    if conv1d:
        shown += f"{'; ' if shown else ''}the {conv1d} Conv1D of the model are no nn.Linear"
        remedies.append("put nn.Linear in the place of Conv1D, with its weight transposed")
    hint = ", or ".join([", ".join(remedies), "set precision=bf16."] if remedies else ["set precision=bf16."])
    return InputError(
        "no linear layer would compute in FP8" + (f": {shown}." if shown else ": the model has none."),
        key="precision.name", value="fp8", hint=hint[0].upper() + hint[1:],
    )  # fmt: skip
