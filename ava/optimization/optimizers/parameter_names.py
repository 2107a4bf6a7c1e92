"""What parameters' names and modules say: where in the network they stand, and which belong to its ends.

The ends are the embeddings, whose rows are looked up one by one, and the output head, whose rows are the classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from torch import nn

BOTTOM = ("*embed*", "*emb", "wte", "wpe", "position*", "stem", "patch*", "cls_token")
"""Globs over the components of a name: what reads the input."""
TOP = ("head", "*_head", "classifier", "fc", "score", "logits")
"""What writes the output."""
ENDS = ("*embed*", "*emb", "wte", "wpe", "position*", "head", "*_head", "classifier")
"""Embeddings and heads, where there is nothing but a name to go by."""


def has_component(name: str, globs: Iterable[str]) -> bool:
    """Whether a component of a dotted name, before its first number, matches one of the globs."""
    return any(fnmatchcase(part, glob) for part in _split(name)[0] for glob in globs)


def end_parameters(model: nn.Module) -> set[str]:
    """The names of the weights of embeddings and of the output head.

    Embeddings are the `nn.Embedding` modules. Heads are the modules that are called head, *_head, classifier, fc, score
    or logits outside any numbered block, each by its last `nn.Linear`; without any such, the last `nn.Linear` of the
    model is the head. Tied weights belong to both.
    """
    named = dict(model.named_modules())
    tops = [m for name, m in named.items() if name and has_component(f"{name}.weight", TOP) and not _split(name)[1]]
    heads = [linear for top in tops or [model] for linear in _linears(top)[-1:]] or _linears(model)[-1:]
    ends = [m for m in named.values() if isinstance(m, nn.Embedding)] + heads
    weights = {id(m.weight) for m in ends}
    return {name for name, parameter in model.named_parameters() if id(parameter) in weights}


def _linears(model: nn.Module) -> list[nn.Linear]:
    return [module for module in model.modules() if isinstance(module, nn.Linear)]


def depths(names: Sequence[str]) -> tuple[dict[str, int], int]:
    """The layer of each parameter, counted from the input, and the number of layers.

    A layer is a numbered module: `blocks.3`, `layers.3`, `h.3`; only a name's first number counts. Where no name has a
    number, the modules at the first level at which names differ are the layers. Embeddings and stems (by name, or
    before the first numbered module) are the lowest layer; heads, and whatever follows the last numbered module, the
    highest; what stands between numbered modules belongs to the one before it.

    Args:
        names: in the model's order.

    Returns:
        name -> layer, from 0; and how many layers there are.
    """
    split = {name: _split(name) for name in names}
    if not any(number for _, number in split.values()):
        split = _split_by_children(names)
    units = {name: (*parts, number) for name, (parts, number) in split.items() if number}
    inner = {n: unit for n, unit in units.items() if not has_component(n, (*BOTTOM, *TOP))}
    firsts: dict[tuple[str, ...], int] = {}
    for unit in inner.values():
        firsts.setdefault(unit[:-1], len(firsts))
    ordered = sorted(set(inner.values()), key=lambda unit: (firsts[unit[:-1]], int(unit[-1])))
    places: dict[str, float] = {}
    last, remaining = -1.0, len(inner)
    for name in names:
        if name in inner:
            last, remaining = ordered.index(inner[name]), remaining - 1
            places[name] = last
        else:
            is_top = not has_component(name, BOTTOM) and (has_component(name, TOP) or remaining == 0)
            places[name] = -1 if has_component(name, BOTTOM) else len(ordered) if is_top else last
    levels = {place: layer for layer, place in enumerate(sorted(set(places.values())))}
    return {name: levels[place] for name, place in places.items()}, len(levels)


def _split(name: str) -> tuple[tuple[str, ...], str]:
    """The components of the module's name before the first number, and that number or nothing."""
    parts = tuple(name.split("."))
    at = next((i for i, part in enumerate(parts) if part.isdigit()), len(parts))
    return (parts[:at], parts[at]) if at < len(parts) else (parts, "")


def _split_by_children(names: Sequence[str]) -> dict[str, tuple[tuple[str, ...], str]]:
    """As `_split`, with the order of the first components that differ for numbers."""
    parts = {name: name.split(".") for name in names}
    shared = 0
    while all(len(p) > shared + 1 for p in parts.values()) and len({p[shared] for p in parts.values()}) == 1:
        shared += 1
    # What has no further component is a parameter of the shared module itself, no child of it.
    child = {name: p[shared] if len(p) > shared + 1 else "" for name, p in parts.items()}
    order = list(dict.fromkeys(child.values()))
    return {name: (tuple(p[:shared]), str(order.index(child[name]))) for name, p in parts.items()}
