"""Parameters of given shapes cut into pieces of work, and room for what the pieces sum."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ava.optimization.optimizers.engines.triton.layout import CHUNK, TILE, Layout
from ava.optimization.optimizers.storage.factored import square_shape


@dataclass(frozen=True)
class Plan:
    """Tables for parameters of given shapes.

    Attributes:
        table: on the host, a row a parameter, without addresses.
        items: by the kind of kernel, what each of its programs works on.
        num_scratch: float64s of scratch memory.
    """

    table: np.ndarray[Any, np.dtype[np.int64]]
    items: dict[str, Tensor]
    num_scratch: int


def plan_for(layout: Layout, shapes: tuple[tuple[int, ...], ...], device: torch.device) -> Plan:
    """The tables for parameters of these shapes; items go to the device at once."""
    table = np.zeros((len(shapes), layout.width), np.int64)
    items: dict[str, list[Any]] = {"walk": [], "rows": [], "square": []}
    used, num_pieces = 0, 0
    counts = [layout.num_places("row"), layout.num_places("column"), layout.gathered("row_mean"),
              layout.gathered("col_mean"), len(layout.factored), len(layout.factored)]  # fmt: skip
    for number, shape in enumerate(shapes):
        size, rows = math.prod(shape), shape[0] if len(shape) > 1 else 1
        cols, (height, square) = max(1, size // max(1, rows)), square_shape(max(1, size))
        tiles, square_tiles = _tiles(rows if size else 0, cols), _tiles(height if size else 0, square)
        pieces = -(-size // CHUNK)
        table[number, :7] = [size, rows, cols, square, 0, num_pieces, pieces]
        lengths = [rows, cols, tiles[1] * rows, tiles[0] * cols, square_tiles[1] * height, square_tiles[0] * square]
        for column, length, count in zip(range(7, 13), lengths, counts, strict=True):
            table[number, column], used = used, used + length * count
        items["walk"].append(_numbered(number, (pieces,)))
        items["rows"].append(_numbered(number, tiles))
        items["square"].append(_numbered(number, square_tiles))
        num_pieces += pieces
    return Plan(
        table, {k: torch.from_numpy(np.ascontiguousarray(np.concatenate(v))).to(device) for k, v in items.items()}, used
    )


def _tiles(rows: int, cols: int) -> tuple[int, int]:
    return -(-rows // TILE), -(-cols // TILE)


def _numbered(number: int, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.int32]]:
    """A row for each place of a grid: the parameter's number, and the place."""
    places = np.indices(shape, np.int32).reshape(len(shape), -1).T
    return np.concatenate([np.full((len(places), 1), number, np.int32), places], 1)
