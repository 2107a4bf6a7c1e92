"""A nested state as a JSON skeleton and a flat list of tensors, and back, exactly.

    {"step": 3, "betas": (0.9, nan), "weight": T}

becomes the tensors {"weight": T} and the skeleton

    {"dict": [["step", 3], ["betas", {"tuple": [0.9, {"float": "nan"}]}], ["weight", {"tensor": "weight"}]]}

JSON keeps null, booleans, whole numbers, text and finite floats (Python prints them so that they read back
bit for bit); every other kind is an object with one key that names it. A tensor is named by the path to it, so
that a model's file carries the names of its parameters. Nothing else is accepted: what cannot be written exactly,
without executable content, is refused with its path and type.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch

from ava.errors import InputError

_SCALARS = (type(None), bool, int, str)
_TENSORS = (torch.Tensor, torch.nn.Parameter)
_RESERVED = "__metadata__"
_DTYPES = {
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.complex64, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint64, torch.uint32, torch.uint16, torch.uint8, torch.bool,
}  # fmt: skip
"""What the safetensors format can hold."""


def flatten(tree: Any, name: str = "state") -> tuple[Any, dict[str, torch.Tensor]]:
    """Take a tree apart.

    A tensor that stands in several places (tied weights) is stored once; on the way back all of them are
    one tensor again. Partly overlapping views are copied.

    Args:
        tree: dict (keys: text or whole numbers), list, tuple, tensor, int, float, str, bool, None, nested at will.
        name: what messages call the tree.

    Returns:
        The skeleton, ready for `json.dumps(..., allow_nan=False)`, and the tensors by name: contiguous,
        on the CPU, detached, with no memory in common. They may still be the memory of the tree's own tensors.

    Raises:
        InputError: something in the tree is of another kind; names its path and type.
    """
    flattener = _Flattener(name)
    return flattener.visit(tree, ()), flattener.tensors


def restore(skeleton: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Put a tree together again: the inverse of `flatten`.

    Raises:
        KeyError, TypeError, ValueError: the skeleton is none, or speaks of tensors that are not there.
    """
    if isinstance(skeleton, list):
        return [restore(item, tensors) for item in skeleton]
    if not isinstance(skeleton, dict):
        return skeleton
    ((kind, content),) = skeleton.items()
    match kind:
        case "dict":
            return {key: restore(value, tensors) for key, value in content}
        case "tuple":
            return tuple(restore(item, tensors) for item in content)
        case "float":
            return float(content)
        case "tensor":
            return tensors[content]
    raise ValueError(f"unknown kind {kind!r}")


class _Flattener:
    """Walks one tree; gathers its tensors and remembers which memory they occupy."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tensors: dict[str, torch.Tensor] = {}
        self._names: dict[tuple[Any, ...], str] = {}
        self._ends: dict[int, int] = {}
        self._alive: list[torch.Tensor] = []

    def visit(self, node: Any, path: tuple[str, ...]) -> Any:
        kind = type(node)
        if kind in _SCALARS:
            return node
        if kind is float:
            return node if math.isfinite(node) else {"float": str(node)}
        if kind is list:
            return [self.visit(item, (*path, str(i))) for i, item in enumerate(node)]
        if kind is tuple:
            return {"tuple": [self.visit(item, (*path, str(i))) for i, item in enumerate(node)]}
        if kind in (dict, OrderedDict):
            return {"dict": [[self.key(key, path), self.visit(item, (*path, str(key)))] for key, item in node.items()]}
        if kind in _TENSORS:
            return {"tensor": self.store(node.detach(), path)}
        raise self.refusal(path, f"a {kind.__module__}.{kind.__qualname__} cannot be stored in a checkpoint")

    def key(self, key: Any, path: tuple[str, ...]) -> str | int:
        if type(key) not in (str, int):
            raise self.refusal(path, f"the key {key!r} is a {type(key).__name__}; keys are text or whole numbers")
        return key  # type: ignore[no-any-return]

    def store(self, tensor: torch.Tensor, path: tuple[str, ...]) -> str:
        """The name under which a tensor is stored, perhaps already because of another place."""
        if tensor.layout != torch.strided or tensor.dtype not in _DTYPES or tensor.is_meta or tensor.is_quantized:
            what = f"a {tensor.dtype} tensor of layout {tensor.layout} on {tensor.device}"
            raise self.refusal(path, f"{what} cannot be stored in a checkpoint")
        place = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), tensor.is_conj())
        if tensor.numel() and place in self._names:
            return self._names[place]
        name = self.unique_name(path)
        self._names[place] = name
        self._alive.append(tensor)
        self.tensors[name] = self.own_memory(tensor.resolve_conj().resolve_neg().cpu().contiguous())
        return name

    def own_memory(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor, or a copy if an earlier one occupies some of its memory. Views cut in order pass uncopied."""
        storage = tensor.untyped_storage().data_ptr()
        start = tensor.data_ptr()
        if not tensor.numel() or start < self._ends.get(storage, 0):
            return tensor.clone()
        self._ends[storage] = start + tensor.numel() * tensor.element_size()
        return tensor

    def unique_name(self, path: tuple[str, ...]) -> str:
        base = "/".join(path).encode("utf-8", "backslashreplace").decode() or "value"
        name, number = base, 1
        while name in self.tensors or name == _RESERVED:
            number += 1
            name = f"{base}#{number}"
        return name

    def refusal(self, path: tuple[str, ...], problem: str) -> InputError:
        return InputError(
            f"{'/'.join((self.name, *path))}: {problem}.",
            hint="Allowed are dict, list, tuple, tensor, int, float, str, bool and None: convert it to those.",
        )
