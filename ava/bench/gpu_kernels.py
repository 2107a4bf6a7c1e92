"""Single operations of `ava bench gpu`: linear layers in fp8, and the optimizer's step."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ava.bench.gpu_setup import Scale, Tell, seconds
from ava.optimization import OptimizerFactory


def fp8_linear(scale: Scale, tell: Tell) -> None:
    """Forward and backward of one linear layer, compiled, in bf16 and in each recipe; and what the filter would do."""
    from ava.optimization.precision.float8.filter import too_small
    from ava.optimization.precision.float8.training import prepare_float8

    shapes = [(8192, 4096, 4096), (16384, 4096, 16384), (16384, 8192, 8192), (8192, 1024, 1024), (8192, 2048, 2048)]
    for rows, k, n in scale.pick(shapes, [(32, 64, 64)]):
        base = _linear_seconds(scale, rows, nn.Linear(k, n, bias=False))
        found: dict[str, Any] = {"bf16_ms": base * 1e3}
        for recipe in ("tensorwise", "rowwise", "delayed"):
            layer = nn.Linear(k, n, bias=False)
            model = nn.Sequential(layer, nn.Identity()).to(scale.device)
            kept = too_small(layer, recipe)
            try:
                prepare_float8(model, device=scale.device, recipe=recipe, include=("0",), emulate=scale.tiny)
                took = _linear_seconds(scale, rows, model)
            except Exception as error:  # one recipe that fails is no reason to lose the others' figures
                found[recipe] = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
                continue
            found[recipe] = {"ms": took * 1e3, "speedup": base / took, "filter": kept or "converts"}
        tell({f"{rows}x{k}x{n}": found})


def _linear_seconds(scale: Scale, rows: int, layer: nn.Module) -> float:
    """One forward and backward pass under bf16 autocast, on random values: a GPU is faster on zeros."""
    layer = layer.to(scale.device)
    width = next(layer.parameters()).shape[1]
    # A compiler that has met eight shapes gives up on the ninth, and says so only in its log.
    torch._dynamo.reset()
    network: Any = layer if scale.tiny else torch.compile(layer, dynamic=False)
    inputs = torch.randn(rows, width, device=scale.device, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast(scale.device.type, dtype=torch.bfloat16):
        out_like = torch.randn_like(network(inputs))

    def work() -> None:
        inputs.grad = None
        layer.zero_grad(set_to_none=True)
        with torch.autocast(scale.device.type, dtype=torch.bfloat16):
            out = network(inputs)
        out.backward(out_like)

    return seconds(scale.device, work, scale.pick(20, 1))


def _copy_rate(scale: Scale, elements: int) -> float:
    """Bytes read and written each second by a plain copy of float32."""
    source = torch.randn(elements, device=scale.device)
    target = torch.empty_like(source)
    return 2 * 4 * elements / seconds(scale.device, lambda: target.copy_(source), scale.pick(10, 1))


def optimizer(scale: Scale, tell: Tell) -> None:
    """AdamW over 350M float32 parameters: bytes that a step must move, over its time, beside a copy's.

    A step reads weight, gradient and two moments, and writes all but the gradient: 7 x 4 bytes a parameter.
    """
    elements = scale.pick(2**30, 2**20)
    copied = _copy_rate(scale, elements)
    tell({"copy_bytes_per_second": copied})
    sizes = [(1024, 1024)] * 100 + [(4096, 1024), (1024, 4096)] * 28 + [(1024,)] * 49 + [(16384, 1024)]
    for name in ("ava", "torch"):
        parameters = [nn.Parameter(torch.randn(size, device=scale.device)) for size in scale.pick(sizes, sizes[:4])]
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter) * 1e-3
        step = _adamw(name, parameters).step
        took = seconds(scale.device, step, scale.pick(10, 1))
        moved = 28 * sum(parameter.numel() for parameter in parameters) / took
        tell({name: {"ms": took * 1e3, "bytes_per_second": moved, "share_of_copy": moved / copied}})
        del parameters


def _adamw(name: str, parameters: list[nn.Parameter]) -> Any:
    if name == "ava":
        return OptimizerFactory.create("adamw", parameters, lr=1e-4)
    return torch.optim.AdamW(parameters, lr=1e-4, fused=True)
