"""Find the operation that made the first NaN or infinity. Slow: for a run that went wrong and is repeated.

    with AnomalyWatch(model, batch):
        loss = criterion(model(batch["inputs"]), batch["targets"])
        loss.backward()
    # raises NonFiniteOperation, within it or on leaving it

Every operation's outputs are looked at, forward and backward. An operation is the culprit if

    a NaN comes out and none went in         also where infinities went in: infinity - infinity
    an infinity comes out and nothing that is not finite went in

An infinite constant is something that went in: `masked_fill(mask, -inf)`, `full(-inf)` and `where(mask, x, -inf)` are
not blamed, and an infinity that is passed on never is. A NaN that goes into an operation before any was made came from
outside: with the batch, or with a constant. Formulas of derivatives may divide by zero and replace the result (a norm
at 0): of a backward pass the whole node is judged by what it hands on. And a mask may cut off what is not finite, of
labels as of derivatives (the root under a ReLU). So what is made in the forward pass is reported at once; what came
from outside, or was made in the backward pass, at the end, and only if gradients are not finite by then, or there are
none.

What `torch.compile` made is not looked into: hand over, and call, the plain model.
"""

from __future__ import annotations

import linecache
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._autograd import _get_sequence_nr
from torch.autograd.graph import Node
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

from ava.optimization.gradients.health.nonfinite_operation import NonFiniteOperation, Phase, Span

_TORCH = str(Path(torch.__file__).parent)
_HERE = __file__
_UNWRITTEN = ("empty", "new_empty", "resize", "_efficientzerotensor")
"""What gives memory whose content means nothing yet."""

_ARITHMETIC = ("add", "sub", "mul", "div", "pow")


@dataclass(frozen=True)
class _Call:
    """Where an operation was called."""

    operation: str
    phase: Phase
    module: str | None
    place: str | None
    source: str


class AnomalyWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A context around forward and backward that says where the first NaN or infinity was made.

    Args:
        model: the plain model; its parameters and buffers are looked at first.
        batch: what goes in by name, so that a tensor that holds a NaN can be named.
        gradients: what the backward pass left, where that is not in the parameters' `.grad`.

    Raises:
        NonFiniteOperation: on entry where a parameter is not finite, within it, or on leaving it.
    """

    def __init__(
        self, model: nn.Module, batch: Mapping[str, Any] | None = None,
        gradients: Callable[[], Iterable[Tensor]] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()  # type: ignore[no-untyped-call]
        self.model, self.batch = model, batch or {}
        self._gradients = gradients or (lambda: (p.grad for p in model.parameters() if p.grad is not None))
        self._path: list[str] = []
        self._has_run = self._has_differentiated = False
        self._calls: dict[int, _Call] = {}
        self._found: NonFiniteOperation | None = None
        self._outside: NonFiniteOperation | None = None
        self._is_judging = False
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> AnomalyWatch:
        _check_weights(self.model)
        self._path, self._calls = [], {}
        self._has_run = self._has_differentiated = False
        self._found = self._outside = None
        for name, module in self.model.named_modules():
            self._handles.append(module.register_forward_pre_hook(self._entering(name)))
            self._handles.append(module.register_forward_hook(self._left, always_call=True))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        super().__exit__(kind, *rest)  # type: ignore[no-untyped-call]
        for handle in self._handles:
            handle.remove()
        self._handles, self._calls = [], {}
        wrong = self._found or self._outside
        if kind is None and wrong is not None and not self._is_well():
            raise wrong

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._is_judging:
            return func(*args, **kwargs)
        self._has_differentiated |= torch._C._current_autograd_node() is not None
        name: str = func.overloadpacket.__name__
        call = self._call(name.removeprefix("_"))
        # An operation in place leaves nothing of what went in.
        before = _spans((args, kwargs)) if func._schema.is_mutable else None
        result = func(*args, **kwargs)
        if not name.startswith(_UNWRITTEN) and not all(map(_is_finite, tree_leaves(result))):
            inputs = _spans((args, kwargs)) if before is None else before
            self._judge(call, inputs + _numbers(name, args), _spans(result), args, kwargs)
        return result

    def _call(self, name: str) -> _Call:
        """Where this operation is called; remembered by the autograd node that it will be differentiated by."""
        phase: Phase = "forward" if self._path or not self._has_run else "loss"
        call = _Call(name, phase, self._path[-1] if self._path else None, *_outside_torch(sys._getframe(2)))
        # The newest node is this operation's, or was named already; within a custom function it is the function's.
        self._calls.setdefault(_get_sequence_nr() - 1, call)
        return call

    def _judge(self, call: _Call, inputs: list[Span], outputs: list[Span], args: Any, kwargs: Any) -> None:
        constants = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, float)]
        nan_in = any(span.has_nan for span in inputs) or any(map(math.isnan, constants))
        inf_in = any(span.has_inf for span in inputs) or any(map(math.isinf, constants))
        makes_nan = any(span.has_nan for span in outputs)
        if nan_in and self._found is None:
            self._outside = self._outside or self._came_in(call, inputs)
        elif not nan_in and (makes_nan or not inf_in):
            made, node = "NaN" if makes_nan else "infinity", torch._C._current_autograd_node()
            if node is None or torch.is_grad_enabled():  # a checkpointed forward runs within a backward pass
                raise NonFiniteOperation(
                    call.operation, made, call.phase, module=call.module, place=call.place, source=call.source,
                    inputs=tuple(inputs),
                )  # fmt: skip
            self._suspect(node, call, made, tuple(inputs))

    def _suspect(self, node: Node, call: _Call, made: str, inputs: tuple[Span, ...]) -> None:
        """Once the node is done, it is the culprit if what it hands on is not finite."""
        forward = self._calls.get(node._sequence_nr())
        origin = forward or call
        found = NonFiniteOperation(
            call.operation, made, "backward", module=origin.module, place=origin.place, source=origin.source,
            inputs=inputs, node=node.name(), forward=None if forward is None else forward.operation,
        )  # fmt: skip
        if not node.next_functions:
            self._found = self._found or found  # it hands nothing on: it adds to `.grad`
            return

        def judge(handed_on: Any, _: Any) -> None:
            handle.remove()
            self._is_judging = True
            try:
                is_fine = all(map(_is_finite, tree_leaves(handed_on)))
            finally:
                self._is_judging = False
            if not is_fine:
                self._found = self._found or found

        handle = node.register_hook(judge)

    def _is_well(self) -> bool:
        """Whether there are gradients, and all are finite."""
        gradients = list(self._gradients())
        return bool(gradients) and all(map(_is_finite, gradients))

    def _came_in(self, call: _Call, inputs: list[Span]) -> NonFiniteOperation:
        held = [f"`{name}`" for name, value in self.batch.items() if any(s.has_nan for s in _spans(value))]
        carrier = f"the batch's {', '.join(held)}" if held else "a constant or a tensor from before this step"
        if not held and self._has_differentiated and _has_other_ranks():  # a loss is each rank's own
            carrier = "the gradients that another rank sent, whose own message names the operation"
        return NonFiniteOperation(
            carrier, "NaN", "input", module=call.module, place=call.place, source=call.source, inputs=tuple(inputs)
        )

    def _entering(self, name: str) -> Callable[[nn.Module, Any], None]:
        def note(module: nn.Module, inputs: Any) -> None:
            self._path.append(name)
            self._has_differentiated = False

        return note

    def _left(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._path.pop()
        self._has_run = True


def _check_weights(model: nn.Module) -> None:
    """Raise where a parameter is not finite or a buffer holds NaN: a mask may hold infinities."""
    for name, parameter in model.named_parameters():
        if not _is_finite(parameter.detach()):
            made = "NaN" if _span(parameter.detach()).has_nan else "infinity"
            raise NonFiniteOperation(f"parameter `{name}`", made, "parameter")
    for name, buffer in model.named_buffers():
        if not _is_finite(buffer) and _span(buffer).has_nan:
            raise NonFiniteOperation(f"buffer `{name}`", "NaN", "parameter")


def _is_looked_at(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.layout is torch.strided and leaf.device.type != "meta" and leaf.numel() > 0


def _is_finite(leaf: Any) -> bool:
    """True of what is no floating-point tensor."""
    if not _is_looked_at(leaf) or not (leaf.is_floating_point() or leaf.is_complex()):
        return True
    part = _real(leaf)
    low, high = torch.aminmax(part)  # one walk; both are NaN where an element is
    return math.isfinite(float(low)) and math.isfinite(float(high))


def _real(leaf: Any) -> Tensor:
    """The rank's own part, as real numbers of a type that can be compared."""
    part: Tensor = leaf.to_local() if hasattr(leaf, "to_local") else leaf
    if part.is_complex():
        part = torch.view_as_real(part.resolve_conj())
    return part.float() if part.element_size() == 1 else part  # float8


def _spans(tree: Any) -> list[Span]:
    leaves = tree_leaves(tree)
    return [_span(leaf) for leaf in leaves if _is_looked_at(leaf) and (leaf.is_floating_point() or leaf.is_complex())]


def _numbers(name: str, args: tuple[Any, ...]) -> list[Span]:
    """What a tensor is combined with, where that is a number."""
    if name.strip("_") not in _ARITHMETIC or len(args) < 2 or not isinstance(args[1], int | float):
        return []
    number = args[1]
    end = number if math.isfinite(number) else None
    return [Span(end, end, number == 0, math.isnan(number), math.isinf(number), (), "number")]


def _span(leaf: Tensor) -> Span:
    part = _real(leaf.detach())
    finite = part[torch.isfinite(part)]
    ends = [float(end) for end in torch.aminmax(finite)] if finite.numel() else [None, None]
    return Span(
        ends[0], ends[1], bool((finite == 0).any()), bool(torch.isnan(part).any()), bool(torch.isinf(part).any()),
        tuple(leaf.shape), str(leaf.dtype).removeprefix("torch."),
    )  # fmt: skip


def _has_other_ranks() -> bool:
    """Whether gradients may be exchanged within the backward pass."""
    ranks = torch.distributed
    return ranks.is_available() and ranks.is_initialized() and ranks.get_world_size() > 1


def _outside_torch(frame: FrameType | None) -> tuple[str | None, str]:
    """("file:line", its text) of the innermost call that is neither torch's nor this file's."""
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith(_TORCH) and name != _HERE and not name.startswith("<"):
            return f"{name}:{frame.f_lineno}", linecache.getline(name, frame.f_lineno).strip()
        frame = frame.f_back
    return None, ""
