"""What nodes are called in a kernel's source."""

from __future__ import annotations

from ava.optimization.optimizers.engines.native.layout import Layout
from ava.optimization.optimizers.engines.tracing.graph import Node

SIGNATURE = "double* S, const double* h, double* common, const double* totals, i64 seed"
"""What every function of a kernel gets: scratch memory, hyperparameters, what all parameters share, sums, the seed."""

_SIZES = {"size": "(double)t[N]", "rows": "(double)t[ROWS]", "cols": "(double)t[COLS]", "step": "step"}
_ARRAYS = {"row": ("ROW_ARRAYS", "ROWS"), "column": ("COL_ARRAYS", "COLS")}


class Names:
    """The names of a layout's nodes."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def step(self) -> str:
        """The declaration of the update's number."""
        value = "(double)*(const float*)t[STEP] + 1.0" if self.layout.counts else "1.0"
        return f"const double step = {value}; (void)step;"

    def extent(self, slot: str) -> str:
        """How far a slot reaches."""
        shape = next(s.shape for s in self.layout.graph.slots if s.name == slot)
        return {"row": "row", "column": "column"}.get(shape, "uniform")

    def small(self, node: Node, index: str) -> str:
        """A uniform, row or column, where `t` is the parameter and `index` the place in the row or column."""
        if node.extent in _ARRAYS:
            array, length = _ARRAYS[node.extent]
            return f"(S + t[{array}] + {self.layout.places[node]} * t[{length}])[{index}]"
        if node in self.layout.places:
            return f"S[t[UNIFORMS] + {self.layout.places[node]}]"
        if node.op == "constant":
            return "INFINITY" if node.name == "inf" else "-INFINITY" if node.name == "-inf" else node.name
        if node.op == "total":
            return f"totals[{self.layout.totals.index(node.name)}]"
        if node.name in _SIZES:
            return _SIZES[node.name]
        if node.name in self.layout.common:
            return f"common[{self.layout.common.index(node.name)}]"
        if node.name in self.layout.small:
            return f"(double)*(T*)t[{self.layout.small[node.name]}]"
        return f"h[{self.layout.inputs.index(node.name)}]"

    def gathered(self, node: Node) -> int:
        """A reduction's place among those of its kind that the same pass gathers."""
        kind = ("sum", "total") if node.op in ("sum", "total") else (node.op,)
        same = [n for n in self.layout.schedule.passes[node.level - 1].sums if n.op in kind]
        return same.index(node)
