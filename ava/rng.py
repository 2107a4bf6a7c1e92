"""The state of every random number generator a training draws from, as plain tensors and numbers."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch


def capture() -> dict[str, Any]:
    """Read all generators of this process.

    Returns:
        A tree for a checkpoint: Python's, numpy's global one, torch's on the CPU, and one tensor for each CUDA
        device (none if this process has not used CUDA).
    """
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": {"version": version, "words": torch.tensor(words, dtype=torch.int64), "gauss": gauss},
        "numpy": {
            "name": str(name),
            "keys": torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "cached": float(cached),
        },
        "torch": torch.get_rng_state(),
        "cuda": list(torch.cuda.get_rng_state_all()) if _cuda_in_use() else [],
    }


def restore(state: dict[str, Any]) -> None:
    """Set all generators to what `capture` read.

    Args:
        state: what `capture` returned. CUDA devices are matched by index; on a machine with fewer of them the
            states of the others have nobody to go to.
    """
    python, numpy = state["python"], state["numpy"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    keys = numpy["keys"].numpy().astype(np.uint32)
    np.random.set_state((numpy["name"], keys, numpy["position"], numpy["has_gauss"], numpy["cached"]))
    torch.set_rng_state(state["torch"])
    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for index, cuda in enumerate(state["cuda"][:devices]):
        torch.cuda.set_rng_state(cuda, index)


def hold() -> Callable[[], None]:
    """Keep all generators of this process as they are, in memory: a tenth of what `capture` costs.

    Returns:
        The way back, which may be gone any number of times.
    """
    python, numpy, torch_ = random.getstate(), np.random.get_state(legacy=True), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if _cuda_in_use() else []

    def back() -> None:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(torch_)
        for index, state in enumerate(cuda):
            torch.cuda.set_rng_state(state, index)

    return back


def seed(number: int) -> None:
    """Let all generators of this process begin anew from a number, 0 <= number < 2^32."""
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


def _cuda_in_use() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
