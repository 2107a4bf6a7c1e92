"""One pass over one piece of a parameter, as C++: block by block decode, compute, encode."""

from __future__ import annotations

from ava.optimization.optimizers.engines.native.graph import Node
from ava.optimization.optimizers.engines.native.layout import Layout
from ava.optimization.optimizers.engines.native.naming import SIGNATURE, Names
from ava.optimization.optimizers.engines.native.passes import Pass
from ava.optimization.optimizers.engines.native.printing import expression
from ava.optimization.optimizers.engines.native.storage import Store

BLOCK = 1024
"""Elements of a block: a multiple of the 8-bit codec's, with all buffers inside the first cache."""
_ROUNDING = 15


def walk(layout: Layout, names: Names, number: int) -> str:
    """The function of pass `number`."""
    return _Walk(layout, names, number).text()


class _Walk:
    def __init__(self, layout: Layout, names: Names, number: int) -> None:
        self.layout, self.names, self.number = layout, names, number
        self.one: Pass = layout.schedule.passes[number]
        self.written = {name: layout.stores[name] for name in self.one.writes if name != "p"}
        self.read = [node for node in self.one.elements if node.op == "input"]
        self.borders = self._borders()

    def text(self) -> str:
        """Head, declarations, the loop over blocks, and the sums put away."""
        head = f"static void walk_{self.number}(const i64* t, const i64* item, {SIGNATURE}) {{"
        blocks = f"for (i64 b = item[BEGIN]; b < item[END]; b += {BLOCK}) {{"
        lines = [head, *self._declarations(), blocks, *self._block(), "}"]
        lines += [f"S[item[SUMS] + {k}] = sum_{k};" for k in range(len(self._sums))]
        return "\n  ".join(lines) + "\n}"

    def _borders(self) -> list[Node]:
        """Uniforms, rows and columns that the elements are made with."""
        used = {a for node in self.one.elements for a in node.args}
        used |= set(self.one.writes.values()) | {node.args[0] for node in self.one.sums}
        return sorted((n for n in used if n.extent != "element"), key=lambda n: n.number)

    @property
    def _sums(self) -> list[Node]:
        return [node for node in self.one.sums if node.op in ("sum", "total")]

    def _kind(self, op: str) -> list[Node]:
        return [node for node in self.one.sums if node.op == op]

    def _declarations(self) -> list[str]:
        names = {node.name for node in self.read} | set(self.one.reread.values()) | set(self.one.writes)
        lines = [self.names.step()]
        lines += [f"D* __restrict {x} = (D*)t[{x.upper()}];" for x in ("p", "g") if x in names]
        for name in sorted(names - {"p", "g"}):
            store = self.layout.stores[name]
            if store.is_plain:
                lines.append(f"D* __restrict s_{name} = (D*)t[{store.column}];")
        lines += [f"const T {_name(n)} = (T)({self.names.small(n, '0')});" for n in self.borders if n.extent == "uniform"]
        streams = {store.place // 2 for store in self.written.values() if store.codec in ("bf16", "int8")}
        streams |= {int(node.name) for node in self.one.elements if node.op == "random"}
        streams |= {_ROUNDING} if self._rounds else set()
        lines += [f"const u32 key_{s} = stream_key(seed, t[NUMBER], step, {s});" for s in sorted(streams)]
        lines += [f"double sum_{k} = 0;" for k in range(len(self._sums))]
        return lines + self._partial_sums()

    @property
    def _rounds(self) -> bool:
        return self.layout.rounds_at_random and "p" in self.one.writes

    def _partial_sums(self) -> list[str]:
        """Where this piece's row and column sums go; all start at zero."""
        lines, rows, cols = [], self._kind("row_mean"), self._kind("col_mean")
        if rows:
            lines.append("const i64 row_first = item[BEGIN] / t[COLS], row_count = item_rows(item, t[COLS]);")
            lines += [f"double* rows_of_{k} = clear(S + item[ROW_SUMS] + {k} * row_count, row_count);" for k in range(len(rows))]
        lines += [f"T* cols_of_{k} = clear((T*)(S + item[COL_SUMS]) + {k} * t[COLS], t[COLS]);" for k in range(len(cols))]
        factored = [store for store in self.written.values() if store.codec == "factored"]
        if factored:
            lines.append(
                "const i64 square_first = item[BEGIN] / t[SQUARE_COLS], square_count = item_rows(item, t[SQUARE_COLS]);"
            )
        for k, store in enumerate(factored):
            lines.append(
                f"double* rows_{store.place} = clear(S + item[SQUARE_ROWS] + {k} * square_count, square_count); "
                f"T* cols_{store.place} = "
                f"clear((T*)(S + item[SQUARE_COL_SUMS]) + {k} * t[SQUARE_COLS], t[SQUARE_COLS]);"
            )
        return lines

    def _block(self) -> list[str]:
        """Decode, compute, encode."""
        lines = [f"const i64 n = item[END] - b < {BLOCK} ? item[END] - b : {BLOCK};"]
        for name in sorted({node.name for node in self.read} - {"p", "g"}):
            if not self.layout.stores[name].is_plain:
                lines.append(f"T in_{name}[{BLOCK}]; {self.layout.stores[name].decode(f'in_{name}')}")
        for node in self.borders:
            if node.extent != "uniform":
                array, kind = self.names.small(node, "0").removesuffix("[0]"), node.extent[:3] + "s"
                lines.append(f"T b_{_name(node)}[{BLOCK}]; expand_{kind}<T>(b_{_name(node)}, {array}, t[COLS], b, n);")
        after = self._after()
        lines += [f"T out_{k}[{BLOCK}];" for k in range(len(after))]
        lines += [f"T part_{k} = 0;" for k in range(len(self._sums))]
        reduced = ", ".join(f"part_{k}" for k in range(len(self._sums)))
        lines.append(f"#pragma omp simd{f' reduction(+:{reduced})' if reduced else ''}")
        lines += ["for (i64 j = 0; j < n; ++j) {", "const i64 i = b + j; (void)i;", *self._elements(), *self._stores(after), "}"]
        lines += [f"sum_{k} += (double)part_{k};" for k in range(len(self._sums))]
        return [*lines, *(statement.replace("BUFFER", f"out_{k}") for k, (_, statement) in enumerate(after))]

    def _after(self) -> list[tuple[Node, str]]:
        """What is put aside for after the loop, with what is then done with it."""
        later = [(self.one.writes[n], s.encode("BUFFER")) for n, s in self.written.items() if not s.is_plain]
        for k, node in enumerate(self._kind("row_mean")):
            later.append((node.args[0], f"add_rows<T>(rows_of_{k}, BUFFER, row_first, t[COLS], b, n);"))
        for k, node in enumerate(self._kind("col_mean")):
            later.append((node.args[0], f"add_cols<T>(cols_of_{k}, BUFFER, t[COLS], b, n);"))
        return later

    def _elements(self) -> list[str]:
        lines = [f"const T {_name(n)} = (T)b_{_name(n)}[j];" for n in self.borders if n.extent != "uniform"]
        lines += [f"const T {_name(n)} = get<T>(s_{name}, i);" for n, name in self.one.reread.items()]
        for node in self.one.elements:
            kind = "bool" if node.is_flag else "T"
            lines.append(f"const {kind} {_name(node)} = {self._value(node)};")
        return lines

    def _value(self, node: Node) -> str:
        if node.op == "random":
            return f"random_at<T>(key_{node.name}, i)"
        if node.op != "input":
            return expression(node, _name, "T")
        if node.name in ("p", "g"):
            return f"get<T>({node.name}, i)"
        return f"get<T>(s_{node.name}, i)" if self.layout.stores[node.name].is_plain else f"in_{node.name}[j]"

    def _stores(self, after: list[tuple[Node, str]]) -> list[str]:
        lines = [f"part_{k} += (T){_name(node.args[0])};" for k, node in enumerate(self._sums)]
        for name, node in self.one.writes.items():
            store: Store | None = self.layout.stores.get(name)
            if name == "p" and self._rounds:
                lines.append(f"put_at_random<T>(p, i, {_name(node)}, bits_at(key_{_ROUNDING}, i) & 0xFFFFu);")
            elif name == "p" or (store is not None and store.is_plain):
                lines.append(f"put<T>({'p' if name == 'p' else f's_{name}'}, i, {_name(node)});")
        return lines + [f"out_{k}[j] = (T){_name(node)};" for k, (node, _) in enumerate(after)]


def _name(node: Node) -> str:
    return f"{node.extent[0]}_{node.number}"
