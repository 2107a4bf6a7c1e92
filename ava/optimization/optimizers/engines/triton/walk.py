"""One pass over the elements, as Triton: a kernel that updates pieces, and those that sum tiles along rows and columns.

    walk_K     one program a piece of CHUNK elements: read, compute, sum what is summed over the parameter, write
    rows_K     one program a tile of the matrix: what pass K sums along its rows and columns
    square_K   one program a tile of the nearly square matrix of factored slots: the magnitudes that pass K will write

The latter two run before `walk_K` overwrites what they read. A skipped update stores nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from ava.optimization.optimizers.engines.tracing.graph import Node
from ava.optimization.optimizers.engines.tracing.passes import Pass, reachable
from ava.optimization.optimizers.engines.triton.layout import CHUNK, COLUMN, ROUNDING, TILE, Layout
from ava.optimization.optimizers.engines.triton.printing import constant, expression, is_flag
from ava.optimization.optimizers.engines.triton.storage import address

ARGUMENTS = "tensors, gradients, items, uniforms, scratch, sums, num_pieces, skip"
"""What every kernel of a pass gets."""


def walks(layout: Layout, number: int) -> dict[str, str]:
    """The kernels of pass `number`, by name, in the order in which they run."""
    one, kernels = layout.schedule.passes[number], {}
    along = [node for node in one.sums if node.op in ("row_mean", "col_mean")]
    if along:
        rows, cols = ([n.args[0] for n in along if n.op == op] for op in ("row_mean", "col_mean"))
        kernels[f"rows_{number}"] = _Tiles(layout, one, rows, cols).text(f"rows_{number}", "")
    squares = [one.writes[s.slot.name] for s in layout.factored if s.slot.name in one.writes]
    if squares:
        kernels[f"square_{number}"] = _Tiles(layout, one, squares, squares).text(f"square_{number}", "SQUARE_")
    pieces = _Pieces(layout, one)
    if pieces.sums or one.writes:
        kernels[f"walk_{number}"] = pieces.text(f"walk_{number}")
    return kernels


class _Elements:
    """The statements that compute some elements of a pass."""

    def __init__(self, layout: Layout, one: Pass, roots: Sequence[Node]) -> None:
        self.layout, self.one = layout, one
        found = reachable(roots, one.reread)
        self.nodes = [node for node in one.elements if node in found]
        self.reread = {node: name for node, name in one.reread.items() if node in found}
        used = {a for node in self.nodes for a in node.args} | set(roots)
        self.borders = sorted((n for n in used if n.extent != "element"), key=lambda n: n.number)

    def lines(self, written: Sequence[str] = (), streams: Sequence[int] = ()) -> list[str]:
        """Addresses, uniforms, and the elements, at the places `i` where `inside` holds.

        Args:
            written: slots that will be written.
            streams: of random bits that will be rounded with.
        """
        read = {node.name for node in self.nodes if node.op == "input"}
        lines, layout = [], self.layout
        if "p" in read or "p" in written:
            lines.append(f"p = {address(COLUMN['P'], layout.storage, is_aligned=layout.is_aligned)}")
        if "g" in read:
            pointer = f"tl.load(gradients + number).to(tl.pointer_type({layout.storage}))"
            lines.append(f"g = {f'tl.multiple_of({pointer}, 16)' if layout.is_aligned else pointer}")
        for name, store in layout.stores.items():
            if name in read or name in written or name in self.reread.values():
                lines += store.pointers(layout.storage, is_aligned=layout.is_aligned)
        lines += [f"{name_of(node)} = {self._border(node)}" for node in self.borders]
        drawn = {int(node.name) for node in self.nodes if node.op == "random"} | set(streams)
        for stream in sorted(drawn):
            key = f"tl.load(uniforms + number * {layout.num_uniforms} + {1 + layout.streams.index(stream)})"
            lines.append(f"key_{stream} = {key}.to(tl.int64).to(tl.uint32)")
        for node, name in self.reread.items():
            lines.append(f"{name_of(node)} = {layout.stores[name].read(layout.number)}")
        return lines + [f"{name_of(node)} = {self._element(node)}" for node in self.nodes]

    def _border(self, node: Node) -> str:
        """A uniform, or a row's or column's value for each element."""
        layout = self.layout
        if node.op == "constant":
            return constant(node, layout.number)
        if node.extent == "uniform":
            place = f"uniforms + number * {layout.num_uniforms} + {layout.uniform(node)}"
            return f"tl.load({place}).to({layout.number})"
        arrays, length, index = (
            ("ROW_ARRAYS", "ROWS", "i // cols") if node.extent == "row" else ("COL_ARRAYS", "COLS", "i % cols")
        )
        start = f"tl.load(t + {COLUMN[arrays]}) + {layout.places[node]} * tl.load(t + {COLUMN[length]})"
        return f"tl.load(scratch + ({start}) + {index}, mask=inside, other=0.0).to({layout.number})"

    def _element(self, node: Node) -> str:
        number = self.layout.number
        if node.op == "random":
            return f"(bits_at(key_{node.name}, i) >> 8).to({number}) * (1.0 / 16777216.0)"
        if node.op != "input":
            return expression(node, name_of, number)
        if node.name in ("p", "g"):
            return f"tl.load({node.name} + i, mask=inside, other=0.0).to({number})"
        return self.layout.stores[node.name].read(number)

    def plain(self, node: Node) -> str:
        """A node as a number; a flag counts 1."""
        return f"{name_of(node)}.to({self.layout.number})" if is_flag(node) else name_of(node)


class _Pieces:
    """The kernel that updates."""

    def __init__(self, layout: Layout, one: Pass) -> None:
        self.layout, self.one = layout, one
        self.sums = [node for node in one.sums if node.op in ("sum", "total")]
        self.elements = _Elements(layout, one, [n.args[0] for n in self.sums] + list(one.writes.values()))

    def text(self, name: str) -> str:
        """A function for full pieces and the last one alike, and the kernel that chooses: full ones need no mask."""
        body = "\n    ".join(self._head() + self._compute() + self._gather() + self._store())
        passed = f"{ARGUMENTS}, item, number, n, begin"
        return f"""
@triton.jit
def piece_of_{name}({passed}, FULL: tl.constexpr):
    {body}


@triton.jit
def {name}({ARGUMENTS}):
    item = tl.program_id(0)
    number = tl.load(items + 2 * item).to(tl.int64)
    n = tl.load(tensors + number * {self.layout.width}).to(tl.int32)
    begin = tl.load(items + 2 * item + 1) * {CHUNK}
    if begin + {CHUNK} <= n:
        piece_of_{name}({passed}, True)
    else:
        piece_of_{name}({passed}, False)
"""

    def _head(self) -> list[str]:
        return [
            f"t = tensors + number * {self.layout.width}",
            f"i = begin + tl.arange(0, {CHUNK})",
            f"inside = tl.full([{CHUNK}], 1, tl.int1) if FULL else i < n",
            "skipped = tl.load(skip).to(tl.int32)",
            "written = unless(skipped, inside)",
            f"cols = tl.load(t + {COLUMN['COLS']}).to(tl.int32)",
            f"square = tl.load(t + {COLUMN['SQUARE']}).to(tl.int32)",
        ]

    def _compute(self) -> list[str]:
        streams = self._streams()
        lines = self.elements.lines(tuple(self.one.writes), streams)
        return lines + [f"draw_{s} = draw_at(key_{s}, i)" for s in streams]

    def _streams(self) -> list[int]:
        stores = [self.layout.stores[name] for name in self.one.writes if name != "p"]
        rounds = self.layout.rounds_at_random and "p" in self.one.writes
        return sorted({s.place // 2 for s in stores if s.draws} | ({ROUNDING} if rounds else set()))

    def _gather(self) -> list[str]:
        return [
            f"tl.store(sums + {k} * num_pieces + item, "
            f"tl.sum(tl.where(inside, {self.elements.plain(node.args[0])}, 0.0), 0))"
            for k, node in enumerate(self.sums)
        ]

    def _store(self) -> list[str]:
        lines, layout = [], self.layout
        for name, node in self.one.writes.items():
            value = self.elements.plain(node)
            if name in layout.stores:
                lines += layout.stores[name].write(value, layout.storage, CHUNK)
            elif layout.rounds_at_random:
                kept, limit = (16, 3.3895313892515355e38) if layout.storage == "tl.bfloat16" else (13, 65504.0)
                rounded = f"round_at_random({value}, half_of(draw_{ROUNDING}, 0), {kept}, {limit})"
                lines.append(f"tl.store(p + i, {rounded}.to({layout.storage}), mask=written)")
            else:
                lines.append(f"tl.store(p + i, nearest({value}, {layout.storage}), mask=written)")
        return lines


class _Tiles:
    """A kernel that sums along rows and columns."""

    def __init__(self, layout: Layout, one: Pass, rows: Sequence[Node], cols: Sequence[Node]) -> None:
        self.layout, self.rows, self.cols = layout, rows, cols
        self.elements = _Elements(layout, one, [*rows, *cols])

    def text(self, name: str, prefix: str) -> str:
        """The kernel; `prefix` tells the square of factored slots, of which magnitudes are summed."""
        body = "\n    ".join(self._head(prefix) + self.elements.lines() + self._sums(prefix))
        return f"\n@triton.jit\ndef {name}({ARGUMENTS}):\n    {body}\n"

    def _head(self, prefix: str) -> list[str]:
        width = "square" if prefix else "cols"
        return [
            "item = tl.program_id(0)",
            "number = tl.load(items + 3 * item).to(tl.int64)",
            f"t = tensors + number * {self.layout.width}",
            f"n = tl.load(t + {COLUMN['N']}).to(tl.int32)",
            f"cols = tl.load(t + {COLUMN['COLS']}).to(tl.int32)",
            f"square = tl.load(t + {COLUMN['SQUARE']}).to(tl.int32)",
            f"height, length = (n + {width} - 1) // {width}, {width}",
            "down, across = tl.load(items + 3 * item + 1), tl.load(items + 3 * item + 2)",
            f"r, c = down * {TILE} + tl.arange(0, {TILE}), across * {TILE} + tl.arange(0, {TILE})",
            "i = r[:, None] * length + c[None, :]",
            "inside = (r < height)[:, None] & (c < length)[None, :] & (i < n)",
            f"num_down, num_across = (height + {TILE - 1}) // {TILE}, (length + {TILE - 1}) // {TILE}",
            f"row_parts = scratch + tl.load(t + {COLUMN[f'{prefix}ROW_PARTS']})",
            f"col_parts = scratch + tl.load(t + {COLUMN[f'{prefix}COL_PARTS']})",
        ]

    def _sums(self, prefix: str) -> list[str]:
        lines = []
        for k, node in enumerate(self.rows):
            place = f"row_parts + ({k} * num_across + across).to(tl.int64) * height + r"
            lines.append(f"tl.store({place}, tl.sum({self._value(node, prefix)}, 1), mask=r < height)")
        for k, node in enumerate(self.cols):
            place = f"col_parts + ({k} * num_down + down).to(tl.int64) * length + c"
            lines.append(f"tl.store({place}, tl.sum({self._value(node, prefix)}, 0), mask=c < length)")
        return lines

    def _value(self, node: Node, prefix: str) -> str:
        value = self.elements.plain(node)
        return f"tl.where(inside, {f'tl.abs({value})' if prefix else value}, 0.0)"


def name_of(node: Node) -> str:
    """What a node is called in a kernel."""
    return f"{node.extent[0]}_{node.number}"
