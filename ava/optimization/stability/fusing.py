"""A pure function of single numbers as one kernel.

A judgement is some hundred operations on single numbers. One by one an accelerator would spend its time with launching
them, so they are traced, and the compiler makes one kernel of all. Where it cannot (no compiler for the device, or a
function that reads its numbers), they run one by one: the same result, only slower, and a warning says so.

For the compiler to join them they must be loops of one length that end in one store. So every number is spread over as
many lanes as there are results, each lane computes everything, which costs an accelerator nothing, and keeps its own:

    result[i] = function(...)[i]        in lane i
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ava.errors import InputError

Function = Callable[..., list[Any]]
"""Takes a list of numbers and single ones, gives a list of numbers."""
Kernel = Callable[..., Tensor]

OPTIONS: dict[str, Any] = {"max_fusion_size": 4096, "triton.cudagraphs": False, "compile_threads": 1}
"""The compiler stops joining at 64 operations, for the registers of kernels on many numbers. What a recorded graph
gives is overwritten by its next run, and a verdict has to last."""
SPREADING = frozenset({
    "unbind", "select", "expand", "arange", "zeros", "full", "new_full", "scalar_tensor", "_to_copy", "detach", "clone",
})  # fmt: skip
"""What is no arithmetic, and none the less the same in every lane."""
_made: dict[Hashable, Kernel | None] = {}


def one_by_one(function: Function, inputs: list[Any]) -> Tensor:
    """The function's values, operation by operation.

    Args:
        function: of the first input's numbers as a list, and of the others.
        inputs: a 1-D tensor; 0-dim ones and floats.

    Returns:
        What the function gives, 1-D, of the first input's type.
    """
    like, values = inputs[0], _called(function, inputs[0].clone().unbind(), inputs)
    return torch.stack([x.to(like.dtype) if isinstance(x, Tensor) else like.new_full((), x) for x in values])


def fused(
    function: Function, key: Hashable, inputs: list[Tensor], size: int,
    traced: Callable[[], AbstractContextManager[None]],
) -> Tensor | None:  # fmt: skip
    """The function's values by one kernel, which is made at the first call; None where that cannot be.

    Args:
        function: as `one_by_one`'s, and pure.
        key: equal of functions that are the same.
        inputs: a 1-D tensor and 0-dim ones, all on one device.
        size: how many values the function gives.
        traced: what to run the function within while it is traced.

    Warns:
        UserWarning: once for each key: no kernel can be made.
    """
    key = (key, tuple([(tensor.dtype, tensor.device) for tensor in inputs]))
    if key in _made:
        kernel = _made[key]
        return None if kernel is None else kernel(*inputs)
    try:
        kernel = _compiled(partial(_spread, function, size), inputs, traced)
        value = kernel(*inputs)
    except Exception as error:  # whatever tracing and compilers raise: there is a way without them
        _made[key] = None
        _warn(error)
        return None
    _made[key] = kernel
    return value


def _called(function: Function, values: Any, inputs: list[Any]) -> list[Any]:
    wide = inputs[0].dtype
    return function(list(values), *[x.to(wide) if isinstance(x, Tensor) else x for x in inputs[1:]])


def _spread(function: Function, lanes: int, *inputs: Tensor) -> Tensor:
    """The function in every lane; the result of each in its own."""
    spread = [x.expand(lanes) for x in inputs[1:]]
    values = _called(function, [x.expand(lanes) for x in inputs[0].unbind()], [inputs[0], *spread])
    lane = torch.arange(lanes, device=inputs[0].device)
    result = torch.zeros(lanes, dtype=inputs[0].dtype, device=inputs[0].device)
    for place, value in enumerate(values):
        result = torch.where(lane == place, value, result)
    return result


def _compiled(function: Kernel, inputs: list[Tensor], traced: Callable[[], AbstractContextManager[None]]) -> Kernel:
    """Traced by running it once on stand-ins, so that the kernel knows nothing of its Python."""
    with torch.no_grad(), warnings.catch_warnings():
        # The compiler's own, down to deprecations within it.
        warnings.simplefilter("ignore")
        from torch._inductor import compile as compile_graph
        from torch.fx.experimental.proxy_tensor import make_fx

        with traced():
            graph = make_fx(lambda *given: function(*given), tracing_mode="fake")(*inputs)
        _check(graph)
        kernel: Kernel = compile_graph(graph, [*inputs], options=OPTIONS)
    return kernel


def _check(graph: torch.fx.GraphModule) -> None:
    """What looks across lanes would see one number many times."""
    for node in graph.graph.nodes:
        tags, packet = getattr(node.target, "tags", ()), getattr(node.target, "overloadpacket", None)
        if packet is not None and torch.Tag.pointwise not in tags and packet.__name__ not in SPREADING:
            raise InputError(f"{packet.__name__} is no operation on single numbers.")


def _warn(error: Exception) -> None:
    reason = str(error).strip().split("\n")[0][:200]
    warnings.warn(
        "hindrance detection runs as some hundred small kernels a step, which costs milliseconds on an accelerator: "
        f"no single kernel could be made of it ({type(error).__name__}: {reason})",
        stacklevel=2,
    )
