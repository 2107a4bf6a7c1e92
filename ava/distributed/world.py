"""The processes of one run: who am I, and the few things that all of them must agree on.

Under torchrun every process joins one group: gloo for what the hosts agree on, and NCCL beside it for tensors on
GPUs. Alone, the same calls do nothing. Host-side sums never wait on the accelerator.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from ava.errors import InputError

T = TypeVar("T")

_GROUPS: list[dist.ProcessGroup | None] = []
"""Groups live as long as the process. One that dies with its last user, DDP's reducer, waits for its thread while it
holds the interpreter's lock, and that thread may wait for the lock: both for ever."""


@dataclass(frozen=True)
class World:
    """One process among the `size` processes of the run, and the device it computes on."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Rank 0 decides, writes and prints."""
        return self.rank == 0

    def sum(self, values: list[float]) -> list[float]:
        """Host numbers added up over all ranks; exact to float64."""
        if self.size == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return list(total.tolist())

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        """`tensor` added up over all ranks, in place, on its own device."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def max_(self, tensor: torch.Tensor) -> torch.Tensor:
        """The largest of all ranks' values, element by element, in place, on its own device."""
        if self.size > 1:
            dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return tensor

    def copy_(self, tensor: torch.Tensor, source: int) -> torch.Tensor:
        """`tensor` as rank `source` has it, on all ranks, bit for bit and in place; of equal shape on all."""
        if self.size > 1:
            # As bytes: not every backend knows every type.
            dense = tensor.detach().contiguous()
            dist.broadcast(dense.view(-1).view(torch.uint8), source)
            if dense.data_ptr() != tensor.data_ptr():
                tensor.copy_(dense)
        return tensor

    def copy_of(self, value: T, source: int) -> T:
        """What rank `source` holds, on all ranks; it must be picklable."""
        values: list[T] = [value]
        if self.size > 1:
            dist.broadcast_object_list(values, source)
        return values[0]

    def gather(self, value: T) -> list[T]:
        """Every rank's `value`, by rank, on rank 0; an empty list elsewhere."""
        if self.size == 1:
            return [value]
        values: list[T | None] | None = [None] * self.size if self.is_main else None
        dist.gather_object(value, values)
        return [v for v in values if v is not None] if values else []

    def decide(self, decision: Callable[[], T]) -> T:
        """What rank 0 decides, on every rank; its `InputError` too, so that no rank waits for the others.

        Args:
            decision: called on rank 0 only; its result must be picklable.
        """
        if self.size == 1:
            return decision()
        answer: list[tuple[T | None, str | None]] = [(None, None)]
        if self.is_main:
            try:
                answer = [(decision(), None)]
            except InputError as error:
                answer = [(None, str(error))]
        dist.broadcast_object_list(answer)
        result, problem = answer[0]
        if problem is not None:
            raise InputError(problem)
        return result  # type: ignore[return-value]

    def together(self, build: Callable[[], T]) -> T:
        """What every rank makes for itself, once all of them could; an `InputError` of any of them on all.

        Args:
            build: called on every rank; it must not communicate, since on some it may end early.
        """
        if self.size == 1:
            return build()
        made: list[T] = []
        problem: str | None = None
        try:
            made.append(build())
        except InputError as error:
            problem = str(error)
        problems: list[str | None] = [None] * self.size
        dist.all_gather_object(problems, problem)
        for rank, text in enumerate(problems):
            if text is not None:
                raise InputError(text if rank == 0 else f"rank {rank}: {text}")
        return made[0]

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def join(device: str, timeout_s: float = 600.0, backend: str = "auto") -> Iterator[World]:
    """Join the processes that torchrun started, or stand alone; leaves them on exit.

    Args:
        device: "auto" (a GPU where there is one), "cpu" or "cuda".
        timeout_s: how long a rank waits for the others before it gives up, in seconds.
        backend: "auto" exchanges gradients by NCCL on GPUs and by gloo elsewhere; "gloo" and "nccl" insist.

    Raises:
        InputError: "cuda" without a usable GPU for this rank, or "nccl" without GPUs.
    """
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    chosen = _choose(device, int(os.environ.get("LOCAL_RANK", "0")))
    if backend == "nccl" and chosen.type != "cuda":
        raise InputError(
            f"needs GPUs, and this run is on the {chosen.type}.", key="distributed.backend", value=backend,
            hint="Use `distributed.backend=auto`.",
        )  # fmt: skip
    if size == 1:
        yield World(0, 1, chosen)
        return
    store, rank, size = next(rendezvous("env://", rank, size))
    # Restarted workers must not read a dead worker's addresses from the store that the agent keeps alive.
    store = PrefixStore(f"attempt_{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    on_gpu = chosen.type == "cuda" and backend != "gloo"
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
        store=store,
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=timeout_s),
    )
    _GROUPS.append(dist.group.WORLD)
    try:
        yield World(rank, size, chosen)
    finally:
        dist.destroy_process_group()


def _choose(device: str, local_rank: int) -> torch.device:
    count = torch.cuda.device_count()
    if device == "cpu" or (device == "auto" and count == 0):
        return torch.device("cpu")
    if local_rank >= count:
        raise InputError(
            f"this rank needs GPU {local_rank}, and torch {torch.__version__} sees {count}.",
            key="trainer.device", value=device, hint="Use `trainer.device=cpu`, or start fewer processes.",
        )  # fmt: skip
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)
