"""A layout as the text of one C++ file: a function a pass, what happens between passes, and `run`."""

from __future__ import annotations

from importlib import resources

from ava.optimization.optimizers.engines.native.layout import FIRST_UNIFORMS, ITEM_COLUMNS, TENSOR_COLUMNS, Layout
from ava.optimization.optimizers.engines.native.naming import SIGNATURE, Names
from ava.optimization.optimizers.engines.native.printing import expression
from ava.optimization.optimizers.engines.native.walk import walk
from ava.optimization.optimizers.engines.tracing.graph import Node

_FINISH = """
template <class T> static void finish_factored(
    float* row, float* col, const double* S, const i64* t, const i64* items, int number) {
  const i64 cols = t[SQUARE_COLS], rows = (t[N] + cols - 1) / cols;
  std::vector<double> row_sum(rows, 0.0), col_sum(cols, 0.0);
  for (i64 k = t[FIRST_ITEM]; k < t[FIRST_ITEM] + t[NUM_ITEMS]; ++k) {
    add_item_rows(row_sum.data(), S, items + k * ITEM_WIDTH, SQUARE_ROWS, number, cols);
    add_item_cols<T>(col_sum.data(), S, items + k * ITEM_WIDTH, SQUARE_COL_SUMS, number, cols);
  }
  double total = 0;
  for (i64 i = 0; i < cols; ++i) total += col_sum[i];
  total = total > 1e-37 ? total : 1e-37;
  for (i64 i = 0; i < rows; ++i) row[i] = (float)row_sum[i];
  for (i64 i = 0; i < cols; ++i) col[i] = (float)(col_sum[i] / total);
}
"""

_RUN = """
extern "C" void run(
    i64 first, i64 last, i64 threads, i64 seed, const i64* table, const i64* items, i64 num_waves, const i64* waves,
    const double* h, double* common, double* totals, double* S) {
  if (first == 0 && num_waves) shared_uniforms(table, S, h, common, totals);
  #pragma omp parallel num_threads(threads) if (threads > 1)
  for (i64 w = 0; w < num_waves; ++w) {
    const i64* wave = waves + 4 * w;
    for (i64 k = first; k <= last && k <= LAST_PASS; ++k) {
      #pragma omp for schedule(static)
      for (i64 i = wave[0]; i < wave[1]; ++i) {
        if (i + 8 < wave[1] && table[(i + 8) * WIDTH + STEP]) __builtin_prefetch((void*)table[(i + 8) * WIDTH + STEP]);
        between(k, table + i * WIDTH, items, S, h, common, totals, seed);
      }
      #pragma omp for schedule(dynamic)
      for (i64 i = wave[2]; i < wave[3]; ++i) {
        const i64* item = items + i * ITEM_WIDTH;
        walk(k, table + item[TENSOR] * WIDTH, item, S, h, common, totals, seed);
      }
    }
    if (last > LAST_PASS) {
      #pragma omp for schedule(static)
      for (i64 i = wave[0]; i < wave[1]; ++i) {
        const i64* t = table + i * WIDTH;
        between(LAST_PASS + 1, t, items, S, h, common, totals, seed);
        finish(t, i == 0, items, S, h, common, totals, seed);
      }
    }
  }
  collect(last, table, wave_end(num_waves, waves), items, S, h, common, totals);
}
"""


def print_kernel(layout: Layout) -> str:
    """The source of the kernel: the prelude, and what the sentence needs."""
    names, passes = Names(layout), range(len(layout.schedule.passes))
    prelude = resources.files(__package__).joinpath("prelude.hpp").read_text(encoding="utf-8")
    columns = [f"enum {{ {', '.join(TENSOR_COLUMNS)}, WIDTH = {layout.width} }};"]
    columns += [f"enum {{ {', '.join(ITEM_COLUMNS)}, ITEM_WIDTH }};"]
    columns += [f"static const i64 LAST_PASS = {passes[-1]}, FIRST_UNIFORMS = {FIRST_UNIFORMS};"]
    types = [f"typedef {layout.number} T;", f"typedef {layout.storage} D;"]
    body = [
        *(walk(layout, names, number) for number in passes), _switch("walk", "walk", "const i64* item", len(passes)),
        _shared(layout, names), *(_between(layout, names, level) for level in range(len(layout.schedule.between))),
        _switch("between", "between", "const i64* items", len(layout.schedule.between)),
        _FINISH, _finish(layout, names), _collect(layout, names),
    ]  # fmt: skip
    return "\n".join([prelude, *columns, *types, *body, _RUN])


def _switch(name: str, target: str, argument: str, count: int) -> str:
    what = argument.rpartition("* ")[2]
    cases = " ".join(f"if (k == {k}) return {target}_{k}(t, {what}, S, h, common, totals, seed);" for k in range(count))
    return f"static void {name}(i64 k, const i64* t, {argument}, {SIGNATURE}) {{ {cases} }}"


def _shared(layout: Layout, names: Names) -> str:
    """The uniforms that follow from the step and the hyperparameters alone: worked out once for all parameters."""
    lines = ["static void shared_uniforms(const i64* t, double* S, const double* h, double* common, double* totals) {"]
    lines += [names.step(), "S[0] = step;"]
    lines += [line for node in layout.shared for line in _small(layout, names, node)]
    # The first parameter's own places hold them, as its `between` would leave them.
    return "\n  ".join(lines) + "\n}"


def _between(layout: Layout, names: Names, level: int) -> str:
    """What is uniform, a row or a column, before pass number `level`."""
    lines = [f"static void between_{level}(const i64* t, const i64* items, {SIGNATURE}) {{", names.step()]
    kept = [node for node in layout.schedule.between[level] if node in layout.places]
    shared = [node for node in kept if node in layout.shared]
    if shared:
        # Powers of the step cost more than the rest of a small tensor: who is at the same step takes the first one's.
        copies = " ".join(f"{names.small(n, 'i')} = S[FIRST_UNIFORMS + {layout.places[n]}];" for n in shared)
        lines += ["if (step == S[0]) {", copies, "} else {"]
        lines += [line for node in shared for line in _small(layout, names, node)] + ["}"]
    for node in kept:
        if node not in layout.shared:
            lines += _small(layout, names, node)
    return "\n  ".join(lines) + "\n}"


def _small(layout: Layout, names: Names, node: Node) -> list[str]:
    """Work out one uniform, row or column."""
    target, index = names.small(node, "i"), {"row": "ROWS", "column": "COLS"}.get(node.extent)
    loop = f"for (i64 i = 0; i < t[{index}]; ++i) " if index else ""
    if node.op in ("sum", "row_mean", "col_mean"):
        return _reduction(layout, names, node, target, loop)
    if node.op == "input":
        return [f"{loop}{target} = (double)((T*)t[{layout.small[node.name]}])[i];"]
    return [f"{loop}{target} = {expression(node, lambda n: names.small(n, 'i'), 'double')};"]


def _reduction(layout: Layout, names: Names, node: Node, target: str, loop: str) -> list[str]:
    (argument,) = node.args
    share = {"row_mean": " / (double)t[COLS]", "col_mean": " / at_least_1(t[ROWS])", "sum": ""}[node.op]
    if argument.extent != "element":
        index = {"row": "ROWS", "column": "COLS"}[argument.extent]
        over = f"for (i64 i = 0; i < t[{index}]; ++i) sum += {names.small(argument, 'i')};"
        return [f"{{ double sum = 0; {over} {target} = sum{share}; }}"]
    each = "for (i64 k = t[FIRST_ITEM]; k < t[FIRST_ITEM] + t[NUM_ITEMS]; ++k)"
    place = names.gathered(node)
    if node.op == "sum":
        return [f"{target} = 0; {each} {target} += S[items[k * ITEM_WIDTH + SUMS] + {place}];"]
    array, length = target.removesuffix("[i]"), "t[ROWS]" if node.op == "row_mean" else "t[COLS]"
    clear = f"memset({array}, 0, {length} * sizeof(double));"
    if node.op == "row_mean":
        parts = f"add_item_rows({array}, S, items + k * ITEM_WIDTH, ROW_SUMS, {place}, t[COLS]);"
    else:
        parts = f"add_item_cols<T>({array}, S, items + k * ITEM_WIDTH, COL_SUMS, {place}, t[COLS]);"
    return [clear, f"{each} {parts}", f"{loop}{target} = {target}{share};"]


def _finish(layout: Layout, names: Names) -> str:
    """Write the counter, what is not one value an element, and the factors."""
    lines = [f"static void finish(const i64* t, bool is_first, const i64* items, {SIGNATURE}) {{", names.step()]
    for name, node in layout.schedule.results.items():
        value = names.small(node, "i")
        if name in layout.common:
            lines.append(f"if (is_first) common[{len(layout.common) + layout.common.index(name)}] = {value};")
            continue
        index = {"row": "t[ROWS]", "column": "t[COLS]", "uniform": "1"}[names.extent(name)]
        lines.append(f"for (i64 i = 0; i < {index}; ++i) ((T*)t[{layout.small[name]}])[i] = (T){value};")
    written = layout.schedule.passes[-1].writes
    factored = [store for name, store in layout.stores.items() if store.codec == "factored" and name in written]
    for number, store in enumerate(factored):
        lines.append(f"finish_factored<T>({store.pointer()}, {store.pointer(1)}, S, t, items, {number});")
    if layout.counts:
        lines.append("*(float*)t[STEP] += 1.0f;")
    return "\n  ".join(lines) + "\n}"


def _collect(layout: Layout, names: Names) -> str:
    """Sum over all parameters what the last pass gathered for the sums over all."""
    lines = [
        "static i64 wave_end(i64 n, const i64* waves) { return n ? waves[4 * (n - 1) + 1] : 0; }",
        "static void collect(i64 k, const i64* table, i64 num, const i64* items, double* S, const double* h, "
        "const double* common, double* totals) {",
    ]
    for number, (name, node) in enumerate(layout.graph.totals.items()):
        total = next(n for n in layout.graph.nodes if n.op == "total" and n.name == name)
        if node.extent == "element":
            each = "for (i64 j = t[FIRST_ITEM]; j < t[FIRST_ITEM] + t[NUM_ITEMS]; ++j)"
            part = f"{each} sum += S[items[j * ITEM_WIDTH + SUMS] + {names.gathered(total)}];"
        else:
            part = f"{names.step()} sum += {names.small(node, 'i')};"
        loop = f"for (i64 i = 0; i < num; ++i) {{ const i64* t = table + i * WIDTH; {part} }}"
        lines.append(f"if (k == {node.level}) {{ double sum = 0; {loop} totals[{number}] = sum; }}")
    return "\n  ".join(lines) + "\n}"
