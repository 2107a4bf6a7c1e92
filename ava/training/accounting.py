"""What a training costs: operations, memory by kind, and the share of the device's peak that it reaches (MFU).

All of it is found in the first step of a session; later steps pay nothing. Counting runs the model once on one sample
and puts back what that touched; watching only follows tensors that autograd keeps anyway. Neither changes a number of
the training.

    MFU = model FLOPs per sample * samples per second / (peak FLOP/s of the device * ranks)

Model FLOPs are those of one forward and backward pass as if every weight was trained: what is recomputed to save memory
and the further passes of SAM or of curvature estimates are the method's price and lower the MFU.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from ava import rng
from ava.data.loader import Batch, Window
from ava.data.source import TokenSpec
from ava.reporting.costs import TRAINING, at_rest, count_flops
from ava.reporting.memory_by_kind import Saved, num_bytes
from ava.reporting.peaks import device_name, peak_flops
from ava.training.state import Run

UNKNOWN = "unknown"
_NOTHING = nullcontext()


class Accounting:
    """Counts in the first step, and tells at the end.

        accounting = Accounting(run)                      # before the first step
        with accounting.watching(window):                 # around every step; does something in the first only
            report = training_step(run, window)
        facts = accounting.facts(run.seconds)             # for the summary

    Args:
        run: the training, before its first step.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.flops_per_sample: int | None = None
        self.reasons: dict[str, str] = {}
        self._activations: int | None = None
        self._gradients: int | None = None
        self._length = 0
        self._start: tuple[int, float] | None = None
        self._seconds = run.seconds

    def watching(self, window: Window) -> AbstractContextManager[None]:
        """The context of one step; every rank has to enter it.

        Args:
            window: the step's samples.
        """
        return _NOTHING if self._start is not None else self._first(window)

    @contextmanager
    def _first(self, window: Window) -> Iterator[None]:
        began = time.perf_counter()
        self._length = int(window.batches[0]["inputs"].shape[-1]) if "inputs" in window.batches[0] else 0
        self._count(window.batches[0])
        saved = Saved([*self.run.model.parameters(), *self.run.model.buffers()])
        if "activations" in self.reasons:
            yield
        else:
            with saved.following():
                yield
            self._activations = saved.peak
        self._gradients = num_bytes([parameter.grad for parameter in self.run.parameters])
        if self.run.optimizer.fused is not None:
            self._gradients, self.reasons["gradients"] = None, "each is used up as the backward pass makes it"
        # What the first step took (a compiler, first allocations) says nothing about the rest.
        self._start = (self._samples(), self._seconds + time.perf_counter() - began)

    def _count(self, batch: Batch) -> None:
        """Count the operations of one sample's forward pass; a model that cannot be asked so stays unknown."""
        run, rows = self.run, len(next(iter(batch.values())))
        # All pairs of tokens count, whichever documents stand in this row.
        batch = {name: part for name, part in batch.items() if name != "documents"}
        one = {
            name: (part[:1] if part.dim() and len(part) == rows else part).to(run.world.device)
            for name, part in batch.items()
        }  # fmt: skip
        random = rng.capture()
        try:
            self.flops_per_sample = self._try(one)
        except Exception as error:  # a figure for the summary is no reason to end a training
            self.reasons["flops_per_sample"] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        finally:
            rng.restore(random)

    def _try(self, one: Batch) -> int:
        """The operations of training on one sample; and whether autograd can be watched while the model runs."""
        run = self.run

        def count() -> int:
            with at_rest(run.model), run.policy.autocast():
                return TRAINING * count_flops(lambda: run.task.losses(run.model, one))

        if run.is_compiled:
            self.reasons["activations"] = "a compiled model decides itself what it keeps"
            return count()
        try:
            with Saved([]).following():
                return count()
        except RuntimeError as error:
            if "saved tensor" not in str(error):
                raise
            self.reasons["activations"] = str(error)  # a model that calls torch.func, which refuses hooks
            return count()

    def _samples(self) -> int:
        position = self.run.position
        return position.epoch * len(self.run.loader.split) + position.sample

    def facts(self, seconds: float) -> dict[str, Any]:
        """What the summary tells; on every rank.

        Args:
            seconds: spent training, over all sessions, without evaluations.

        Returns:
            `memory_by_kind` (bytes on this rank; None with a reason in `not_measured`), `flops_per_sample`, `tflops`
            and `mfu` over all ranks ("unknown" where the device's peak is), without the first step;
            `tokens_per_second` for token sequences.
        """
        rate = self._rate(seconds)
        facts: dict[str, Any] = {
            "memory_by_kind": self.memory(), "flops_per_sample": self.flops_per_sample, "tflops": None, "mfu": UNKNOWN,
        }  # fmt: skip
        if self._start is None:
            self.reasons |= dict.fromkeys(("gradients", "activations", "flops_per_sample"), "no step was taken")
        if isinstance(self.run.task.data.spec, TokenSpec) and rate is not None:
            facts["tokens_per_second"] = rate * (self._length or self.run.task.data.spec.context)
        if self.flops_per_sample and rate is not None:
            achieved = self.flops_per_sample * rate
            peak = peak_flops(device_name(self.run.world.device), arithmetic(self.run))
            facts["tflops"] = achieved / 1e12
            facts["mfu"] = UNKNOWN if peak is None else achieved / (peak * self.run.world.size)
        return facts | ({"not_measured": dict(self.reasons)} if self.reasons else {})

    def memory(self) -> dict[str, int | None]:
        """Bytes by kind: weights (and buffers), gradients, optimizer state, averages of weights, and activations: the
        most that autograd kept for the backward pass of one micro-batch, casts of weights included.
        """
        run = self.run
        return {
            "weights": num_bytes([*run.model.parameters(), *run.model.buffers()]),
            "gradients": self._gradients,
            "state": num_bytes(run.optimizer.state.values()),
            "averages": 0 if run.ema is None else num_bytes([run.ema.state_dict()]),
            "activations": self._activations,
        }

    def _rate(self, seconds: float) -> float | None:
        """Samples per second after the first step, over all ranks."""
        if self._start is None:
            return None
        samples, since = self._start
        taken, elapsed = self._samples() - samples, seconds - since
        return taken / elapsed if taken > 0 and elapsed > 0 else None


def arithmetic(run: Run) -> str:
    """The precision of most of the products, by the name that `peak_flops` knows."""
    if run.policy.name in ("bf16", "fp16", "fp8", "tf32"):
        return run.policy.name
    if next((parameter.dtype for parameter in run.parameters), None) == torch.bfloat16:
        return "bf16"
    allowed = run.world.device.type == "cuda" and torch.backends.cuda.matmul.fp32_precision == "tf32"
    return "tf32" if allowed else "fp32"
