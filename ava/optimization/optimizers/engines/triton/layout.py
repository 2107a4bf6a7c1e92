"""What the printer and the host agree on: columns of tables, places in scratch memory, the kernel's arguments."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import torch

from ava.optimization.optimizers.engines.tracing.graph import Graph, Node, Untraceable
from ava.optimization.optimizers.engines.tracing.passes import Schedule, schedule
from ava.optimization.optimizers.engines.triton.storage import TYPES, Store
from ava.optimization.optimizers.sentence import Sentence, own_slots
from ava.optimization.optimizers.storage.choice import codec_name

COLUMNS = (
    "N", "ROWS", "COLS", "SQUARE", "BASE", "FIRST_PIECE", "NUM_PIECES", "ROW_ARRAYS", "COL_ARRAYS", "ROW_PARTS",
    "COL_PARTS", "SQUARE_ROW_PARTS", "SQUARE_COL_PARTS", "P", "STEP",
)  # fmt: skip
"""One row of the table a parameter; the parts of its slots follow.

BASE is what sets its random numbers apart; the PARTS and ARRAYS are places in the scratch memory.
"""
COLUMN = {name: place for place, name in enumerate(COLUMNS)}

CHUNK = 1024
"""Elements of a piece, which one program updates; whole blocks of 8-bit slots."""
TILE = 64
"""Rows and columns of a tile, which one program sums along both."""
LANES = 1024
"""Rows or columns that are worked out at once between two passes."""
SUM_LANES, SUM_DEPTH = 256, 16
"""Rows or columns, and tiles of each, that are added up at once: enough to hide how long memory takes to answer."""
ROUNDING = 15
"""The stream of random bits that parameters are rounded with."""


@dataclass
class Layout:
    """A sentence's kernels, before they are printed.

    Attributes:
        graph: the recorded sentence.
        schedule: its passes.
        stores: slots of the parameter's shape, by name.
        small: slots that are rows, columns or single numbers -> their column of the table.
        inputs: hyperparameters, in the order in which the host passes them.
        on_device: those of them that are tensors of one element there.
        common: slots that all parameters share, in that order.
        dtype: the parameters' type.
        rounds_at_random: whether parameters are.
        counts: whether parameters have a counter.
        is_aligned: whether every address is a multiple of 16.
        places: uniform, row or column node -> its place among those of its extent.
    """

    graph: Graph
    schedule: Schedule
    stores: dict[str, Store]
    small: dict[str, int]
    inputs: list[str]
    on_device: Collection[str]
    common: list[str]
    dtype: torch.dtype
    rounds_at_random: bool
    counts: bool
    is_aligned: bool
    places: dict[Node, int] = field(default_factory=dict)

    @property
    def number(self) -> str:
        """The Triton type that is computed in."""
        return "tl.float64" if self.dtype is torch.float64 else "tl.float32"

    @property
    def storage(self) -> str:
        """The Triton type of a parameter's element."""
        return TYPES[str(self.dtype)]

    @property
    def width(self) -> int:
        """Columns of the table of parameters."""
        return len(COLUMNS) + sum(len(s.parts("")) for s in self.stores.values()) + len(self.small)

    @property
    def totals(self) -> list[str]:
        """Names of the sums over all parameters."""
        return list(self.graph.totals)

    @property
    def breaks(self) -> list[int]:
        """The passes after which sums over all parameters have to be told."""
        return sorted(set(self.told.values()))

    @property
    def told(self) -> dict[str, int]:
        """For each sum over all parameters, the pass that gathers the last of it."""
        return {node.name: node.level - 1 for node in self.graph.nodes if node.op == "total"}

    @property
    def end(self) -> int:
        """The number that stands for what comes behind the last pass."""
        return len(self.schedule.passes)

    @property
    def streams(self) -> list[int]:
        """The streams of random bits that are drawn from."""
        slots = {store.place // 2 for store in self.stores.values() if store.draws}
        drawn = {int(node.name) for node in self.graph.nodes if node.op == "random"}
        return sorted(slots | drawn | ({ROUNDING} if self.rounds_at_random else set()))

    @property
    def num_uniforms(self) -> int:
        """Numbers kept a parameter: its step, its streams' keys, its uniforms."""
        return 1 + len(self.streams) + self.num_places("uniform")

    def uniform(self, node: Node) -> int:
        """A uniform's place among them."""
        return 1 + len(self.streams) + self.places[node]

    def num_places(self, extent: str) -> int:
        """How many nodes of an extent are kept."""
        return sum(node.extent == extent for node in self.places)

    def gathered(self, op: str) -> int:
        """How many reductions of some kinds one pass gathers at most."""
        return max(sum(node.op in op.split() for node in one.sums) for one in self.schedule.passes)

    @property
    def factored(self) -> list[Store]:
        """The slots whose magnitudes are summed along the rows and columns of a square."""
        written = {name for one in self.schedule.passes for name in one.writes}
        return [s for name, s in self.stores.items() if s.codec == "factored" and name in written]


def lay_out(
    graph: Graph, sentence: Sentence, state: str, dtype: torch.dtype, *, is_small: bool, rounds_at_random: bool,
    counts: bool, on_device: Collection[str], is_aligned: bool,
) -> Layout:  # fmt: skip
    """Decide where everything is.

    Args:
        graph: the recorded sentence.
        sentence: the sentence itself.
        state: the option that names the codec.
        dtype: the parameters' type.
        is_small: whether the parameters are too small for 8 bits.
        rounds_at_random: whether 16-bit parameters are rounded at random.
        counts: whether parameters count their updates.
        on_device: inputs that are tensors.
        is_aligned: whether every address is a multiple of 16.

    Raises:
        Untraceable: the sentence needs what these kernels cannot do.
    """
    column, stores, small = len(COLUMNS), {}, {}
    for place, slot in enumerate(own_slots(sentence)):
        if slot.shape == "full":
            stores[slot.name] = Store(slot, codec_name(slot, state, is_small=is_small), column, place)
            column += len(stores[slot.name].parts(""))
        else:
            small[slot.name], column = column, column + 1
    wide = dtype in (torch.float32, torch.float64)
    plan = schedule(graph, [name for name, store in stores.items() if store.codec == "dense" and wide])
    _refuse(graph, plan, stores, dtype)
    inputs = sorted({n.name for n in graph.nodes if n.op == "input" and (n.name[:2] == "h." or n.name == "grad_scale")})
    common = [slot.name for slot in graph.slots if slot.shape == "optimizer"]
    layout = Layout(
        graph, plan, stores, small, inputs, on_device, common, dtype, rounds_at_random, counts, is_aligned
    )  # fmt: skip
    counters: dict[str, int] = {}
    for node in (node for level in plan.between for node in level if node.op != "constant"):
        layout.places[node] = counters.get(node.extent, 0)
        counters[node.extent] = layout.places[node] + 1
    return layout


def _refuse(graph: Graph, plan: Schedule, stores: dict[str, Store], dtype: torch.dtype) -> None:
    if any(name in stores or name == "p" for name in plan.results):
        raise Untraceable("what has the parameter's shape gets one number")
    if dtype is torch.float64 and any(node.op == "atan2" for node in graph.nodes):
        raise Untraceable("there is no arc tangent in double precision")
    if any(node.extent in ("row", "column") or node.op == "constant" for node in graph.totals.values()):
        raise Untraceable("what is summed over all parameters has no kernel that adds it")
    if any(node.op == "sum" and node.args[0].extent == "uniform" for level in plan.between for node in level):
        raise Untraceable("a sum over one number")
