"""Model and loss as one compiled region, which is compiled before the first step and never again.

`torch.compile` makes a graph for the shapes that it meets, and another one for a shape that does not fit: in the middle
of a training this is a pause of many seconds, and after eight of them it silently gives up. Here the shapes are known
beforehand, for the loader's plan says how large micro-batches can be: each of them is met once at the start, forward
and backward. Where there are several sizes the batch dimension is symbolic, so that one graph serves all of them
(but 1, which the compiler always treats apart). Learning rates, the loss's weight and evaluation stay outside.

What the compiler cannot do shows at the start too, before anything is written.
"""

from __future__ import annotations

import copy
import functools
import inspect
import time
from typing import Any

import numpy as np
import torch
from torch import nn

from ava import rng
from ava.data.loader import Batch
from ava.errors import InputError
from ava.optimization.optimizers.wrappers.sam import kept_buffers
from ava.tasks.task import Task
from ava.training.compilation import Compilation, counts
from ava.training.state import Run

RECORDING_MODES = ("reduce-overhead", "max-autotune")
"""Modes of `torch.compile` that record CUDA graphs of their own on GPUs."""


class LossNetwork(nn.Module):
    """A task's losses of a model as one module: what is compiled as a whole; batch -> {objective: 0-dim sum}.

    Args:
        task: whose losses.
        model: stays as it is; its parameters keep their names.
    """

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self.task, self.model = task, model

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The summed losses of a micro-batch."""
        return self.task.losses(self.model, batch)


class _KeptLosses(nn.Module):
    """For modes that record CUDA graphs themselves: losses that the next replay does not overwrite."""

    def __init__(self, compiled: nn.Module) -> None:
        super().__init__()
        self.compiled = compiled

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return {name: part.clone() for name, part in self.compiled(batch).items()}


def compile_losses(run: Run, mode: str = "default", backend: str = "inductor") -> tuple[nn.Module, Compilation]:
    """Compile the run's model and loss for every micro-batch that this rank can meet.

    Parameters, buffers, gradients and random numbers are afterwards what they were. It does not communicate.

    Args:
        run: ready to train but for its network.
        mode: one of `torch.compile`'s.
        backend: another of `torch.compile`'s; tests take a faster one.

    Returns:
        What takes a batch and gives its losses, and what it took to make it.

    Raises:
        InputError: the compiler cannot do it, or the mode does not go with the run.
    """
    _check_mode(run, mode)
    # Else the graphs of earlier runs in this process count towards the number at which torch gives up.
    apart: dict[str, Any] = {"isolate_recompiles": True} if _can_isolate() else {}
    network: nn.Module = torch.compile(LossNetwork(run.task, run.model), mode=mode, backend=backend, **apart)  # type: ignore[assignment]
    network = _KeptLosses(network) if mode in RECORDING_MODES else network
    began, before = time.perf_counter(), counts()
    try:
        _meet_all_sizes(run, network)
    except _compiler_errors() as error:
        raise _told(error) from error
    after = counts()
    return network, Compilation(time.perf_counter() - began, after[1] - before[1], after[2] - before[2], after[0])


def _check_mode(run: Run, mode: str) -> None:
    if mode in RECORDING_MODES and run.world.device.type == "cuda" and run.loader.accumulate > 1:
        raise InputError(
            "keeps gradients where its next CUDA graph overwrites them, so that micro-batches cannot be added up.",
            key="trainer.compile_mode", value=mode,
            hint="Use trainer.compile_mode=default, with trainer.cuda_graphs=true if launches are what costs.",
        )  # fmt: skip


def _meet_all_sizes(run: Run, network: nn.Module) -> None:
    sizes = run.loader.batch_sizes()
    is_symbolic = sum(size > 1 for size in sizes) > 1
    # Layers with delayed scaling note the largest values that they see.
    random, scales = rng.capture(), copy.deepcopy(run.policy.state_dict())
    with kept_buffers(run.model):
        for size in sizes:
            _meet(run, network, size, is_symbolic and size > 1)
    rng.restore(random)
    run.policy.load_state_dict(scales)


def _meet(run: Run, network: nn.Module, size: int, is_symbolic: bool) -> None:
    """Forward and backward of a stand-in of so many samples; no gradient stays."""
    batch = run.loader.split.fetch(np.arange(size, dtype=np.int64) % len(run.loader.split), 0)
    batch = {name: tensor.to(run.world.device) for name, tensor in batch.items()}
    if is_symbolic:
        for tensor in batch.values():
            if tensor.ndim:
                torch._dynamo.maybe_mark_dynamic(tensor, 0)
    with run.policy.autocast():
        parts = network(batch)
    torch.autograd.grad(functools.reduce(torch.add, parts.values()), run.parameters, allow_unused=True)


def _can_isolate() -> bool:
    return "isolate_recompiles" in inspect.signature(torch.compile).parameters


def _compiler_errors() -> tuple[type[Exception], ...]:
    """What the compiler's stages raise of their own; a model's own errors pass."""
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor import exc

    return (TorchDynamoException, exc.InvalidCxxCompiler, exc.CppCompileError, exc.LoweringException)


def _told(error: Exception) -> InputError:
    """One sentence and a remedy in place of the compiler's pages."""
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

    inner = getattr(error, "inner_exception", error)
    hint = "Set trainer.compile=false; AVA_TRACEBACK=1 shows the compiler's own words."
    if isinstance(inner, InvalidCxxCompiler) or "No working C++ compiler" in str(inner):
        return InputError("needs a C++ compiler, and none was found.", key="trainer.compile", value=True,
                          hint="Install g++, or name a compiler in CXX, or set trainer.compile=false.")  # fmt: skip
    if isinstance(inner, CppCompileError):
        problem = "the C++ compiler does not take what torch wrote for it; it may be too old, or lack OpenMP."
        return InputError(problem, key="trainer.compile", value=True, hint="Install another g++. " + hint)
    reason = next((line.strip() for line in str(inner).splitlines() if line.strip()), "")
    problem = f"this model and task cannot be compiled ({type(inner).__name__}: {reason[:200]})."
    return InputError(problem, key="trainer.compile", value=True, hint=hint)
