"""Peak memory of a loop in a process of its own, and whether it grows with the steps.

python -m ava.bench.memory ava digits 10000
"""

from __future__ import annotations

import gc
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ava.bench.loops import loop_named
from ava.bench.turns import Ended, Gate, until_ended
from ava.bench.workloads import WORKLOADS
from ava.data.loader import Position

COLUMNS = {
    "model": "model", "loop": "loop", "peak_mb": "peak RSS MB", "ratio": "peak / bare",
    "growth_kb": "growth KB (2nd half)", "objects": "objects more (2nd half)", "steps": "steps",
}  # fmt: skip
STEPS = {"digits": 1000, "gpt": 40}


def measure(model: str, loops: list[str]) -> list[dict[str, Any]]:
    """One row a loop."""
    rows = [measure_one(loop, model, STEPS[model]) for loop in loops]
    base = next((row["peak_mb"] for row in rows if row["loop"] == "bare"), None)
    return [row | {"ratio": round(row["peak_mb"] / base, 4) if base else None} for row in rows]


def measure_one(loop: str, model: str, steps: int) -> dict[str, Any]:
    """Run `steps` steps of a loop in a fresh process and read what the system counted."""
    command = [sys.executable, "-m", "ava.bench.memory", loop, model, str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    row: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return row


class _Counted(Gate[Any]):
    """A stream of a fixed number of batches that looks at memory half-way and at its end."""

    def __init__(self, stream: Iterator[Any], steps: int) -> None:
        super().__init__(stream, steps)
        self.marks: list[tuple[int, int]] = []

    def __iter__(self) -> Iterator[Any]:
        for step in range(self.per_turn):
            if step == self.per_turn // 2:
                self.marks.append(_usage())
            yield next(self.stream)
        self.marks.append(_usage())
        raise Ended


def _usage() -> tuple[int, int]:
    """Resident bytes, and the number of objects that the collector tracks."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize(), len(gc.get_objects())


def main(argv: list[str]) -> None:
    """Train, and print one line of JSON."""
    loop, name, steps = argv[0], argv[1], int(argv[2])
    workload = WORKLOADS[name]
    task, model, loader = workload.build()
    windows = loader.windows(Position())
    gate = _Counted(windows if loop.startswith("ava") else (w.batches[0] for w in windows), steps)
    until_ended(loop_named(loop, workload, task, model), gate)
    (middle, objects), (end, more) = gate.marks[0], gate.marks[-1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({
        "model": workload.name, "loop": loop, "peak_mb": round(peak, 1), "growth_kb": (end - middle) // 1024,
        "objects": more - objects, "steps": steps,
    }))  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
