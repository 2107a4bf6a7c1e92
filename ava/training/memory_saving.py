"""Trade time for memory: recompute a block's activations in the backward pass instead of keeping them."""

from __future__ import annotations

import functools

from torch import nn
from torch.utils.checkpoint import checkpoint

from ava.errors import InputError


def checkpoint_activations(model: nn.Module) -> None:
    """Make every module of `model.blocks` forget its inner activations until the backward pass needs them.

    The modules stay what they are, so parameter names and checkpoints do not change.

    Raises:
        InputError: the model has no `blocks`.
    """
    blocks = getattr(model, "blocks", None)
    if not isinstance(blocks, nn.ModuleList | nn.Sequential) or len(blocks) == 0:
        raise InputError(
            f"{type(model).__name__} has no `blocks` (an nn.ModuleList or nn.Sequential) to recompute.",
            key="trainer.activation_checkpointing", value=True, hint="Give the model one, or turn this off.",
        )  # fmt: skip
    for block in blocks:
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
