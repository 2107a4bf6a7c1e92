"""What a run ran on: versions, revision of the source, memory."""

from __future__ import annotations

import importlib.metadata
import platform
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch


def versions(device: torch.device | str = "cpu") -> dict[str, str]:
    """The versions that a result depends on.

    Args:
        device: where the run computes.

    Returns:
        `python`, `torch`, `numpy`, `ava`, `platform` and `device`, as text.
    """
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "ava": _own_version(),
        "platform": platform.platform(),
        "device": _device_name(torch.device(device)),
    }


def git_revision(folder: Path | None = None) -> str | None:
    """The commit of the source a run uses, with `-dirty` where files differ from it.

    Args:
        folder: where to look; by default the working directory, then Ava's own checkout.

    Returns:
        The hash of the commit, or None without git or outside a repository.
    """
    places = [Path.cwd(), Path(__file__).parent] if folder is None else [folder]
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    for place in places:
        try:
            done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=5, check=False)
        except (OSError, subprocess.SubprocessError):
            return None
        if done.returncode == 0:
            return done.stdout.strip()
    return None


def peak_memory(device: torch.device | str = "cpu") -> int:
    """The most memory the run has held, in bytes: of a CUDA device what torch allocated there, else of the process."""
    if torch.device(device).type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    kilobyte = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobyte


def _own_version() -> str:
    try:
        return importlib.metadata.version("ava")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads)"
