"""Copies between an accelerator and the host, on a stream of their own."""

from __future__ import annotations

import torch
from torch import Tensor


class Lanes:
    """The ways between one device and the host. Elsewhere than on a GPU every copy is complete when it returns.

    Args:
        device: the accelerator.
        host: the host; copies from a GPU go to page-locked memory.
    """

    def __init__(self, device: torch.device, host: torch.device) -> None:
        self.device, self.host = device, host
        self.side = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def out(self, storage: torch.UntypedStorage) -> Tensor:
        """Copy a storage, as the current stream leaves it so far, to the host: (bytes,) uint8."""
        whole = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
        if self.side is None:
            return whole.to(self.host, copy=True)
        host = torch.empty(whole.shape, dtype=torch.uint8, pin_memory=True)
        self.side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.side):
            host.copy_(whole, non_blocking=True)
        # The memory is not given to another tensor before the copy is done.
        whole.record_stream(self.side)
        return host

    def back(self, host: Tensor, device: torch.device) -> torch.UntypedStorage:
        """Begin to copy bytes to a device; `wait` has to come before they are used."""
        if self.side is None:
            return host.to(device, copy=True).untyped_storage()
        with torch.cuda.stream(self.side):
            return host.to(device, non_blocking=True).untyped_storage()

    def wait(self, storage: torch.UntypedStorage) -> None:
        """Let the current stream go on only when everything begun so far has arrived."""
        if self.side is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_stream(self.side)
            torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage).record_stream(current)
