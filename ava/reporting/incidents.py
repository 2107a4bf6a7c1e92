"""incidents.jsonl: a line for every anomaly of a run and what was done about it.

    {"step": 812, "kind": "nonfinite_gradient", "action": "skip", "time": 1754300000.1}

The file only grows. A run that resumes from before an incident keeps its line: it happened.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ava.reporting import json_lines


class IncidentLog:
    """The incidents of one run.

    Args:
        path: the run's incidents.jsonl; made with the first incident.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, step: int, kind: str, action: str, **details: float | str) -> None:
        """Append one incident; it survives a power cut once this returns.

        Args:
            step: the optimizer step at which it happened.
            kind: what happened, in one word such as `nonfinite_gradient`.
            action: what was done, such as `skip`.
            details: the numbers and texts that explain it, by name.

        Raises:
            OSError: the disk refused.
        """
        lines = json_lines.JsonLines(self.path)
        try:
            lines.write({"step": step, "kind": kind, "action": action, "time": time.time(), **details})
            lines.force_to_disk()
        finally:
            lines.close()

    def read(self) -> list[dict[str, Any]]:
        """Every incident, in order.

        Raises:
            InputError: a line is damaged. The last may be torn; it is skipped.
        """
        return json_lines.read(self.path)
