"""How many floating-point operations a model needs, counted while it runs once.

A matrix product of (M, K) and (K, N) is 2 M K N operations, a convolution the product it amounts to, attention the two
products of all T x T pairs, causal or not; the rest (norms, activations, lookups of embeddings, the optimizer) counts
as nothing. That is the convention of the published MFU figures. A backward pass takes twice the products of its
forward pass, one for each factor's gradient; what is recomputed there to save memory does not count.

    model FLOPs of training = 3 x those of the forward pass

Reference: Chowdhery et al. 2022, PaLM, appendix B, https://arxiv.org/abs/2204.02311
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

TRAINING = 3
"""Forward passes that one forward and backward pass amount to."""


def count_flops(work: Callable[[], Any]) -> int:
    """The operations of the products in `work`, which runs once, without gradients.

    Args:
        work: such as `lambda: model(inputs)`; nothing compiled.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=_OWN) as counter:
        work()
    return int(counter.get_total_flops())


def _attention(query: torch.Size, key: torch.Size, value: torch.Size, *rest: Any, **options: Any) -> int:
    """Of (B, H, T, D) queries and (B, H, S, D) keys and values: q k' and its product with v."""
    return 2 * query.numel() * key[-2] + 2 * query[:-1].numel() * key[-2] * value[-1]


def _integers(a: torch.Size, b: torch.Size, *rest: Any, **options: Any) -> int:
    return 2 * a[0] * a[1] * b[1]


_OWN = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention, torch.ops.aten._int_mm: _integers}
"""Products that torch's counter does not know: operator -> its operations from the shapes of its arguments."""


@contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """Within it a model is evaluated: one sample suffices its norms, nothing is drawn, and its buffers come back."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
