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
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.types_pb2 import DT_STRING

        self._event, self._summary = Event, Summary
        self._metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        self._tensor, self._string = TensorProto, DT_STRING
        folder.mkdir(parents=True, exist_ok=True)
        moment = time.time()
        name = f"events.out.tfevents.{moment:.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = (folder / name).open("xb")
        self._write(Event(wall_time=moment, file_version="brain.Event:2"))
        self._restart = SessionLog(status=SessionLog.START)
        self.on_rollback(first_step - 1)
        self._file.flush()

    def on_log(self, row: dict[str, float]) -> None:
        """Write the row's numbers."""
        self._scalars(row)

    def on_eval(self, row: dict[str, float]) -> None:
        """Write the row's numbers; what was written so far can be seen."""
        self._scalars(row)
        self._file.flush()

    def on_incident(self, row: dict[str, Any]) -> None:
        """Mark the step: a 1 under `incident/<kind>`, and what was seen and done as a text under `incidents`."""
        text = " ".join([f"{row['kind']}: {row['action']}", *([row["text"]] if "text" in row else [])])
        tensor = self._tensor(dtype=self._string, string_val=[text.encode()])
        told = self._summary.Value(tag="incidents", metadata=self._metadata, tensor=tensor)
        mark = self._summary.Value(tag=f"incident/{row['kind']}", simple_value=1.0)
        summary = self._summary(value=[mark, told])
        self._write(self._event(wall_time=time.time(), step=int(row["step"]), summary=summary))

    def on_rollback(self, step: int) -> None:
        """Mark what was written of later steps as void."""
        self._write(self._event(wall_time=time.time(), step=step + 1, session_log=self._restart))

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
