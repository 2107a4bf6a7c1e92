"""The operation that made the first NaN or infinity, in words that a person can act on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

Phase: TypeAlias = Literal["input", "parameter", "forward", "loss", "backward"]


@dataclass(frozen=True)
class Span:
    """What a tensor held.

    Attributes:
        low: its smallest finite element; None where no element is finite.
        high: its largest finite element.
        has_zero: whether an element is 0.
        has_nan: whether an element is not a number.
        has_inf: whether an element is infinite.
        shape: its shape.
        dtype: such as "float32".
    """

    low: float | None
    high: float | None
    has_zero: bool
    has_nan: bool
    has_inf: bool
    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        found = [f"{self.low:.4g} to {self.high:.4g}"] if self.low is not None and self.high is not None else []
        found += ["NaN"] * self.has_nan + ["infinity"] * self.has_inf
        return f"{self.dtype}{list(self.shape)} of {' and '.join(found)}"


class NonFiniteOperation(Exception):  # noqa: N818
    """A NaN or an infinity was made, or came in from outside.

    Attributes:
        operation: the operation's name, such as `log`; for `input` and `parameter` what it came in with.
        made: "NaN" or "infinity".
        phase: what was going on: the batch or a constant held it, a parameter held it before the step, or an operation
            of the model, of the loss (after the model) or of a backward pass made it.
        module: path of the module that ran; "" for the model itself, None outside of it.
        place: "file:line" of the call outside torch, for the backward pass of the forward call; None if not known.
        source: that line's text.
        inputs: what went in.
        node: the backward pass's node, such as `SqrtBackward0`.
        forward: the operation whose backward pass this is, if it is known.
    """

    def __init__(
        self, operation: str, made: str, phase: Phase, *, module: str | None = None, place: str | None = None,
        source: str = "", inputs: tuple[Span, ...] = (), node: str | None = None, forward: str | None = None,
    ) -> None:  # fmt: skip
        self.operation, self.made, self.phase = operation, made, phase
        self.module, self.place, self.source = module, place, source
        self.inputs, self.node, self.forward = inputs, node, forward
        super().__init__(" ".join(filter(None, (self._what(), self._where(), self._cause(), self._inputs()))))

    def _what(self) -> str:
        if self.phase == "parameter":
            return f"{self.operation} held {self.made} before the step. Continue from an earlier checkpoint."
        if self.phase == "input":
            return f"{self.made} came in with {self.operation}, not made by an operation of this step; first used"
        if self.phase == "backward":
            of = f" of `{self.forward}`" if self.forward else ""
            return (
                f"the backward pass{of} ({self.node}) made {self.made} in `{self.operation}`, the forward call stands"
            )
        return f"`{self.operation}` in the {self.phase} made {self.made}"

    def _where(self) -> str:
        if self.phase == "parameter":
            return ""
        module = "" if self.module is None else f"in module `{self.module}` " if self.module else "in the model "
        line = f": `{self.source}`" if self.source else ""
        return f"{module}at {self.place or 'a place that is not known'}{line}."

    def _cause(self) -> str:
        if self.phase in ("parameter", "input"):
            return ""
        cause = cause_of(self.operation, self.inputs)
        if cause is None and self.phase == "backward":
            cause = _BACKWARD.get((self.forward or "").rstrip("_"))
        elif self.phase == "backward" and (more := _BACKWARD.get((self.forward or "").rstrip("_"))):
            cause = f"{cause}; {more}"
        return f"Cause: {cause}." if cause else ""

    def _inputs(self) -> str:
        return f"Inputs: {', '.join(map(str, self.inputs))}." if self.inputs else ""


_BACKWARD = {
    "sqrt": "the derivative of sqrt is infinite at 0: add a small number under the root",
    "pow": "a power below 1 has an infinite derivative at 0: add a small number to the base",
    "linalg_vector_norm": "a norm has no derivative at 0: add a small number, or take the squared norm",
    "norm": "a norm has no derivative at 0: add a small number, or take the squared norm",
    "acos": "the derivative is infinite at -1 and 1: clamp inside of them",
    "asin": "the derivative is infinite at -1 and 1: clamp inside of them",
    "atan2": "atan2 has no derivative at (0, 0)",
    "where": "what `where` does not choose is still differentiated: make its input safe as well",
}
"""Forward operation -> why its derivative may not be finite."""

_LARGEST_EXPONENT = {"float64": 709.78, "float32": 88.72, "bfloat16": 88.72, "float16": 11.09}


def cause_of(operation: str, inputs: tuple[Span, ...]) -> str | None:
    """Why an operation gave NaN or infinity for what went in, if a rule is known."""
    if not inputs:
        return None
    name = operation.removeprefix("_foreach_").strip("_")
    if name in _CAUSES and (cause := _CAUSES[name](inputs)) is not None:
        return cause
    if any(span.has_inf for span in inputs):
        return "an infinity went in, and infinity - infinity, 0 * infinity and infinity / infinity are not numbers"
    if any(span.dtype == "float16" for span in inputs):
        return "float16 ends at 65504: use bfloat16, or scale the values down"
    return None


def _log(inputs: tuple[Span, ...]) -> str | None:
    low = inputs[0].low
    if low is None or low > 0:
        return None
    return f"log of values <= 0: smallest input {low:.4g}; clamp it, or use log_softmax, logsigmoid or log1p"


def _log1p(inputs: tuple[Span, ...]) -> str | None:
    low = inputs[0].low
    return f"log1p of values <= -1: smallest input {low:.4g}" if low is not None and low <= -1 else None


def _root(inputs: tuple[Span, ...]) -> str | None:
    low = inputs[0].low
    if low is not None and low < 0:
        return f"root of negative values: smallest input {low:.4g}"
    return _zero(inputs, 0)


def _divide(inputs: tuple[Span, ...]) -> str | None:
    return _zero(inputs, len(inputs) - 1)


def _reciprocal(inputs: tuple[Span, ...]) -> str | None:
    return _zero(inputs, 0)


def _zero(inputs: tuple[Span, ...], index: int) -> str | None:
    return "division by zero: the divisor holds 0; add a small number to it" if inputs[index].has_zero else None


def _exp(inputs: tuple[Span, ...]) -> str | None:
    high, limit = inputs[0].high, _LARGEST_EXPONENT.get(inputs[0].dtype, 88.72)
    if high is None or high < 0.9 * limit:
        return None
    return f"overflow: largest input {high:.4g}, and {inputs[0].dtype} ends at exp({limit:.4g}); subtract the maximum"


def _power(inputs: tuple[Span, ...]) -> str | None:
    low, high = inputs[0].low, inputs[0].high
    if low is None or high is None:
        return None
    zero = ", and 0 has no negative power" if inputs[0].has_zero else ""
    return f"base from {low:.4g} to {high:.4g}: a fraction is no power of a negative number, powers overflow{zero}"


def _softmax(inputs: tuple[Span, ...]) -> str | None:
    return "a row holds only -infinity: every place of it is masked" if inputs[0].has_inf else None


def _arc(inputs: tuple[Span, ...]) -> str | None:
    return f"defined from -1 to 1 only, inputs lie in {inputs[0].low} to {inputs[0].high}"


_CAUSES: dict[str, Callable[[tuple[Span, ...]], str | None]] = {
    "log": _log, "log2": _log, "log10": _log, "log1p": _log1p, "sqrt": _root, "rsqrt": _root, "div": _divide,
    "reciprocal": _reciprocal, "exp": _exp, "expm1": _exp, "sinh": _exp, "cosh": _exp, "pow": _power,
    "softmax": _softmax, "log_softmax": _softmax, "safe_softmax": _softmax, "acos": _arc, "asin": _arc,
}  # fmt: skip
