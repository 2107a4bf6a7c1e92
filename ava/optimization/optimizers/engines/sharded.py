"""Kernels over shards: which sentences a rank can run on its own part, and how its part of a sum becomes the whole.

What is elementwise needs nothing of other ranks. A sum over the elements of all parameters is added up over ranks, once
for all parameters; a sum over one parameter would have to be known within a pass, and is left to the reference engine.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ava.optimization.optimizers.engines.batch import Totals
from ava.optimization.optimizers.engines.tracing.graph import Graph
from ava.optimization.optimizers.engines.tracing.passes import Schedule


def needs_no_neighbour(graph: Graph, schedule: Schedule, *, draws: bool) -> bool:
    """Whether a rank can run a recorded sentence on its shards, but for sums over the elements of all parameters.

    Args:
        graph: the recorded sentence.
        schedule: its passes.
        draws: whether an element's place chooses random bits.
    """
    only_totals = all(node.op == "total" for one in schedule.passes for node in one.sums)
    return only_totals and not draws and all(node.extent == "element" for node in graph.totals.values())


def over_ranks(parts: Totals, parameter: Any) -> Totals:
    """Sums over all ranks' shards.

    Args:
        parts: this rank's, 0-dim.
        parameter: one of those they are over; whole ones have no other ranks.
    """
    if not parts or not hasattr(parameter, "to_local"):
        return parts
    from torch.distributed.tensor import DTensor, Partial, Replicate

    placements = [Replicate() if p.is_replicate() else Partial() for p in parameter.placements]
    own = torch.stack(list(parts.values()))
    make: Any = DTensor.from_local
    whole: Tensor = make(own, parameter.device_mesh, placements, run_check=False).full_tensor()
    return dict(zip(parts, whole.unbind(), strict=True))
