"""What the compiler did for a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Compilation:
    """What was compiled at the start.

    Attributes:
        seconds: that it took.
        graphs: that were made of the forward pass.
        graph_breaks: places where the model or the task left the graph, which cost speed.
        frames: functions that the compiler had looked at by then.
    """

    seconds: float
    graphs: int
    graph_breaks: int
    frames: int

    @property
    def recompiles(self) -> int:
        """What was compiled since: 0 unless the data brings shapes that the plan does not name."""
        return counts()[0] - self.frames


def counts() -> tuple[int, int, int]:
    """Functions looked at, graphs made and graph breaks, of this process so far."""
    from torch._dynamo.utils import counters

    return counters["frames"]["total"], counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())
