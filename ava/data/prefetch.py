"""Windows whose batches are already on the accelerator when the step wants them.

While the device computes one step, the next window's batches travel on a stream of their own. The batches on the host
stay beside the copies: what counts their terms reads them there, and does not wait for the device. On a CPU nothing
is done.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Protocol

import torch

from ava.data.loader import Batch, Window


class Transfer(Protocol):
    """A way to another device."""

    def begin(self, batch: Batch) -> Batch:
        """Start to copy a batch; its tensors may only be used after `end`."""
        ...

    def end(self, batch: Batch) -> None:
        """Let what is computed from here on wait for the copies that were begun."""
        ...


class StreamTransfer:
    """Copies on a stream of their own, beside what the device computes.

    Args:
        device: the accelerator; batches should be in pinned memory, or the host waits for each copy.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def begin(self, batch: Batch) -> Batch:
        """Start to copy a batch."""
        with torch.cuda.stream(self.stream):
            return {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}

    def end(self, batch: Batch) -> None:
        """Make the stream that computes wait for the copies, without the host."""
        computing = torch.cuda.current_stream(self.device)
        computing.wait_stream(self.stream)
        for tensor in batch.values():
            # Else its memory could be given to the next copy while the step still reads it.
            tensor.record_stream(computing)


def prefetched(
    windows: Iterator[Window], device: torch.device, transfer: Transfer | None = None
) -> Iterator[Window]:  # fmt: skip
    """The same windows in the same order, each with `copies` on the device.

    Args:
        windows: as the loader gives them.
        device: where the model is.
        transfer: the way there; None takes a stream of its own on an accelerator, and nothing on a CPU.
    """
    if transfer is None:
        if device.type != "cuda":
            return windows
        transfer = StreamTransfer(device)
    return _one_ahead(windows, transfer)


def _one_ahead(windows: Iterator[Window], transfer: Transfer) -> Iterator[Window]:
    """Begin to copy a window before the one in front of it is handed out."""
    waiting: Window | None = None
    failure: Exception | None = None
    while failure is None:
        following: Window | None = None
        try:
            following = _begun(next(windows), transfer)
        except StopIteration:
            pass
        except Exception as error:  # it befell a later window: the one before it is still to be trained on
            failure = error
        if waiting is not None:
            yield _ended(waiting, transfer)
        if following is None:
            break
        waiting = following
    if failure is not None:
        raise failure


def _begun(window: Window, transfer: Transfer) -> Window:
    return dataclasses.replace(window, copies=[transfer.begin(batch) for batch in window.batches])


def _ended(window: Window, transfer: Transfer) -> Window:
    for batch in window.on_device:
        transfer.end(batch)
    return window
