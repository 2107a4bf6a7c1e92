"""Progress on the screen: a live bar on a terminal, plain lines elsewhere.

The bar is drawn when a logged step arrives, at most ten times a second, by the thread that trains: there is no second
thread to compete with it, and a step that does not log costs nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ava.reporting import layout
from ava.reporting.listener import Listener
from ava.reporting.plain import PlainProgress

SECONDS_BETWEEN_DRAWINGS = 0.1


def progress(console: Console | None = None) -> Listener:
    """The display that suits where the output goes.

    Args:
        console: where to write; by default standard output.
    """
    console = console or Console()
    return LiveProgress(console) if console.is_terminal and not console.is_dumb_terminal else PlainProgress(console)


class LiveProgress(Listener):
    """A bar and the newest numbers, redrawn in place; evaluations scroll by above it.

    Args:
        console: a terminal.
        clock: seconds since some moment.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._unit = "samples"
        self._total: int | None = None
        self._pace = layout.Pace(1, None, clock)
        self._live: Live | None = None
        self._drawn = float("-inf")

    def on_start(self, info: dict[str, Any]) -> None:
        """Say what trains and where its directory is, and begin the bar."""
        self._unit, self._total = info.get("unit", "samples"), info.get("total_steps")
        self._pace = layout.Pace(info.get("first_step", 1), self._total, self._clock)
        self._console.print(Text.assemble(("run directory ", "dim"), str(info["run_dir"])), soft_wrap=True)
        self._console.print(Text(layout.headline(info), style="bold"))
        for remark in layout.remarks(info):
            self._console.print(Text(remark, style="dim"))
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._live.start()

    def on_log(self, row: dict[str, float]) -> None:
        """Redraw, unless the last drawing is too fresh."""
        step, now = int(row["step"]), self._clock()
        left = self._pace.left(step)
        is_last = step == self._total
        if self._live is not None and (is_last or now - self._drawn >= SECONDS_BETWEEN_DRAWINGS):
            self._drawn = now
            fields = layout.progress_fields(row, self._unit)
            self._live.update(Group(self._bar(step, left), _line(fields)), refresh=True)

    def on_eval(self, row: dict[str, float]) -> None:
        """Print the row above the bar."""
        text = Text.assemble(("eval ", "cyan"), f"{int(row['step']):,}")
        self._console.print(text + _line(layout.evaluation_fields(row)))

    def on_incident(self, row: dict[str, Any]) -> None:
        """Print what was seen and done above the bar; advice is a sentence."""
        if row["kind"] == "advice":
            told = Text.assemble(("advice ", "bold yellow"), f" step {int(row['step']):,}: {row['text']}")
            self._console.print(told)
            return
        text = Text.assemble(("note ", "yellow"), f"{int(row['step']):,}")
        self._console.print(text + _line(layout.incident_fields(row)))

    def on_end(self, summary: dict[str, Any]) -> None:
        """Replace the bar by how it ended, beside the baselines."""
        self.close()
        self._console.print(Text(layout.closing_line(summary), style="green"))
        table = layout.result_table(summary)
        if table is not None:
            self._console.print(table)

    def close(self) -> None:
        """Give the terminal back."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _bar(self, step: int, left: str) -> Table:
        """One row as wide as the terminal: step, bar, share done, time left."""
        row = Table.grid(expand=True, padding=(0, 1))
        row.add_column(no_wrap=True)
        if self._total is None:
            row.add_row(f"step {step:,}")
            return row
        row.add_column(ratio=1)
        row.add_column(no_wrap=True)
        bar = ProgressBar(total=self._total, completed=step)
        row.add_row(f"step {step:,}/{self._total:,}", bar, f"{step / self._total:.0%}  {left} left")
        return row


def _line(fields: list[tuple[str, str]]) -> Text:
    """The fields on one line that is cut at the terminal's edge, not broken."""
    text = Text(no_wrap=True, overflow="ellipsis")
    for name, value in fields:
        text.append(f"  {name} ", style="dim").append(value)
    return text
