"""One pass over one piece of a parameter, as C++: block by block decode, compute, encode.

for each block
fill the buffers: signs, rows and columns spread over their elements
for each element (one vectorised loop)
read, compute, add to the sums, write; 8-bit slots and row and column sums go to buffers
for each element, where there are 8-bit slots: encode them with the block's scale
empty the buffers into bits, row and column sums
"""

from __future__ import annotations

from ava.optimization.optimizers.engines.native.layout import Layout
from ava.optimization.optimizers.engines.native.naming import SIGNATURE, Names
from ava.optimization.optimizers.engines.native.printing import expression
from ava.optimization.optimizers.engines.native.storage import Store
from ava.optimization.optimizers.engines.tracing.graph import Node
from ava.optimization.optimizers.engines.tracing.passes import Pass

BLOCK = 512
"""Elements of a block: few enough for all buffers to stay in the first cache."""
LONG_BLOCK = 4096
"""Elements of a block without buffers."""
PADDING = 256
"""Elements between two buffers: at equal distance from a page's start, a load waits for another buffer's store."""
SCALE_BLOCK = 256
"""Elements that share a scale in 8-bit slots; then it is the block."""
_ROUNDING = 15
_VECTORISED = "#pragma GCC ivdep"
"""Not `omp simd`, whose reductions GCC keeps in memory: each step of the loop would wait for the last one's store."""


def walk(layout: Layout, names: Names, number: int) -> str:
    """The function of pass `number`."""
    return _Walk(layout, names, number).text()


class _Walk:
    def __init__(self, layout: Layout, names: Names, number: int) -> None:
        self.layout, self.names, self.number = layout, names, number
        self.one: Pass = layout.schedule.passes[number]
        self.read = sorted({node.name for node in self.one.elements if node.op == "input"} - {"p", "g"})
        self.written = {name: layout.stores[name] for name in self.one.writes if name != "p"}
        self.touched = sorted({*self.read, *self.one.reread.values(), *self.written})
        self.borders = self._borders()
        self.sums = [node for node in self.one.sums if node.op in ("sum", "total")]
        self.scaled = [store for store in self.written.values() if store.codec == "int8"]
        self.later = self._later()
        is_scaled = any(layout.stores[name].codec == "int8" for name in self.touched)
        self.block = SCALE_BLOCK if is_scaled else BLOCK if self._has_buffers else LONG_BLOCK

    def text(self) -> str:
        """Head, declarations, the loop over blocks, and the sums put away."""
        head = f"static void walk_{self.number}(const i64* t, const i64* item, {SIGNATURE}) {{"
        lines = [head, *self._declarations(), "const auto block = [&](const i64 b, const i64 n)"]
        lines += ["__attribute__((always_inline)) {", *self._block(), "};", "i64 b = item[BEGIN];"]
        # The trip count of a full block is a constant, which spares the loops their heads and tails.
        lines += [f"for (; b + {self.block} <= item[END]; b += {self.block}) block(b, {self.block});"]
        lines += ["if (b < item[END]) block(b, item[END] - b);"]
        lines += [f"S[item[SUMS] + {k}] = sum_{k};" for k in range(len(self.sums))]
        return "\n  ".join(lines) + "\n}"

    def _borders(self) -> list[Node]:
        """Uniforms, rows and columns that the elements are made with."""
        used = {a for node in self.one.elements for a in node.args}
        used |= set(self.one.writes.values()) | {node.args[0] for node in self.one.sums}
        return sorted((n for n in used if n.extent != "element"), key=lambda n: n.number)

    def _kind(self, op: str) -> list[Node]:
        return [node for node in self.one.sums if node.op == op]

    @property
    def _plain(self) -> list[str]:
        """Which of parameter and gradient the pass walks over."""
        names = {node.name for node in self.one.elements if node.op == "input"} | set(self.one.writes)
        return [name for name in ("p", "g") if name in names]

    def _declarations(self) -> list[str]:
        lines = [self.names.step(), *(f"D* __restrict {x} = (D*)t[{x.upper()}];" for x in self._plain)]
        for name in self.touched:
            lines += self.layout.stores[name].declaration()
        lines += [f"const T {_name(n)} = (T)({self.names.small(n, '0')});" for n in self.borders if _is_one(n)]
        streams = self._draws | {int(node.name) for node in self.one.elements if node.op == "random"}
        lines += [f"const u32 key_{s} = stream_key(seed, t[NUMBER], step, {s});" for s in sorted(streams)]
        lines += [f"double sum_{k} = 0;" for k in range(len(self.sums))]
        return lines + self._partial_sums()

    @property
    def _draws(self) -> set[int]:
        """The streams of bits that values are rounded with."""
        coded = {store.place // 2 for store in self.written.values() if store.draws}
        return coded | {_ROUNDING} if self._rounds else coded

    @property
    def _rounds(self) -> bool:
        return self.layout.rounds_at_random and "p" in self.one.writes

    def _partial_sums(self) -> list[str]:
        """Where this piece's row and column sums go; all start at zero."""
        lines, rows, cols = [], self._kind("row_mean"), self._kind("col_mean")
        if rows:
            lines.append("const i64 row_first = item[BEGIN] / t[COLS], row_count = item_rows(item, t[COLS]);")
        for k in range(len(rows)):
            lines.append(f"double* rows_of_{k} = clear(S + item[ROW_SUMS] + {k} * row_count, row_count);")
        for k in range(len(cols)):
            lines.append(f"T* cols_of_{k} = clear((T*)(S + item[COL_SUMS]) + {k} * t[COLS], t[COLS]);")
        factored = [store for store in self.written.values() if store.is_factored]
        if factored:
            lines.append("const i64 square_first = item[BEGIN] / t[SQUARE_COLS];")
            lines.append("const i64 square_count = item_rows(item, t[SQUARE_COLS]);")
        for k, store in enumerate(factored):
            place, cols_at = store.place, f"(T*)(S + item[SQUARE_COL_SUMS]) + {k} * t[SQUARE_COLS]"
            lines.append(f"double* rows_{place} = clear(S + item[SQUARE_ROWS] + {k} * square_count, square_count);")
            lines.append(f"T* cols_{place} = clear({cols_at}, t[SQUARE_COLS]);")
        return lines

    def _block(self) -> list[str]:
        """Decode, compute, encode."""
        lines = [] if not self._has_buffers else [f"fetch({x} + b + n, {self.block});" for x in self._plain]
        lines += ["const Place at = place_of(b, t[COLS]); (void)at;"] if self._has_matrix else []
        lines += ["const Place square = place_of(b, t[SQUARE_COLS]);"] if self._has_square else []
        lines += self._fill()
        lines += [f"T out_{k}[{self.block + PADDING}];" for k in range(len(self.later))]
        lines += [f"T part_{k} = 0;" for k in range(len(self.sums))]
        lines += [f"int most_{store.slot.name} = 0;" for store in self.scaled]
        lines += self._loop()
        lines += [f"sum_{k} += (double)part_{k};" for k in range(len(self.sums))]
        return lines + self._empty()

    def _loop(self) -> list[str]:
        """The loop over the elements; where slots are factored, one for each row of the square."""
        body = ["const i64 i = b + j; (void)i;", *self._elements(), *self._stores(), "}"]
        if not self._has_square:
            return [_VECTORISED, "for (int j = 0; j < (int)n; ++j) {", *body]
        lines = ["EACH_SEGMENT(square, n) {"]
        for name in self.touched:
            store = self.layout.stores[name]
            if store.is_factored:
                lines += store.before_row(name in self.read, name in self.written)
        lines += [_VECTORISED, "for (int q = 0; q < (int)m; ++q) {", "const int j = (int)j_ + q;", *body]
        return [*lines, *(store.after_row() for store in self.written.values() if store.is_factored), "}"]

    @property
    def _has_buffers(self) -> bool:
        return bool(self.later) or self._has_square or any(not _is_one(node) for node in self.borders)

    @property
    def _has_matrix(self) -> bool:
        return any(not _is_one(node) for node in self.borders) or any(n.op.endswith("_mean") for n in self.one.sums)

    @property
    def _has_square(self) -> bool:
        return any(self.layout.stores[name].is_factored for name in self.touched)

    def _fill(self) -> list[str]:
        """What is decoded or spread before the loop over the elements."""
        lines = []
        for name in self.read:
            store = self.layout.stores[name]
            if store.is_factored:
                lines += store.before_block(self.block + PADDING)
            elif store.codec == "int8":
                lines.append(f"const float was_{name} = scale_{name}[b / {SCALE_BLOCK}];")
        for node in self.borders:
            if not _is_one(node):
                array, kind = self.names.small(node, "0").removesuffix("[0]"), node.extent[:3] + "s"
                lines.append(f"T b_{_name(node)}[{self.block + PADDING}];")
                lines.append(f"expand_{kind}<T>(b_{_name(node)}, {array}, at, n);")
        return lines

    def _later(self) -> list[tuple[Node, str]]:
        """What is put aside for after the loop, with what is then done with it; nothing more for 8-bit slots."""
        later = [(self.one.writes[store.slot.name], "") for store in self.scaled]
        signed = [store for store in self.written.values() if store.is_factored and store.slot.signed]
        later += [(self.one.writes[store.slot.name], store.after_block("BUFFER")) for store in signed]
        for k, node in enumerate(self._kind("row_mean")):
            later.append((node.args[0], f"add_rows<T>(rows_of_{k}, BUFFER, row_first, at, n);"))
        for k, node in enumerate(self._kind("col_mean")):
            later.append((node.args[0], f"add_cols<T>(cols_of_{k}, BUFFER, at, n);"))
        return later

    def _elements(self) -> list[str]:
        lines = [f"const T {_name(n)} = b_{_name(n)}[j];" for n in self.borders if not _is_one(n)]
        lines += [f"const T {_name(n)} = get<T>(s_{name}, i);" for n, name in self.one.reread.items()]
        for node in self.one.elements:
            lines.append(f"const T {_name(node)} = {self._value(node)};")
        return lines

    def _value(self, node: Node) -> str:
        if node.op == "random":
            return f"random_at<T>(key_{node.name}, (u32)b + (u32)j)"
        if node.op != "input":
            return expression(node, _name, "T")
        return f"get<T>({node.name}, i)" if node.name in ("p", "g") else self.layout.stores[node.name].read()

    def _stores(self) -> list[str]:
        inside = {s.place // 2 for s in self.written.values() if s.codec == "bf16"} | (self._draws & {_ROUNDING})
        lines = [f"const u32 draw_{s} = draw_at(key_{s}, (u32)b + (u32)j);" for s in sorted(inside)]
        lines += [f"part_{k} += (T){_name(node.args[0])};" for k, node in enumerate(self.sums)]
        for name, node in self.one.writes.items():
            store: Store | None = self.layout.stores.get(name)
            if store is None:
                random, bits = ("_at_random", f", half_of(draw_{_ROUNDING}, 0)") if self._rounds else ("", "")
                lines.append(f"put{random}<T>(p, i, {_name(node)}{bits});")
            elif store.is_factored:
                lines += store.gather(_name(node))
            elif store.codec != "int8":
                lines.append(store.write(_name(node)))
        for store in self.scaled:
            lines.append(f"raise(most_{store.slot.name}, {_name(self.one.writes[store.slot.name])});")
        return lines + [f"out_{k}[j] = (T){_name(node)};" for k, (node, _) in enumerate(self.later)]

    def _empty(self) -> list[str]:
        """Encode what waited for its block's scale, and gather rows and columns."""
        lines = []
        for store in self.scaled:
            name = store.slot.name
            lines.append(f"scale_{name}[b / {SCALE_BLOCK}] = from_bits((u32)most_{name});")
            lines.append(f"const float over_{name} = one_over(from_bits((u32)most_{name}));")
        if self.scaled:
            draws = [
                f"const u32 draw_{s} = draw_at(key_{s}, (u32)b + (u32)j);"
                for s in sorted({x.place // 2 for x in self.scaled})
            ]
            encoded = [store.write_late(f"out_{k}") for k, store in enumerate(self.scaled)]
            head = [_VECTORISED, "for (int j = 0; j < (int)n; ++j) {", "const i64 i = b + j;"]
            lines += [*head, *draws, *encoded, "}"]
        return lines + [statement.replace("BUFFER", f"out_{k}") for k, (_, statement) in enumerate(self.later)]


def _is_one(node: Node) -> bool:
    return node.extent == "uniform"


def _name(node: Node) -> str:
    return f"{node.extent[0]}_{node.number}"
