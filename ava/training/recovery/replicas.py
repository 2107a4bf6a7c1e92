"""Every rank of a data-parallel run holds the same weights, or something went wrong: found, and mended.

A flipped bit, a failing device or a lost message makes one rank another model. Its gradients enter everybody's, and no
norm shows it. So now and then all ranks compare a checksum of what they hold; those that differ from the right ones get
weights, buffers, averages and the optimizer's state from a rank that holds these.

    wrong = check_replicas(run, snapshots.before(run.step))
    if wrong:
        heal_replicas(run, wrong)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ava.errors import TrainingFailed
from ava.optimization.snapshot import Stateful
from ava.optimization.snapshot_structure import Structure
from ava.training.recovery.checksum import checksum, total
from ava.training.recovery.snapshots import Kept
from ava.training.state import Run


@dataclass(frozen=True)
class Replica:
    """What decides which of several ranks is right.

    Attributes:
        checksum: of its weights and the optimizer's state.
        is_finite: all of them are, and the optimizer's state of them.
        distance: how far they and the optimizer's state are from the last snapshot, as a norm; infinite where that is
            not known.
    """

    checksum: int
    is_finite: bool
    distance: float


def check_replicas(run: Run, reference: Kept | None = None) -> list[int]:
    """The ranks whose weights or optimizer's state are not those that count; called on all ranks, with the same answer.

    What is finite counts before what is not, then what most ranks hold, then what is nearest to `reference`, then what
    the lowest rank holds. Sharded weights differ from rank to rank, and are left out. Waits for the device.

    Args:
        run: what is trained.
        reference: a snapshot taken not long ago.

    Returns:
        Ranks in order; empty where all agree.
    """
    weights: list[Tensor] = [p for p in run.model.parameters() if not _is_shard(p)]
    if run.world.size == 1 or not weights:
        return []
    mine = checksum(weights)
    # A damaged state need not show in the weights: an update that it makes too long is shrunk to nothing on all ranks.
    mine += total(_states(run, weights)).to(mine.device)
    table = torch.zeros(run.world.size, dtype=torch.int64, device=mine.device)
    table[run.world.rank] = mine
    sums = run.world.sum_(table).tolist()
    if len(set(sums)) == 1:
        return []
    return outvoted(_replicas(run, sums, weights, reference))


def outvoted(replicas: Sequence[Replica]) -> list[int]:
    """The ranks that do not hold what the right ones hold; of each rank what it holds, by rank."""
    sums = [one.checksum for one in replicas]

    def claim(rank: int) -> tuple[bool, int, float, int]:
        one = replicas[rank]
        return one.is_finite, sums.count(one.checksum), -one.distance, -rank

    right = max(range(len(replicas)), key=claim)
    return [rank for rank, one in enumerate(sums) if one != sums[right]]


def heal_replicas(run: Run, ranks: Sequence[int]) -> None:
    """Give some ranks what the others hold, bit for bit and in place; called on all ranks.

    That is weights, buffers, averages, the optimizer's state, and what schedule, clipping, surgery and loss scale
    remember. Random numbers, the position in the data and shards, with their state, are each rank's own.

    Args:
        run: what is trained.
        ranks: that are wrong, as `check_replicas` found them; at least one is not among them.

    Raises:
        TrainingFailed: no rank is right, or the ranks' optimizers hold state of different shapes.
    """
    right = next((rank for rank in range(run.world.size) if rank not in ranks), None)
    if right is None:
        raise TrainingFailed("no rank holds weights that could be given to the others.", step=run.step)
    tensors = _replicated(run)
    shapes = [(tuple(tensor.shape), str(tensor.dtype)) for tensor in tensors]
    differ = run.world.sum([float(run.world.copy_of(shapes, right) != shapes)])[0]
    if differ:
        raise TrainingFailed("the ranks' optimizers hold state of different shapes.", step=run.step)
    with torch.no_grad():
        for tensor in tensors:
            run.world.copy_(tensor, right)
    _share_remembered(run, ranks, right)


def _replicated(run: Run) -> list[Tensor]:
    """What all ranks hold alike."""
    structure = Structure([part for part in (run.model, run.optimizer, run.ema) if part is not None], False)
    # Of a shard's state some is a plain tensor: factored or quantised by each rank for itself.
    of_shards = {id(value) for p, own in run.optimizer.state.items() if _is_shard(p) for value in own.values()}
    pairs = zip(structure.sources, structure.tensors, strict=True)
    return [tensor for source, tensor in pairs if not _is_shard(source) and id(source) not in of_shards]


def _states(run: Run, weights: list[Tensor]) -> list[Tensor]:
    states = (value for p in weights for value in run.optimizer.state.get(p, {}).values())
    return [value for value in states if isinstance(value, Tensor)]


def _is_shard(tensor: Tensor) -> bool:
    return hasattr(tensor, "_local_tensor")


def _share_remembered(run: Run, ranks: Sequence[int], right: int) -> None:
    parts: list[Stateful] = [run.scheduler, run.noise, *run.stateful().values()]
    states = run.world.copy_of([part.state_dict() for part in parts], right)
    if run.world.rank in ranks:
        for part, state in zip(parts, states, strict=True):
            part.load_state_dict(state)


def _replicas(run: Run, sums: list[int], weights: list[Tensor], reference: Kept | None) -> list[Replica]:
    """What every rank holds, by rank."""
    held = [*weights, *_states(run, weights)]
    is_finite = all(bool(tensor.isfinite().all()) for tensor in held)
    distance = _distance(held, reference) if reference is not None else float("inf")
    told = torch.zeros(run.world.size, 2, dtype=torch.float64)
    told[run.world.rank] = torch.tensor([float(is_finite), distance if distance < float("inf") else -1.0])
    flat = run.world.sum(told.flatten().tolist())
    pairs = zip(flat[::2], flat[1::2], strict=True)
    found = zip(sums, pairs, strict=True)
    return [Replica(one, finite == 1.0, float("inf") if far < 0 else far) for one, (finite, far) in found]


def _distance(tensors: list[Tensor], reference: Kept) -> float:
    """The norm of the difference; infinite where one is not a number."""
    squares = 0.0
    for tensor in tensors:
        before = reference.snapshot.copy_of(tensor)
        if before is not None:
            squares += float((tensor.detach().double() - before.to(tensor.device).double()).square().sum())
    return squares**0.5 if squares == squares else float("inf")
