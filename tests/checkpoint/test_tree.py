from __future__ import annotations

import enum
import json
import math
import random
import struct
from collections import OrderedDict, namedtuple
from typing import Any

import numpy as np
import pytest
import torch

from ava.checkpoint.tree import flatten, restore
from ava.errors import InputError


def round_trip(tree: Any) -> Any:
    skeleton, tensors = flatten(tree)
    return restore(json.loads(json.dumps(skeleton, allow_nan=False)), tensors)


def same(a: Any, b: Any) -> bool:
    """Equal in type, bits, order and structure."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and a.numpy(force=True).tobytes() == b.numpy().tobytes()
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or struct.pack("d", a) == struct.pack("d", b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(type(x) is type(y) for x, y in zip(a, b, strict=True)) and same([*a.values()], [*b.values()])  # fmt: skip  # noqa: E501
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


LEAVES = [None, True, False, 0, 1, -1, 2**80, 0.1, -0.0, 1e-320, 1.7976931348623157e308, math.nan, math.inf, -math.inf,
          "", "text", "ünïcode \n \"", "\ud800", {}, [], (), {"tensor": "x"}, {"tuple": [1]}, {"float": "nan"},
          {"dict": []}]  # fmt: skip


@pytest.mark.parametrize("leaf", LEAVES, ids=repr)
def test_leaves_come_back_exactly(leaf):
    assert same(leaf, round_trip(leaf))
    assert same({"a": [leaf, (leaf, {3: leaf})]}, round_trip({"a": [leaf, (leaf, {3: leaf})]}))


def grow(source: random.Random, depth: int) -> Any:
    kind = source.choice(["leaf", "tensor", "bits"] if depth == 0 else ["dict", "list", "tuple", "leaf", "tensor"])
    if kind == "dict":
        keys = [source.choice([source.randrange(9), str(source.randrange(9)), "a/b", "x.y"]) for _ in range(4)]
        return {key: grow(source, depth - 1) for key in keys}
    if kind in ("list", "tuple"):
        items = [grow(source, depth - 1) for _ in range(source.randrange(4))]
        return items if kind == "list" else tuple(items)
    if kind == "tensor":
        return torch.tensor([source.random() for _ in range(source.randrange(3))])
    if kind == "bits":
        return struct.unpack("d", source.randbytes(8))[0]
    return source.choice(LEAVES)


@pytest.mark.parametrize("seed", range(50))
def test_any_tree_comes_back_exactly(seed):
    tree = grow(random.Random(seed), 4)
    assert same(tree, round_trip(tree))


def test_an_ordered_dict_becomes_a_dict():
    model = torch.nn.Linear(2, 2)
    assert same(dict(model.state_dict()), round_trip(model.state_dict()))
    assert round_trip(OrderedDict(b=1, a=2)) == {"b": 1, "a": 2}


def test_tensors_bear_the_names_of_their_paths():
    _, tensors = flatten(
        {"layers.0.weight": torch.ones(1), "state": {0: {"step": torch.ones(())}}, "l": [torch.ones(2)]}
    )
    assert sorted(tensors) == ["l/0", "layers.0.weight", "state/0/step"]


def test_colliding_and_reserved_names_stay_apart():
    tree = {"a/b": torch.ones(1), "a": {"b": torch.zeros(1)}, 0: torch.full((1,), 2.0), "0": torch.full((1,), 3.0),
            "__metadata__": torch.full((1,), 4.0)}  # fmt: skip
    assert same(tree, round_trip(tree))
    assert "__metadata__" not in flatten(tree)[1]


class Colour(enum.IntEnum):
    RED = 1


@pytest.mark.parametrize(
    ("value", "said"),
    [(np.float64(1), "float64"), (np.zeros(2), "ndarray"), (Colour.RED, "Colour"), ({1, 2}, "set"), (b"x", "bytes"),
     (torch.float32, "dtype"), (namedtuple("P", "x")(1), "P"), (object(), "object"), (torch.Size([1]), "Size"),
     (torch.zeros(2).to_sparse(), "sparse"), (torch.zeros(2, device="meta"), "meta"),
     (torch.zeros(2, dtype=torch.complex128), "complex128"), (1 + 2j, "complex")],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_what_cannot_be_stored_is_refused_by_path_and_type(value, said):
    with pytest.raises(InputError) as caught:
        flatten({"state": [0, {"momentum": value}]}, "optimizer")
    assert "optimizer/state/1/momentum" in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize("key", [1.5, None, True, (1, 2), np.int64(3)])
def test_keys_are_text_or_whole_numbers(key):
    with pytest.raises(InputError, match="keys are text or whole numbers"):
        flatten({"a": {key: 1}})


def test_tied_tensors_are_stored_once_and_stay_tied():
    weight = torch.nn.Parameter(torch.arange(6.0))
    skeleton, tensors = flatten({"in": weight, "out": weight.data, "other": torch.arange(6.0)})
    assert len(tensors) == 2
    back = restore(skeleton, tensors)
    assert back["in"] is back["out"]
    assert back["in"] is not back["other"]


def test_flat_buffers_pass_uncopied_and_overlaps_are_copied():
    buffer = torch.arange(10.0)
    _, disjoint = flatten([buffer[:4], buffer[4:]])
    assert disjoint["1"].data_ptr() == buffer[4:].data_ptr()
    tree = [buffer[:6], buffer[2:8], buffer, buffer[::2], buffer[0:0]]
    skeleton, tensors = flatten(tree)
    assert same(tree, restore(skeleton, tensors))
    storages = [t.untyped_storage().data_ptr() for t in tensors.values() if t.numel()]
    assert len(set(storages)) == len(storages)


@pytest.mark.parametrize(
    "skeleton", [{"pickle": 1}, {}, {"a": 1, "b": 2}, {"dict": [[1]]}, {"tensor": "gone"}, {"float": "x"}]
)
def test_a_strange_skeleton_is_an_error(skeleton):
    with pytest.raises((KeyError, TypeError, ValueError)):
        restore(skeleton, {})
