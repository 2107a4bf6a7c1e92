"""The triton engine: a sentence as a few Triton kernels, each launched once over all parameters of a batch.

On accelerators, and the same rules as everywhere (`tracing/`). A step of AdamW is two launches however many tensors
there are; a sum over each parameter adds two, and so do rows and columns. The host never waits: step counts, the
gradient scale, whether to skip, and a learning rate that is a tensor are read on the device.

What has no kernel here is the fused or the reference engine's: functions of whole tensors (Muon, SOAP); tensors that
are not contiguous or have 2^30 elements; gradients of another type than their parameters; `atan2` in float64; sharded
parameters where a rule sums over each, draws or factors; devices without float64, and NVIDIA's before Ampere.

Kernels run in triton's interpreter too (TRITON_INTERPRET=1, tensors of the processor), which is how they are tested.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from ava.optimization.optimizers.engines.batch import Batch, Conversation, Totals, localise
from ava.optimization.optimizers.engines.sharded import over_ranks
from ava.optimization.optimizers.engines.tracing.delay import delay
from ava.optimization.optimizers.engines.tracing.graph import Untraceable, record
from ava.optimization.optimizers.engines.triton.job import Job, Kernels, are_aligned, are_plain, on_device
from ava.optimization.optimizers.engines.triton.kernel import is_installed, is_interpreted
from ava.optimization.optimizers.engines.triton.layout import Layout, lay_out
from ava.optimization.optimizers.engines.triton.storage import TYPES
from ava.optimization.optimizers.storage.choice import SMALLEST_INT8, counts_steps

LARGEST = 2**30
"""Places of elements are 32 bits wide, with room for the last tile."""
OLDEST = (8, 0)
"""NVIDIA's first generation that knows bfloat16."""


def fits(batch: Batch) -> bool:
    """Whether the batch's tensors are plain memory of an accelerator, and its sentence has kernels."""
    first = batch.parameters[0]
    if not (_is_known(first.device) and is_installed() and str(first.dtype) in TYPES):
        return False
    key = ("triton", batch.grad_scale is not None)
    is_whole = not hasattr(first, "to_local")  # a shard's local tensor is a new one each time
    jobs: list[Job] | None = batch.memo.get(key) if is_whole else None
    if jobs is None or not all(job.refresh(batch) for job in jobs):
        jobs = _bind(batch)
        batch.memo[key] = jobs
    batch.memo["triton"] = jobs
    return jobs is not None


def run(batch: Batch) -> Conversation | None:
    """One update of every parameter of the batch."""
    jobs: list[Job] = batch.memo["triton"]
    if jobs[0].layout.totals:
        return _converse(jobs, batch)
    for job in jobs:
        job.run(0, job.layout.end, {})
    return None


@functools.lru_cache(maxsize=64)
def _is_known(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= OLDEST
    if device.type == "xpu":
        return bool(torch.xpu.get_device_properties(device).has_fp64)
    return device.type == "cpu" and is_interpreted()


def _converse(jobs: list[Job], batch: Batch) -> Conversation:
    """Launch as far as the next sum over all parameters, tell this batch's part, hear the whole."""
    layout, first = jobs[0].layout, 0
    known: Totals = {}
    for stop in layout.breaks:
        parts = [job.run(first, stop, known) for job in jobs]
        own = {name: torch.stack([part[name] for part in parts]).sum() for name in parts[0]}
        known |= yield over_ranks(own, batch.parameters[0])
        first = stop + 1
    for job in jobs:
        job.run(first, job.layout.end, known)
    return jobs[0].common()


def _bind(batch: Batch) -> list[Job] | None:
    """The kernels' tables for the batch, or None where it has no kernels."""
    is_sharded = hasattr(batch.parameters[0], "to_local")
    part = localise(batch)
    if not are_plain(part.gradients, part.parameters[0].dtype) or not _are_plain(part):
        return None
    jobs = []
    for places in _by_size(part):
        kernels = kernels_of(part, places)
        if kernels is None or (is_sharded and not kernels.fits_shards) or not _are_typed(kernels.layout, part, places):
            return None
        jobs.append(Job(kernels, part, places))
    return jobs


def _are_plain(batch: Batch) -> bool:
    return all(
        p.is_contiguous() and p.numel() < LARGEST and all(value.is_contiguous() for value in state.values())
        for p, state in zip(batch.parameters, batch.states, strict=True)
    )


def _are_typed(layout: Layout, batch: Batch, places: list[int]) -> bool:
    """Whether state is of the types that kernels take it for, and on the device."""
    device = batch.parameters[0].device
    types = {key: kind for store in layout.stores.values() for key, kind in store.parts(layout.storage)}
    types |= dict.fromkeys(layout.small, layout.number) | ({"step": "tl.float32"} if layout.counts else {})
    return all(
        value.device == device and str(value.dtype).removeprefix("torch.") == kind.removeprefix("tl.")
        for place in places
        for key, kind in types.items()
        for value in (batch.states[place][key],)
    )


def _by_size(batch: Batch) -> list[list[int]]:
    """Places of what 8 bits store, and of what is too small for it."""
    everyone = range(len(batch.parameters))
    if batch.group["state"] != "int8":
        return [list(everyone)]
    large = [p.numel() >= SMALLEST_INT8 for p in batch.parameters]
    return [places for which in (True, False) if (places := [i for i in everyone if large[i] is which])]


def kernels_of(batch: Batch, places: list[int]) -> Kernels | None:
    """The kernels of some of a batch's parameters, printed if they are new; None if there are none."""
    group, first = batch.group, batch.parameters[places[0]]
    held: list[Tensor] = [x for i in places for x in (batch.parameters[i], batch.gradients[i], *_of_shape(batch, i))]
    key = (batch.sentence, group["state"], first.dtype, batch.grad_scale is not None,
           bool(group["stochastic_rounding"]) and first.dtype.itemsize == 2,
           first.numel() < SMALLEST_INT8 and group["state"] == "int8", on_device(batch), are_aligned(held))  # fmt: skip
    if key not in _KERNELS:
        layout = layout_of(group, *key)
        _KERNELS[key] = None if layout is None else Kernels(layout)
    return _KERNELS[key]


def _of_shape(batch: Batch, place: int) -> list[Tensor]:
    return [value for key, value in batch.states[place].items() if key != "step"]


_KERNELS: dict[tuple[Any, ...], Kernels | None] = {}


def layout_of(
    group: dict[str, Any], sentence: Any, state: str, dtype: torch.dtype, is_scaled: bool, rounds: bool,
    is_small: bool, tensors: frozenset[str], is_aligned: bool,
) -> Layout | None:  # fmt: skip
    """What a sentence's kernels are printed from, or None if it has none."""
    try:
        graph = delay(record(sentence, group, is_scaled))
        return lay_out(
            graph, sentence, state, dtype, is_small=is_small, rounds_at_random=rounds,
            counts=counts_steps(sentence, group), on_device=tensors, is_aligned=is_aligned,
        )  # fmt: skip
    except Untraceable:
        return None
