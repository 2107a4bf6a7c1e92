"""What a configuration says that advice depends on."""

from __future__ import annotations

import math

import torch

from ava import registry
from ava.config.schema import Config
from ava.data.source import ImageSpec, TokenSpec
from ava.errors import InputError
from ava.training.history import Setting
from ava.training.memory_host import free_memory, resident
from ava.training.state import Run


def setting(config: Config, training: Run, total_steps: int) -> Setting:
    """The setting of a run that was built from `config`."""
    # Prodigy and its kin find the rate: what they call `lr` is a factor on it.
    rate = None if "d_coef" in training.optimizer.defaults else training.optimizer.defaults.get("lr")
    return Setting(
        total_steps=total_steps, lr=None if rate is None else float(rate), workers=config.trainer.workers,
        prefetch=config.trainer.prefetch, accumulate=training.loader.accumulate, clip=config.trainer.clip,
        clip_norm=_clip_norm(config), chance_loss=_chance(training), memory_limit=_memory(training.world.device),
        num_samples=len(training.loader.split), batch_size=training.loader.batch_size,
    )  # fmt: skip


def _clip_norm(config: Config) -> float | None:
    """Of the clip that has a fixed one."""
    if config.trainer.clip != "norm":
        return None
    given = config.trainer.clip_norm
    return float(registry.clip["norm"].defaults["clip_norm"] if given is None else given)


def _chance(training: Run) -> float | None:
    """The cross-entropy of guessing, where one class or token is to be told."""
    spec = training.task.data.spec
    if isinstance(spec, TokenSpec):
        return math.log(spec.vocab_size)
    return math.log(spec.num_classes) if isinstance(spec, ImageSpec) else None


def _memory(device: torch.device) -> float | None:
    """What there is in all: of an accelerator its own memory, else what this process holds and could still take."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    try:
        return float(resident() + free_memory())
    except (InputError, OSError):
        return None
