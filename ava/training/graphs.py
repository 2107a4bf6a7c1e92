"""Forward and backward of a micro-batch, recorded once and replayed: hundreds of kernel launches become one.

A recording remembers addresses, not values. So a batch is copied into static tensors, the weight of its loss is filled
into another, gradients are added to static `p.grad`s, and the losses come from where the recording leaves them. What
decides (clipping, skipping, learning rates) stays outside. The first sizes of micro-batches get a recording each; what
comes after them is computed as ever, into the same gradients.

How to record is behind `Capture`: CUDA graphs, or `Rerun`, which computes again on the same tensors and shows on any
machine that a step needs nothing else.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from ava import rng
from ava.data.loader import Batch
from ava.errors import InputError
from ava.optimization.optimizers.wrappers.sam import kept_buffers
from ava.training.state import Run

Losses = dict[str, Tensor]
MOST_RECORDINGS = 4
"""An epoch's full windows give two sizes of micro-batch at most, and its last window two more."""
WARM_UP = 3
"""cuDNN, cuBLAS and autograd set themselves up in the first passes, which must not be recorded."""


class Capture(Protocol):
    """A way to record."""

    def record(self, body: Callable[[], Losses]) -> tuple[Losses, Callable[[], None]]:
        """Record `body`; what it reads and writes are tensors that stay.

        Returns:
            Where each replay leaves the body's results, and the replay.
        """
        ...

    def forget(self) -> None:
        """Nothing that was recorded is used any more."""
        ...


class CudaCapture:
    """CUDA graphs that share one pool of memory; they draw random numbers where torch's generator of the device stands.

    Args:
        device: the GPU.

    Reference: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, body: Callable[[], Losses]) -> tuple[Losses, Callable[[], None]]:
        """Warm up on a side stream, then record.

        Raises:
            InputError: the body does what cannot be recorded, such as reading a value of the device.
        """
        aside, main = torch.cuda.Stream(self.device), torch.cuda.current_stream(self.device)  # type: ignore[no-untyped-call]
        aside.wait_stream(main)
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                body()
        main.wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool):
                # Not the graph behind them: its nodes would belong to the stream of the recording.
                results = {name: part.detach() for name, part in body().items()}
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            problem = f"this model or task does what a CUDA graph cannot hold ({reason})."
            raise _refusal(problem, "It may read a value of the device. Set trainer.cuda_graphs=false.") from error
        return results, graph.replay

    def forget(self) -> None:
        """A pool may not be used again once its last graph is gone."""
        self._pool = torch.cuda.graph_pool_handle()


class Rerun:
    """The same on any device, without a gain: a replay computes again on the tensors that were there at first."""

    def record(self, body: Callable[[], Losses]) -> tuple[Losses, Callable[[], None]]:
        """Warm up once; a replay copies what it computes to where the first results were."""
        results = {name: part.detach().clone() for name, part in body().items()}

        def replay() -> None:
            for name, part in body().items():
                results[name].copy_(part.detach())

        return results, replay

    def forget(self) -> None:
        """Nothing is kept."""


class _Recording:
    """One size of micro-batch: its static inputs, its results and the replay."""

    def __init__(self, batch: Batch, weight: Tensor, backward: Callable[[Batch, Tensor], Losses]) -> None:
        self.batch = {name: tensor.clone() for name, tensor in batch.items()}
        self.body = functools.partial(backward, self.batch, weight)
        self.results: Losses = {}
        self.replay: Callable[[], None] = lambda: None

    def __call__(self, batch: Batch) -> Losses:
        for name, tensor in batch.items():
            self.batch[name].copy_(tensor, non_blocking=True)
        self.replay()
        # The next replay overwrites the results, and they are read only where a line is logged.
        return {name: part.clone() for name, part in self.results.items()}


class GraphedBackward:
    """Adds a micro-batch's gradients to `p.grad`, from a recording where there is one.

    Call `zero_grad` in the place of the optimizer's, then this for each micro-batch.

    Args:
        losses: the summed losses of a batch on the device, under the precision policy.
        model: whose parameters get gradients.
        device: where it is.
        capture: how to record; None takes CUDA graphs.
    """

    def __init__(
        self, losses: Callable[[Batch], Losses], model: nn.Module, device: torch.device, capture: Capture | None = None
    ) -> None:
        self.losses, self.model, self.device = losses, model, device
        self.capture: Capture = CudaCapture(device) if capture is None else capture
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self._weight = torch.zeros((), device=device)
        self._tensors = [*self.parameters, *model.buffers()]
        self._gradients: list[tuple[Tensor, Tensor]] | None = None
        self._recordings: dict[tuple[object, ...], _Recording] = {}
        self._addresses: tuple[int, ...] = ()
        self._is_first, self._told = True, False

    def zero_grad(self) -> None:
        """Put the static gradients back in their places, and set them to zero."""
        self._is_first = True
        if self._gradients is None:
            for parameter in self.parameters:
                parameter.grad = None
            return
        torch._foreach_zero_([gradient for _, gradient in self._gradients])
        for tensor, gradient in self._gradients:
            tensor.grad = gradient

    def __call__(self, batch: Batch, weight: float | Tensor) -> Losses:
        """Forward and backward.

        Args:
            batch: a micro-batch; copied to the device if it is not there.
            weight: the gradient of the summed loss; a tensor may stand on the device.

        Returns:
            Objective -> its summed loss, 0-dim and detached.
        """
        batch = {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}
        self._weight.copy_(weight) if isinstance(weight, Tensor) else self._weight.fill_(weight)
        recording = self._recording_for(batch)
        self._is_first = False
        if recording is not None:
            return recording(batch)
        return {name: part.detach() for name, part in self._backward(batch, self._weight).items()}

    def _backward(self, batch: Batch, weight: Tensor) -> Losses:
        parts = self.losses(batch)
        objective = functools.reduce(torch.add, parts.values())
        torch.autograd.backward(objective, weight.to(objective.dtype))
        return parts

    def _recording_for(self, batch: Batch) -> _Recording | None:
        """The recording of this size, made if there may be one more; None computes as ever."""
        addresses = tuple(map(Tensor.data_ptr, self._tensors))
        if addresses != self._addresses:  # what was recorded reads memory that is no longer the model's
            self._recordings.clear()
            self._addresses = addresses
            self.capture.forget()
        key = (self.model.training, *((name, t.shape, t.stride(), t.dtype) for name, t in sorted(batch.items())))
        if key in self._recordings:
            return self._recordings[key]
        if len(self._recordings) == MOST_RECORDINGS:
            self._tell_once(batch)
            return None
        with self._untouched():
            if self._gradients is None:
                self._allocate(batch)
            made = _Recording(batch, self._weight, self._backward)
            made.results, made.replay = self.capture.record(made.body)
        self._recordings[key] = made
        return made

    def _allocate(self, batch: Batch) -> None:
        """A static gradient for each parameter that gets one; the others stay without, so that they are not updated."""
        for parameter in self.parameters:
            parameter.grad = None
        self._backward(batch, self._weight)
        self._gradients = [(p, p.grad) for p in self.parameters if p.grad is not None]

    @contextmanager
    def _untouched(self) -> Iterator[None]:
        """What warming up and recording do to buffers, random numbers and gradients is undone."""
        random = rng.capture()
        grads = [(p, None if p.grad is None else p.grad.clone()) for p in self.parameters] if not self._is_first else []
        with kept_buffers(self.model):
            yield
        rng.restore(random)
        self.zero_grad()
        for parameter, before in grads:
            if before is not None and parameter.grad is not None:
                parameter.grad.copy_(before)

    def _tell_once(self, batch: Batch) -> None:
        if self._told:
            return
        self._told = True
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in batch.items())
        warnings.warn(
            f"{MOST_RECORDINGS} sizes of micro-batch are recorded as CUDA graphs; others ({shapes}) run without.",
            RuntimeWarning, stacklevel=2,
        )  # fmt: skip


def check_recordable(run: Run) -> None:
    """Refuse what cannot be recorded, or not in the same way.

    Raises:
        InputError: names what stands against it.
    """
    off = "Set trainer.cuda_graphs=false."
    reasons = [
        (run.world.device.type != "cuda", f"needs a GPU, and this run is on the {run.world.device.type}.", off),
        (run.world.size > 1, f"records one process, and {run.world.size} ranks exchange gradients on the way.", off),
        (run.surgery is not None, "records one backward pass, and surgery takes several.", "Leave one of them out."),
        (run.optimizer.fused is not None, "keeps gradients, which optimizer.fused_backward frees.",
         "Leave one of them out."),
        (run.watch.anomaly, "records no look at each operation, as health.anomaly=true takes.",
         "Set health.anomaly=false."),
    ]  # fmt: skip
    for applies, problem, hint in reasons:
        if applies:
            raise _refusal(problem, hint)


def _refusal(problem: str, hint: str) -> InputError:
    return InputError(problem, key="trainer.cuda_graphs", value=True, hint=hint)
