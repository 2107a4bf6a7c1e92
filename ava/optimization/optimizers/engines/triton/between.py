"""What is worked out between two passes, as Triton: one program a parameter.

Counters, keys of random streams, uniforms, rows and columns, all in double precision, and the slots that are not one
value an element. Sums of pieces and tiles are added up in their order, so that results do not depend on timing.
"""

from __future__ import annotations

from collections.abc import Callable

from ava.optimization.optimizers.engines.tracing.graph import Node
from ava.optimization.optimizers.engines.triton.layout import COLUMN, LANES, SUM_DEPTH, SUM_LANES, TILE, Layout
from ava.optimization.optimizers.engines.triton.printing import constant, expression
from ava.optimization.optimizers.engines.triton.storage import address
from ava.optimization.optimizers.engines.triton.walk import name_of

DOUBLE = "tl.float64"
_SIZES = {"size": "n.to(tl.float64)", "rows": "rows.to(tl.float64)", "cols": "cols.to(tl.float64)", "step": "step"}
_ARRAYS = {"row": ("ROW_ARRAYS", "rows"), "column": ("COL_ARRAYS", "cols")}


def arguments(layout: Layout) -> str:
    """What a kernel between passes gets; of a float two: its upper and its lower half."""
    halves = [f"h{k}" if name in layout.on_device else f"h{k}, h{k}_low" for k, name in enumerate(layout.inputs)]
    return ", ".join(["tensors, uniforms, scratch, sums, shared, num_pieces, skip", *halves])


def between(layout: Layout, level: int) -> str:
    """The kernel before pass `level`, or behind the last; empty if there is nothing to do."""
    return _Between(layout, level).text()


class _Between:
    def __init__(self, layout: Layout, level: int) -> None:
        self.layout, self.level = layout, level
        self.nodes = [node for node in layout.schedule.between[level] if node in layout.places]
        own = set(layout.schedule.between[level])
        results = layout.schedule.results.items()
        self.results = [(k, n) for k, n in results if n in own and k in layout.small]
        self.ready = {node for node in self.nodes if node.extent == "uniform"}

    def text(self) -> str:
        """Head, uniforms of earlier levels, this level's nodes, and the slots that they settle."""
        factors = self._factors() if self.level == self.layout.end else []
        if not (self.nodes or self.results or factors or self.level == 0):
            return ""
        lines = [*self._head(), *(self._count() if self.level == 0 else self._recall())]
        used = {n for node in [*self.nodes, *(n for _, n in self.results)] for n in (node, *node.args)}
        constants = sorted((n for n in used if n.op == "constant"), key=lambda n: n.number)
        lines += [f"{name_of(node)} = {constant(node, DOUBLE)}" for node in constants]
        lines += self._ordered()
        for name, node in self.results:
            lines += self._result(name, node)
        body = "\n    ".join([*lines, *factors])
        return f"\n@triton.jit\ndef between_{self.level}({arguments(self.layout)}):\n    {body}\n"

    def _head(self) -> list[str]:
        return [
            "number = tl.program_id(0).to(tl.int64)",
            f"t = tensors + number * {self.layout.width}",
            f"u = uniforms + number * {self.layout.num_uniforms}",
            "skipped = tl.load(skip).to(tl.int32)",
            f"lane = tl.arange(0, {LANES})",
            *(
                f"{name} = tl.load(t + {COLUMN[column]}).to(tl.int32)"
                for name, column in (("n", "N"), ("rows", "ROWS"), ("cols", "COLS"), ("square", "SQUARE"))
            ),
            f"down, across = (rows + {TILE - 1}) // {TILE}, (cols + {TILE - 1}) // {TILE}",
        ]

    def _count(self) -> list[str]:
        """The update's number, and the keys that follow from it."""
        layout = self.layout
        if not layout.counts:
            return ["step = tl.full((), 1.0, tl.float64)"]
        lines = [
            f"counter = {address(COLUMN['STEP'], 'tl.float32')}",
            "count = tl.load(counter) + 1.0",
            "tl.store(counter, count, mask=skipped == 0)",
            "step = count.to(tl.float64)",
            "tl.store(u, step)",
            f"base = tl.load(t + {COLUMN['BASE']}).to(tl.uint32)",
        ]
        keys = enumerate(layout.streams)
        stride = 0xC2B2AE35
        return lines + [f"tl.store(u + {1 + k}, stream_key(base, step, {s * stride & 0xFFFFFFFF}))" for k, s in keys]

    def _recall(self) -> list[str]:
        """Uniforms that earlier levels have left."""
        used = {a for node in self.nodes for a in node.args} | {node for _, node in self.results}
        known = sorted((n for n in used - self.ready if n.extent == "uniform" and n.op != "constant"), key=_order)
        return [f"{name_of(node)} = tl.load(u + {self.layout.uniform(node)})" for node in known]

    def _uniform(self, node: Node) -> list[str]:
        return [f"{name_of(node)} = {self._value(node)}", f"tl.store(u + {self.layout.uniform(node)}, {name_of(node)})"]

    def _value(self, node: Node) -> str:
        layout = self.layout
        if node.op == "input":
            return self._input(node.name)
        if node.op == "total":
            return f"tl.load(shared + {len(layout.common) + layout.totals.index(node.name)})"
        if node.op not in ("sum", "row_mean", "col_mean"):
            return expression(node, name_of, DOUBLE)
        (argument,) = node.args
        if argument.extent == "element":
            return f"add_up(sums + {self._place(node)} * num_pieces + {self._first()}, {self._num()}, {LANES})"
        share = {"sum": "", "row_mean": " / cols", "col_mean": " / tl.maximum(rows, 1)"}[node.op]
        return f"add_up({self._start(argument)}, {_ARRAYS[argument.extent][1]}, {LANES}){share}"

    def _first(self) -> str:
        return f"tl.load(t + {COLUMN['FIRST_PIECE']})"

    def _num(self) -> str:
        return f"tl.load(t + {COLUMN['NUM_PIECES']}).to(tl.int32)"

    def _input(self, name: str) -> str:
        layout = self.layout
        if name in _SIZES:
            return _SIZES[name]
        if name in layout.common:
            return f"tl.load(shared + {layout.common.index(name)})"
        if name in layout.small:
            return f"tl.load({address(layout.small[name], layout.number)}).to(tl.float64)"
        k = layout.inputs.index(name)
        if name in layout.on_device:
            return f"tl.load(h{k}).to(tl.float64)"
        return f"tl.full((), 0.0, tl.float64) + h{k} + h{k}_low"

    def _place(self, node: Node) -> int:
        """A reduction's place among those of its kind that the same pass gathers."""
        kind = ("sum", "total") if node.op in ("sum", "total") else (node.op,)
        return [n for n in self.layout.schedule.passes[node.level - 1].sums if n.op in kind].index(node)

    def _start(self, node: Node) -> str:
        """The address of a row or column in the scratch memory."""
        array, length = _ARRAYS[node.extent]
        return f"scratch + (tl.load(t + {COLUMN[array]}) + {self.layout.places[node]} * {length})"

    def _ordered(self) -> list[str]:
        """All nodes; rows or columns that can be worked out together wait for each other."""
        lines: list[str] = []
        waiting: list[Node] = []
        for node in self.nodes:
            is_sum = node.op in ("row_mean", "col_mean") and node.args[0].extent == "element"
            is_alone = node.extent == "uniform" or is_sum
            if waiting and (any(a in waiting for a in node.args) if is_alone else node.extent != waiting[0].extent):
                lines, waiting = lines + self._arrays(waiting), []
            if is_sum and node.extent != "uniform":
                lines += self._sums(node)
            elif node.extent == "uniform":
                lines += self._uniform(node)
            else:
                waiting.append(node)
        return lines + (self._arrays(waiting) if waiting else [])

    def _sums(self, node: Node) -> list[str]:
        """A mean of each row or column, from the tiles' sums."""
        is_row, place, length = node.op == "row_mean", self._place(node), _ARRAYS[node.extent][1]
        parts = f"scratch + (tl.load(t + {COLUMN['ROW_PARTS' if is_row else 'COL_PARTS']})"
        count, over = ("across", "cols") if is_row else ("down", "tl.maximum(rows, 1)")
        call = f"put_sums({self._start(node)}, {parts} + {place} * {count} * {length}), {count}, {length}, {length}"
        return [f"{call}, {over}, skipped, {SUM_LANES}, {SUM_DEPTH})", "tl.debug_barrier()"]

    def _arrays(self, nodes: list[Node]) -> list[str]:
        """Work out some rows or columns; what follows may read what another thread has written."""
        length = _ARRAYS[nodes[0].extent][1]
        lines = [f"for first in range(0, {length}, {LANES}):", "    at = first + lane"]
        for node in nodes:
            lines.append(f"    {name_of(node)} = {self._array(node, nodes)}")
            lines.append(f"    tl.store({self._start(node)} + at, {name_of(node)}, mask=at < {length})")
        return [*lines, "tl.debug_barrier()"]

    def _array(self, node: Node, together: list[Node]) -> str:
        def name(argument: Node) -> str:
            return name_of(argument) if argument in together else self._load(argument)

        if node.op == "input":
            pointer = address(self.layout.small[node.name], self.layout.number)
            return f"tl.load({pointer} + at, mask=at < {_ARRAYS[node.extent][1]}, other=0.0).to(tl.float64)"
        if node.op in ("row_mean", "col_mean"):  # of what is the same along the other side: the mean is the value
            return name(node.args[0])
        return expression(node, name, DOUBLE)

    def _load(self, node: Node) -> str:
        if node.extent == "uniform":
            return name_of(node)
        return f"tl.load({self._start(node)} + at, mask=at < {_ARRAYS[node.extent][1]}, other=0.0)"

    def _result(self, name: str, node: Node) -> list[str]:
        """Write a slot that is a row, a column or one number."""
        pointer = address(self.layout.small[name], self.layout.number)
        shape = next(slot.shape for slot in self.layout.graph.slots if slot.name == name)
        if shape not in _ARRAYS:
            return [f"tl.store({pointer}, {name_of(node)}.to({self.layout.number}), mask=skipped == 0)"]
        length = _ARRAYS[shape][1]
        value = f"({self._load(node)}).to({self.layout.number})"
        return [
            f"for first in range(0, {length}, {LANES}):", "    at = first + lane",
            f"    tl.store({pointer} + at, {value}, mask=unless(skipped, at < {length}))",
        ]  # fmt: skip

    def _factors(self) -> list[str]:
        """Row sums, and column sums over their total."""
        lines: list[str] = []
        if self.layout.factored:
            lines += [
                "height = (n + square - 1) // square",
                f"down, across = (height + {TILE - 1}) // {TILE}, (square + {TILE - 1}) // {TILE}",
                f"row_parts = scratch + tl.load(t + {COLUMN['SQUARE_ROW_PARTS']})",
                f"col_parts = scratch + tl.load(t + {COLUMN['SQUARE_COL_PARTS']})",
            ]
        seen: dict[int, int] = {}
        for store in self.layout.factored:
            number = self._pass_of(store.slot.name)
            k = seen[number] = seen.get(number, -1) + 1
            row, column = (address(store.column + part, "tl.float32") for part in (0, 1))
            rows, columns = f"row_parts + {k} * across * height", f"col_parts + {k} * down * square"
            lines += [
                f"total = put_sums({row}, {rows}, across, height, height, 1.0, skipped, {SUM_LANES}, {SUM_DEPTH})",
                "total = tl.where(total > 1e-37, total, 1e-37)",
                f"put_sums({column}, {columns}, down, square, square, total, skipped, {SUM_LANES}, {SUM_DEPTH})",
            ]
        return lines

    def _pass_of(self, name: str) -> int:
        return next(number for number, one in enumerate(self.layout.schedule.passes) if name in one.writes)


_order: Callable[[Node], int] = lambda node: node.number  # noqa: E731
