"""Drawing from what a model says."""

from __future__ import annotations

import torch
from torch import Tensor


def draw(logits: Tensor, generator: torch.Generator) -> Tensor:
    """One class for each row of (N, C) logits, with the probabilities of their softmax; (N,) int64, no gradient.

    The largest logit after Gumbel noise is such a draw; unlike torch.multinomial it neither waits for an accelerator
    nor fails on logits that are not finite, which is for the step to judge.
    """
    noise = torch.empty_like(logits).exponential_(generator=generator)
    return (logits.detach() - noise.log()).argmax(dim=1)
