"""TensorBoard: the same numbers under the same names, in the run directory's `tb`."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ava.registry import logger
from ava.reporting.listener import Listener
from ava.reporting.tensorboard_records import record

_HIDDEN = ("step", "time")


@logger
def tensorboard(run_dir: Path, first_step: int, /) -> Listener:
    """TensorBoard event files in `<run_dir>/tb`: `tensorboard --logdir outputs`.

    Args:
        run_dir: the run directory.
        first_step: the step that comes first; what an earlier, interrupted part of the run logged of this step and
            later ones is marked as void.
    """
    return _TensorBoard(run_dir / "tb", first_step)


class _TensorBoard(Listener):
    """Writes TensorBoard's events straight from the calling thread.

    torch's SummaryWriter adds a thread and a queue, which a handful of scalars every few steps do not need.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # 0.13 s: not before it is wanted
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._event, self._summary = Event, Summary
        folder.mkdir(parents=True, exist_ok=True)
        moment = time.time()
        name = f"events.out.tfevents.{moment:.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = (folder / name).open("xb")
        self._write(Event(wall_time=moment, file_version="brain.Event:2"))
        restart = SessionLog(status=SessionLog.START)
        self._write(Event(wall_time=moment, step=first_step, session_log=restart))
        self._file.flush()

    def on_log(self, row: dict[str, float]) -> None:
        """Write the row's numbers."""
        self._scalars(row)

    def on_eval(self, row: dict[str, float]) -> None:
        """Write the row's numbers; what was written so far can be seen."""
        self._scalars(row)
        self._file.flush()

    def close(self) -> None:
        """Finish the file."""
        if not self._file.closed:
            self._file.close()

    def _scalars(self, row: dict[str, float]) -> None:
        values = [self._summary.Value(tag=tag, simple_value=number) for tag, number in _shown(row)]
        summary = self._summary(value=values)
        self._write(self._event(wall_time=time.time(), step=int(row["step"]), summary=summary))

    def _write(self, event: Any) -> None:
        self._file.write(record(event.SerializeToString()))


def _shown(row: dict[str, float]) -> Iterator[tuple[str, float]]:
    return ((tag, number) for tag, number in row.items() if tag not in _HIDDEN)
