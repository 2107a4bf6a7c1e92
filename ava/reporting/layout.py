"""How numbers of a run look on a screen: the same for every display."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rich.table import Table

_OWN_PLACE = ("step", "time", "loss", "lr", "grad_norm", "throughput", "memory")


class Pace:
    """Guesses the time left from the steps seen so far, evaluations and checkpoints included.

    Args:
        first_step: the step that comes first.
        total_steps: the last step, or None if nobody knows.
        clock: seconds since some moment.
    """

    def __init__(self, first_step: int, total_steps: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._total, self._clock = total_steps, clock
        self._begin = (first_step - 1, clock())
        self._is_warm = False

    def left(self, step: int) -> str:
        """The time left after `step`, as 1:02:03 or 2:03; "?" where there is no telling."""
        now = self._clock()
        begin, since = self._begin
        if self._total is None or step <= begin:
            return "?"
        left = max(0, self._total - step) * (now - since) / (step - begin)
        if not self._is_warm:
            # the first steps pay for warming up and compiling: they are not counted from the second row on
            self._begin, self._is_warm = (step, now), True
        return duration(left)


def duration(seconds: float) -> str:
    """Seconds as 2:03 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def number(value: float) -> str:
    """A metric with four digits that mean something."""
    if isinstance(value, int) or value == 0:
        return f"{value:,}"
    return f"{value:.4f}" if 0.1 <= abs(value) < 1000 else f"{value:.3e}" if abs(value) < 0.01 else f"{value:,.4g}"


def progress_fields(row: dict[str, float], unit: str) -> list[tuple[str, str]]:
    """The (name, text) pairs of a log row that a display shows: loss, its objectives, lr, gradient norm, speed."""
    names = ["loss", *(name for name in row if name.startswith("loss/")), "lr", "grad_norm"]
    fields = [(name, number(row[name])) for name in names if name in row]
    if "throughput" in row:
        fields.append((f"{unit}/s", f"{row['throughput']:,.0f}"))
    return fields


def evaluation_fields(row: dict[str, float]) -> list[tuple[str, str]]:
    """The (name, text) pairs of an evaluation row."""
    return [(name.removeprefix("eval/"), number(value)) for name, value in row.items() if name not in _OWN_PLACE]


def incident_fields(row: dict[str, Any]) -> list[tuple[str, str]]:
    """What was seen, what was done, and its numbers."""
    told = [(str(row["kind"]), str(row["action"]))]
    numbers = [(k, v) for k, v in row.items() if k not in ("step", "kind", "action", "time")]
    return told + [(name, number(value) if isinstance(value, int | float) else str(value)) for name, value in numbers]


def headline(info: dict[str, Any]) -> str:
    """What trains, in one line."""
    parts = [str(info[name]) for name in ("task", "model", "optimizer", "scheduler", "device") if info.get(name)]
    if info.get("ranks", 1) > 1:
        parts.append(f"{info['ranks']} ranks")
    if info.get("parameters"):
        parts.append(f"{info['parameters']:,} parameters")
    if info.get("total_steps"):
        first = info.get("first_step", 1)
        over = first > info["total_steps"]
        parts.append(
            f"all {info['total_steps']:,} steps taken" if over else f"steps {first:,} to {info['total_steps']:,}"
        )
    return ", ".join(parts)


def remarks(info: dict[str, Any]) -> list[str]:
    """What else a user should read before it trains: the data, and notices."""
    return [*([f"data: {info['data']}"] if info.get("data") else []), *info.get("notices", [])]


def closing_line(summary: dict[str, Any]) -> str:
    """How it ended and how long it took, in one line."""
    parts = [str(summary.get("status", "done"))]
    if "steps" in summary:
        parts.append(f"{summary['steps']:,} steps")
    if summary.get("overflows"):
        parts.append(f"{summary['overflows']:,} left out for overflows of the loss scale")
    if summary.get("recompiles"):
        parts.append(f"compiled anew {summary['recompiles']:,} times")
    if "seconds" in summary:
        parts.append(f"{summary['seconds']:,.1f} s")
    if "peak_memory" in summary:
        parts.append(f"peak memory {summary['peak_memory'] / 1e6:,.0f} MB")
    if summary.get("tokens_per_second"):
        parts.append(f"{summary['tokens_per_second']:,.0f} tokens/s")
    if isinstance(summary.get("mfu"), float):
        parts.append(f"MFU {summary['mfu']:.1%}")
    return ", ".join(parts)


def result_table(summary: dict[str, Any]) -> Table | None:
    """What the run reached beside what simple methods reach on the same data; None if it evaluated nothing.

    Args:
        summary: as `Summary.complete` gives it; `baselines` is a list of {"name", "metric", "value"}.
    """
    best = {name: entry for name, entry in summary.get("best", {}).items() if name.startswith("eval/")}
    if not best:
        return None
    table = Table("metric", "", "value", "at step", box=None, pad_edge=False, header_style="dim")
    table.columns[2].justify = table.columns[3].justify = "right"
    for name, entry in best.items():
        table.add_row(name, "this run, best", number(entry["value"]), f"{entry['step']:,}", style="bold")
        table.add_row(name, "this run, last", number(summary[name]), f"{summary.get('steps', ''):,}")
        for baseline in summary.get("baselines", []):
            if baseline["metric"] == name:
                table.add_row(name, baseline["name"], number(baseline["value"]), "")
    return table
