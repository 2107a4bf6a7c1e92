"""What a sentence computes, recorded: a graph of operations on symbols, each with its extent and its pass.

A rule is called once with symbols for operands. Each operation becomes a node; equal nodes are one. A node knows

    its extent   "uniform": one number a parameter; "row" or "column": one a row or column; "element": one an element
    its level    how many reductions lie below it: a sum over the elements of a node of level 0 has level 1, for all of
                 pass 0 has to be over before it is known

so that the kernel's passes over memory follow from the graph: reductions of level k + 1 are gathered in pass k, and
everything that is written, in the last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ava.optimization.optimizers.sentence import Operands, Sentence, Slot, slots_of

Extent: TypeAlias = Literal["uniform", "row", "column", "element"]


class Untraceable(Exception):  # noqa: N818
    """The sentence has a stage that is no arithmetic: a function of whole tensors."""


@dataclass(frozen=True, eq=False)
class Node:
    """One operation.

    Attributes:
        op: its name; of an input "input", of a number "constant".
        args: the nodes it works on.
        extent: how far its value reaches.
        level: how many reductions lie below it.
        name: of an input: which; of a constant: its digits; of a random number: its stream.
        is_flag: whether it is true or false.
        number: its place in the order of recording.
    """

    op: str
    args: tuple[Node, ...]
    extent: Extent
    level: int
    name: str = ""
    is_flag: bool = False
    number: int = 0


def _joined(args: tuple[Node, ...]) -> Extent:
    extents = {node.extent for node in args} - {"uniform"}
    if not extents:
        return "uniform"
    return extents.pop() if len(extents) == 1 else "element"


class Recorder:
    """Collects nodes, each once."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._known: dict[tuple[Any, ...], Node] = {}

    def add(
        self, op: str, args: tuple[Node, ...] = (), name: str = "", extent: Extent | None = None, deeper: int = 0,
        is_flag: bool = False,
    ) -> Node:  # fmt: skip
        """The node of an operation; the same one for the same operation."""
        key = (op, name, *(node.number for node in args))
        if key not in self._known:
            level = max((node.level for node in args), default=0) + deeper
            node = Node(op, args, extent or _joined(args), level, name, is_flag, len(self.nodes))
            self._known[key] = node
            self.nodes.append(node)
        return self._known[key]

    def constant(self, value: float) -> Node:
        """A number."""
        return self.add("constant", name=repr(float(value)), extent="uniform")

    def node(self, value: Any) -> Node:
        """The node of a symbol or number."""
        if isinstance(value, Symbol):
            return value.node
        if isinstance(value, bool | int | float):
            return self.constant(value)
        raise Untraceable(f"{type(value).__name__} is no operand")


def _binary(op: str, is_flag: bool = False) -> Callable[[Symbol, Any], Symbol]:
    return lambda self, other: self._apply(op, self, other, is_flag=is_flag)


def _reflected(op: str) -> Callable[[Symbol, Any], Symbol]:
    return lambda self, other: self._apply(op, other, self)


def _unary(op: str) -> Callable[[Symbol], Symbol]:
    return lambda self: self._apply(op, self)


class Symbol:
    """An operand whose operations are recorded."""

    __slots__ = ("_recorder", "node")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, recorder: Recorder, node: Node) -> None:
        self._recorder, self.node = recorder, node

    def _apply(self, op: str, *values: Any, is_flag: bool = False) -> Symbol:
        nodes = tuple(self._recorder.node(value) for value in values)
        folded = _fold(op, nodes)
        node = self._recorder.constant(folded) if folded is not None else self._recorder.add(op, nodes, is_flag=is_flag)
        return Symbol(self._recorder, node)

    def __bool__(self) -> bool:
        raise Untraceable("a rule branches on an operand")

    __add__, __radd__ = _binary("add"), _reflected("add")
    __sub__, __rsub__ = _binary("sub"), _reflected("sub")
    __mul__, __rmul__ = _binary("mul"), _reflected("mul")
    __truediv__, __rtruediv__ = _binary("div"), _reflected("div")
    __mod__, __rpow__ = _binary("mod"), _reflected("pow")
    __gt__, __ge__ = _binary("gt", is_flag=True), _binary("ge", is_flag=True)
    __lt__, __le__ = _binary("lt", is_flag=True), _binary("le", is_flag=True)
    maximum, minimum, atan2 = _binary("max"), _binary("min"), _binary("atan2")
    __neg__, __abs__, abs, sign, sqrt = _unary("neg"), _unary("abs"), _unary("abs"), _unary("sign"), _unary("sqrt")
    exp, log, cos = _unary("exp"), _unary("log"), _unary("cos")

    def __pow__(self, other: Any) -> Symbol:
        squared = isinstance(other, int | float) and other == 2
        return self * self if squared else self.sqrt() if other is not self and _is(other, 0.5) else self._power(other)

    def _power(self, other: Any) -> Symbol:
        return self._apply("pow", self, other)

    def __eq__(self, other: object) -> Symbol:  # type: ignore[override]
        return self._apply("eq", self, other, is_flag=True)

    def clamp(self, min: float | None = None, max: float | None = None) -> Symbol:
        """Between two numbers."""
        low = self if min is None else self.maximum(min)
        return low if max is None else low.minimum(max)

    def choose(self, x: Any, y: Any) -> Symbol:
        """`x` where this is true, else `y`."""
        return self._apply("where", self, x, y)


def _is(value: Any, number: float) -> bool:
    return isinstance(value, int | float) and value == number


def _fold(op: str, nodes: tuple[Node, ...]) -> float | None:
    """The number that an operation on numbers gives, or None."""
    if op not in ("add", "sub", "mul", "div") or any(node.op != "constant" for node in nodes):
        return None
    x, y = (float(node.name) for node in nodes)
    if op == "div":
        return x / y if y else None
    return {"add": x + y, "sub": x - y, "mul": x * y}[op]


class SymbolSpace:
    """The reductions of symbols."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def _reduce(self, op: str, x: Any, extent: Extent) -> Symbol:
        node = self.recorder.node(x)
        # Rows and columns are there between two passes: what reduces them needs no further one.
        deeper = int(node.extent == "element")
        return Symbol(self.recorder, self.recorder.add(op, (node,), extent=extent, deeper=deeper))

    def sum(self, x: Any) -> Symbol:
        """Over the elements."""
        return self._reduce("sum", x, "uniform")

    def row_mean(self, x: Any) -> Symbol:
        """Over the columns of each row."""
        return self._reduce("row_mean", x, "uniform" if self.recorder.node(x).extent == "column" else "row")

    def col_mean(self, x: Any) -> Symbol:
        """Over the rows of each column."""
        return self._reduce("col_mean", x, "uniform" if self.recorder.node(x).extent == "row" else "column")

    def random(self, stream: int) -> Symbol:
        """Uniform numbers."""
        return Symbol(self.recorder, self.recorder.add("random", name=str(16 + stream), extent="element"))

    def apply(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """No kernel can print it."""
        raise Untraceable(f"{getattr(function, '__name__', 'a function')} is a function of whole tensors")


class SymbolHyperparameters:
    """A param group whose numbers are symbols: read when the kernel runs, so that no schedule compiles anew."""

    def __init__(self, recorder: Recorder, group: Mapping[str, Any]) -> None:
        self._recorder, self._group = recorder, group

    def __getattr__(self, name: str) -> Any:
        value = self._group[name]
        if isinstance(value, tuple | list):
            return tuple(self._symbol(f"{name}.{place}", item) for place, item in enumerate(value))
        return self._symbol(name, value)

    def _symbol(self, name: str, value: Any) -> Symbol:
        if isinstance(value, str) or value is None:
            raise Untraceable(f"the hyperparameter {name} is {value!r}, no number")
        return Symbol(self._recorder, self._recorder.add("input", name=f"h.{name}", extent="uniform"))


@dataclass(frozen=True)
class Graph:
    """A recorded sentence.

    Attributes:
        nodes: in an order in which each comes after what it works on.
        outputs: what is written: "p" and the names of slots.
        slots: the state, in order.
        totals: names of the sums over all parameters, with the nodes that hold what is summed.
    """

    nodes: list[Node]
    outputs: dict[str, Node]
    slots: tuple[Slot, ...]
    totals: dict[str, Node]


_EXTENTS: dict[str, Extent] = {
    "full": "element", "row": "row", "column": "column", "scalar": "uniform", "optimizer": "uniform",
}  # fmt: skip


def record(sentence: Sentence, group: Mapping[str, Any], is_scaled: bool) -> Graph:
    """Call every rule once.

    Args:
        sentence: the rules.
        group: a param group, for the names and kinds of its hyperparameters.
        is_scaled: whether gradients are divided by a scale.

    Raises:
        Untraceable: a rule is no arithmetic.
    """
    recorder, slots, totals = Recorder(), slots_of(sentence), {}
    space = SymbolSpace(recorder)

    def read(name: str, extent: Extent) -> Symbol:
        return Symbol(recorder, recorder.add("input", name=name, extent=extent))

    if any(slot.shape not in _EXTENTS for slot in slots):
        raise Untraceable("a slot is a matrix of its own")
    gradient = read("g", "element")
    operands: dict[str, Any] = {slot.name: read(slot.name, _EXTENTS[slot.shape]) for slot in slots}
    t = Operands(
        space, p=read("p", "element"), g=gradient / read("grad_scale", "uniform") if is_scaled else gradient,
        lr=read("h.lr", "uniform"), **{name: read(name, "uniform") for name in ("step", "size", "rows", "cols")},
        **operands,
    )  # fmt: skip
    h: Any = SymbolHyperparameters(recorder, group)
    for word in sentence:
        for name in word.totals:
            node = recorder.node(vars(t)[name])
            totals[name] = node
            total = recorder.add("total", (node,), name=name, extent="uniform", deeper=1)
            setattr(t, name, Symbol(recorder, total))
        word.rule(t, h)
    outputs = {name: recorder.node(vars(t)[name]) for name in ("p", *(slot.name for slot in slots))}
    return Graph(recorder.nodes, outputs, slots, totals)
