"""Small runs without a run directory."""

import torch

from ava.config.compose import compose
from ava.config.parts import build_run
from ava.distributed.world import World

CPU = World(0, 1, torch.device("cpu"))


def small_run(*overrides: str, world: World = CPU):
    """A run of the default task, composed as on the command line."""
    return build_run(compose(["trainer.batch_size=32", "trainer.max_steps=20", *overrides]), world)


def weights(run) -> torch.Tensor:
    """All parameters in one vector."""
    return torch.cat([p.detach().flatten() for p in run.model.parameters()])
