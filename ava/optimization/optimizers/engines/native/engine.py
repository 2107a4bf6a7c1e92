"""The native engine: a sentence as one C++ kernel, run over all parameters of a batch at once.

On processors. The kernel is printed from the same rules that the reference engine speaks (`tracing/`, `kernel.py`),
compiled once a sentence and kept (`build.py`). Without a compiler nothing is lost but speed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ava.optimization.optimizers.engines.batch import Batch, Conversation, localise
from ava.optimization.optimizers.engines.native.build import NoCompiler, load, tell
from ava.optimization.optimizers.engines.native.job import Job, Kernel
from ava.optimization.optimizers.engines.native.kernel import print_kernel
from ava.optimization.optimizers.engines.native.layout import lay_out
from ava.optimization.optimizers.engines.native.storage import C_TYPES
from ava.optimization.optimizers.engines.sharded import over_ranks
from ava.optimization.optimizers.engines.tracing.delay import delay
from ava.optimization.optimizers.engines.tracing.graph import Untraceable, record
from ava.optimization.optimizers.sentence import Sentence, common_slots
from ava.optimization.optimizers.storage.choice import SMALLEST_INT8, counts_steps


def fits(batch: Batch) -> bool:
    """Whether the batch's tensors are plain memory of a processor, and its sentence has a kernel."""
    key = ("native", batch.grad_scale is not None)
    is_whole = not hasattr(batch.parameters[0], "to_local")  # a shard's local tensor is a new one each time
    jobs: list[Job] | None = batch.memo.get(key) if is_whole else None
    if jobs is None or not all(job.refresh(batch) for job in jobs):
        jobs = _bind(batch)
        batch.memo[key] = jobs
    batch.memo["native"] = jobs
    return jobs is not None


def run(batch: Batch) -> Conversation | None:
    """One update of every parameter of the batch."""
    jobs: list[Job] = batch.memo["native"]
    is_skipped = batch.skip is not None and bool(batch.skip.numpy())
    if jobs[0].kernel.layout.totals and (not is_skipped or hasattr(batch.parameters[0], "to_local")):
        return _abstain(jobs, batch) if is_skipped else _converse(jobs, batch)
    if is_skipped:
        return None
    for job in jobs:
        job.run(0, job.kernel.end, {})
    return None


def _bind(batch: Batch) -> list[Job] | None:
    """The kernels' tables for the batch, or None where it has no kernel."""
    first = batch.parameters[0]
    if first.device.type != "cpu" or str(first.dtype) not in C_TYPES:
        return None
    kernel = kernel_of(batch, is_small=first.numel() < SMALLEST_INT8)
    if kernel is None or (hasattr(first, "to_local") and not kernel.fits_shards):
        return None
    part = localise(batch)
    if any(gradient.layout is not torch.strided for gradient in part.gradients) or not all(
        map(_is_plain, part.parameters, part.gradients, part.states)
    ):
        return None
    bound = [(_kernel(batch, part.parameters[places[0]]), places) for places in _by_size(part)]
    if not all(_is_held(one, part.parameters[i], part.states[i]) for one, places in bound for i in places):
        return None
    return [Job(one, part, places) for one, places in bound]


def _is_held(kernel: Kernel, parameter: Tensor, state: dict[str, Tensor]) -> bool:
    """Whether state has the types and lengths that the kernel takes for granted: it would read past what is shorter."""
    parts = [part for store in kernel.layout.stores.values() for part in store.parts_of(parameter)]
    return all(state[key].dtype is dtype and state[key].numel() == length for key, dtype, length in parts)


def _converse(jobs: list[Job], batch: Batch) -> Conversation:
    """Run as far as the next sum over all parameters, tell this batch's part, hear the whole."""
    layout, first = jobs[0].kernel.layout, 0
    known: dict[str, float] = {}
    for stop in layout.breaks:
        parts = [job.run(first, stop, known) for job in jobs]
        names = [name for name, node in layout.graph.totals.items() if node.level == stop]
        own = {name: sum(part[name] for part in parts) for name in names}
        parts_ = {name: torch.tensor(value, dtype=torch.float64) for name, value in own.items()}
        heard = yield over_ranks(parts_, batch.parameters[0])
        known |= {name: value.item() for name, value in heard.items()}
        first = stop + 1
    for job in jobs:
        job.run(first, job.kernel.end, known)
    new = jobs[0].common()
    return {slot.name: torch.tensor(new[slot.name], dtype=torch.float64) for slot in common_slots(batch.sentence)}


def _abstain(jobs: list[Job], batch: Batch) -> Conversation:
    """Change nothing, but add zeros where other ranks add up: whether they skip is theirs to know."""
    layout = jobs[0].kernel.layout
    for stop in layout.breaks:
        names = [name for name, node in layout.graph.totals.items() if node.level == stop]
        yield over_ranks({name: torch.zeros((), dtype=torch.float64) for name in names}, batch.parameters[0])
    return {}


def _is_plain(parameter: Tensor, gradient: Tensor, state: dict[str, Tensor]) -> bool:
    """Whether memory is laid out as the kernel walks over it."""
    return (
        parameter.is_contiguous()
        and gradient.is_contiguous()
        and gradient.dtype is parameter.dtype
        and all(value.is_contiguous() for value in state.values())
    )


def _by_size(batch: Batch) -> list[list[int]]:
    """Places of what 8 bits store, and of what is too small for it."""
    everyone = range(len(batch.parameters))
    if batch.group["state"] != "int8":
        return [list(everyone)]
    large = [p.numel() >= SMALLEST_INT8 for p in batch.parameters]
    return [places for which in (True, False) if (places := [i for i in everyone if large[i] is which])]


def _kernel(batch: Batch, parameter: Tensor) -> Kernel:
    kernel = kernel_of(batch, is_small=parameter.numel() < SMALLEST_INT8)
    if kernel is None:
        raise RuntimeError("a batch that fits has a kernel")
    return kernel


def kernel_of(batch: Batch, *, is_small: bool) -> Kernel | None:
    """The kernel of a batch's sentence, built if it is new; None if it has none here."""
    group = batch.group
    rounds = bool(group["stochastic_rounding"]) and batch.parameters[0].dtype.itemsize == 2
    key = (batch.sentence, group["state"], batch.parameters[0].dtype, batch.grad_scale is not None, rounds,
           is_small and group["state"] == "int8", counts_steps(batch.sentence, group))  # fmt: skip
    if key not in _KERNELS:
        _KERNELS[key] = _make(group, *key)
    return _KERNELS[key]


_KERNELS: dict[tuple[Any, ...], Kernel | None] = {}


def _make(
    group: dict[str, Any], sentence: Sentence, state: str, dtype: torch.dtype, is_scaled: bool, rounds: bool,
    is_small: bool, counts: bool,
) -> Kernel | None:  # fmt: skip
    try:
        graph = delay(record(sentence, group, is_scaled))
        layout = lay_out(graph, sentence, state, dtype, is_small=is_small, rounds_at_random=rounds, counts=counts)
        return Kernel(layout, load(print_kernel(layout)))
    except Untraceable:
        return None
    except NoCompiler as error:
        tell(str(error))
        return None
