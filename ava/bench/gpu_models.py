"""Whole training steps of `ava bench gpu`: MFU in bf16, and what fp8 gains end to end."""

from __future__ import annotations

import gc

import torch

from ava.bench.gpu_setup import Scale, Tell, build, flops_per_sample, peak_bytes, step_seconds
from ava.reporting.peaks import device_name, peak_flops


def mfu(scale: Scale, tell: Tell) -> None:
    """GPTs of 350M to 1.5B parameters at sequence 2048, bf16, compiled."""
    context = scale.pick(2048, 32)
    for preset, batch_size in scale.pick([("350m", 16), ("1558m", 8)], [("1m", 2)]):
        run = build(
            scale, [f"model.preset={preset}", "precision=bf16", *scale.compile], context=context, batch_size=batch_size
        )
        flops = flops_per_sample(run)
        peak_bytes(scale.device)
        took = step_seconds(run, scale.pick(5, 1))
        achieved = flops * batch_size / took
        peak = peak_flops(device_name(scale.device), "bf16")
        tell({preset: {
            "ms": took * 1e3, "tokens_per_second": batch_size * context / took, "tflops": achieved / 1e12,
            "mfu": None if peak is None else achieved / peak, "peak_bytes": peak_bytes(scale.device),
            "parameters": sum(p.numel() for p in run.model.parameters()), "batch_size": batch_size, "context": context,
        }})  # fmt: skip
        del run
        _free()


def fp8_end_to_end(scale: Scale, tell: Tell) -> None:
    """A GPT of width 4096 in bf16 and in each recipe of fp8, compiled."""
    context, batch_size = scale.pick(2048, 32), scale.pick(8, 2)
    width, heads, layers = scale.pick((4096, 32, 4), (64, 2, 2))
    size = [f"model.width={width}", f"model.heads={heads}", f"model.layers={layers}"]
    base = None
    recipes = scale.pick(["tensorwise", "rowwise", "delayed"], ["tensorwise", "delayed"])
    for name in ("bf16", *recipes):
        precision = ["precision=bf16"] if name == "bf16" else [*scale.fp8, f"precision.recipe={name}"]
        try:
            run = build(scale, [*size, *precision, *scale.compile], context=context, batch_size=batch_size)
            took = step_seconds(run, scale.pick(5, 1))
        except Exception as error:  # one recipe that fails is no reason to lose the others' figures
            tell({name: {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}})
            continue
        base = took if name == "bf16" else base
        gain = None if base is None or name == "bf16" else base / took
        tell({name: {"ms": took * 1e3, "speedup": gain}})
        del run
        _free()


def _free() -> None:
    gc.collect()
    torch._dynamo.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
