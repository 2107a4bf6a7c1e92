"""The memory of this process and of its machine, as Linux counts it, in bytes."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Iterator
from pathlib import Path

from ava.errors import InputError

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_GROUPS = Path("/sys/fs/cgroup")
_FILES = {"memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
          "": ("memory.max", "memory.current", "inactive_file")}  # fmt: skip
"""Controller -> a control group's limit, its usage, and what of that is cache that can be dropped: versions 1 and 2."""


def resident() -> int:
    """What the process holds now."""
    return _kilobytes(_STATUS, "VmRSS") * 1024


def peak_resident() -> int:
    """The most that it held since `reset_peak`."""
    return _kilobytes(_STATUS, "VmHWM") * 1024


def reset_peak() -> None:
    """Give back what was freed, and count the peak anew from here on.

    Raises:
        InputError: this system cannot do so.
    """
    gc.collect(1)  # what a step leaves in cycles is young; all generations would take longer than many a step
    with contextlib.suppress(OSError, AttributeError):  # another C library keeps what it keeps
        ctypes.CDLL(None).malloc_trim(0)
    try:
        _RESET.write_text("5")
        _kilobytes(_STATUS, "VmHWM")
    except (OSError, InputError):
        raise InputError(
            "the peak of a step's memory cannot be measured here: it takes Linux, and leave to write to "
            f"{_RESET}.", hint="Find the batch size where the training runs on a GPU, or try sizes by hand.",
        ) from None  # fmt: skip


def free_memory() -> int:
    """What the process could still take: what the system calls available, within the limits of its control groups."""
    return min([_kilobytes(Path("/proc/meminfo"), "MemAvailable") * 1024, *_left_in_groups()])


def _kilobytes(file: Path, name: str) -> int:
    try:
        for line in file.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
    except OSError:
        pass
    raise InputError(f"{file} does not say {name}, without which memory cannot be measured.")


def _left_in_groups() -> Iterator[int]:
    """What each control group that the process is in still has."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        kind = "memory" if controllers else ""
        root = _GROUPS / kind
        # A container sees its own group as the root, and the path of another world.
        folder = root / place.strip("/")
        for group in (folder, *folder.parents):
            if group == _GROUPS.parent or not group.is_relative_to(root):
                break
            with contextlib.suppress(OSError, ValueError, InputError):
                yield _left(group, *_FILES[kind])


def _left(group: Path, limit: str, usage: str, cache: str) -> int:
    total, used = int((group / limit).read_text()), int((group / usage).read_text())
    words = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return total - used + int(words.get(cache, 0))
