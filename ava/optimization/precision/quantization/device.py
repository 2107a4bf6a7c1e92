"""The device that a user names, if this machine has it."""

from __future__ import annotations

import torch

from ava.errors import InputError


def usable_device(device: torch.device | str) -> torch.device:
    """The device of a name.

    Raises:
        InputError: no device is called that, or there is none here.
    """
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        raise InputError("no device is called that.", key="device", value=device, hint="Use cpu or cuda.") from None
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise InputError("there is no such GPU that torch can use.", key="device", value=device, hint="Use cpu.")
    return found
