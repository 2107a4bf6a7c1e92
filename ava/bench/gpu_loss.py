"""What fp8 costs in loss, in `ava bench gpu`: the same training in bf16 and in fp8."""

from __future__ import annotations

import torch

from ava.bench.gpu_setup import Scale, Tell
from ava.config.compose import compose
from ava.config.parts import build_run
from ava.data.loader import Position
from ava.distributed.world import World
from ava.training.step import training_step


def fp8_loss(scale: Scale, tell: Tell) -> None:
    """1,000 steps of GPT-2's smallest on the standard library's text; the mean loss of the last 50 steps.

    Its layers are smaller than what the filter converts, so they are asked for.
    """
    base = None
    for recipe in (None, "tensorwise", "rowwise", "delayed"):
        precision = ["precision=bf16"]
        if recipe is not None:
            precision = [*scale.fp8, f"precision.recipe={recipe}", "precision.include=[blocks.*]"]
        name = recipe or "bf16"
        try:
            loss = _loss(scale, [*precision, *scale.compile])
        except Exception as error:  # one recipe that fails is no reason to lose the others' figures
            tell({name: {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}})
            continue
        base = loss if recipe is None else base
        tell({name: {"loss": loss, "over_bf16": None if base is None else loss / base}})
        torch._dynamo.reset()


def _loss(scale: Scale, overrides: list[str]) -> float:
    steps, last = scale.pick(1000, 3), scale.pick(50, 1)
    config = compose([
        "task=stdlib_lm", f"model.preset={scale.pick('124m', '1m')}", f"data.context={scale.pick(1024, 32)}",
        f"trainer.batch_size={scale.pick(8, 2)}", f"trainer.max_steps={steps}", "optimizer.lr=6e-4",
        f"scheduler.warmup_steps={scale.pick(100, 0)}", f"trainer.device={scale.device.type}", *overrides,
    ])  # fmt: skip
    run, _ = build_run(config, World(0, 1, scale.device))
    run.network.train()
    means = []
    for window in run.loader.windows(Position()):
        report = training_step(run, window)
        if run.step > steps - last:
            means.append(report.losses["loss"] * report.weight)
        if run.step == steps:
            break
    return float(torch.stack(means).mean())
