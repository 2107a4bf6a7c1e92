"""The factor that brings a norm down to a bound."""

from __future__ import annotations

import torch
from torch import Tensor


def limit(norm: Tensor, bound: Tensor | float) -> Tensor:
    """What a norm is to be multiplied with to be at most `bound`.

        bound / norm where norm > bound, else 1

    There is no epsilon, so the answer does not depend on the gradients' scale. A norm that is not a number gives 1,
    one that is infinite gives 0: such a step is the guard's.

    Args:
        norm: of any shape, at least 0.
        bound: of the same shape, or one for all; above 0 wherever the norm is.

    Returns:
        Factors of 0 to 1, of the norm's shape, on its device; not read here.
    """
    return torch.where(norm > bound, bound / norm, 1.0)
