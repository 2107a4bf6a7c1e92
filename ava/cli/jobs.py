"""Runs as processes of their own, some at a time: a crash of one is an entry in a list."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType


@dataclass(frozen=True)
class Job:
    """A run to be.

    Attributes:
        shown: what the table calls it.
        arguments: its command line, after the command's name.
        run_dir: the directory it will make.
        log: the file that takes its output.
    """

    shown: str
    arguments: list[str]
    run_dir: Path
    log: Path


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        status: done, failed, interrupted or not started.
        code: its exit code; None if it was not started.
        seconds: how long its process lived.
        error: the last line it wrote, if it did not succeed.
    """

    status: str
    code: int | None = None
    seconds: float | None = None
    error: str = ""


@dataclass
class _Pool:
    """The processes that live, and whether more may start."""

    stopped_by: int | None = None
    alive: list[subprocess.Popen[bytes]] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def start(self, command: Sequence[str], log: Path, env: dict[str, str]) -> subprocess.Popen[bytes] | None:
        with self.lock, log.open("ab") as output:
            if self.stopped_by is not None:
                return None
            # A session of its own: Ctrl-C reaches it once, from here, and not a second time from the terminal.
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env, start_new_session=True
            )
            self.alive.append(process)
            return process

    def stop(self, number: int) -> None:
        """Let no more start, and pass a signal on to those that live: each saves a checkpoint and ends."""
        with self.lock:
            self.stopped_by = number
            for process in self.alive:
                process.send_signal(number)


def run_jobs(jobs: Sequence[Job], at_a_time: int) -> tuple[list[Outcome], int]:
    """Run jobs as processes, with a line of status as each one ends.

    Args:
        jobs: in their order.
        at_a_time: how many run together; the cores are divided among them.

    Returns:
        The outcome of each, and the exit code of the whole: 0 all succeeded, 1 not all, 130 or 143 interrupted.
    """
    pool, env = _Pool(), _environment(at_a_time)
    finished = 0
    report_lock = threading.Lock()

    def run(job: Job) -> Outcome:
        nonlocal finished
        outcome = _run(job, pool, env)
        with report_lock:
            finished += 1
            seconds = "" if outcome.seconds is None else f" in {outcome.seconds:.1f} s"
            why = f": {outcome.error}" if outcome.error else ""
            print(f"[{finished}/{len(jobs)}] {job.shown}  {outcome.status}{seconds}{why}", flush=True)
        return outcome

    with _forwarding(pool.stop), ThreadPoolExecutor(at_a_time) as threads:
        outcomes = list(threads.map(run, jobs))
    if pool.stopped_by is not None:
        return outcomes, 128 + pool.stopped_by
    return outcomes, 0 if all(outcome.status == "done" for outcome in outcomes) else 1


def _run(job: Job, pool: _Pool, env: dict[str, str]) -> Outcome:
    began = time.monotonic()
    process = pool.start([sys.executable, "-m", "ava.cli.train", *job.arguments], job.log, env)
    if process is None:
        return Outcome("not started")
    code = process.wait()
    with pool.lock:
        pool.alive.remove(process)
    seconds = round(time.monotonic() - began, 2)
    if code == 0:
        return Outcome("done", code, seconds)
    status = "interrupted" if pool.stopped_by is not None else "failed"
    return Outcome(status, code, seconds, _last_line(job.log) or _death(code))


def _environment(at_a_time: int) -> dict[str, str]:
    """The environment of a job; jobs that run together share the cores."""
    env = dict(os.environ)
    if at_a_time > 1 and "OMP_NUM_THREADS" not in env:
        env["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // at_a_time))
    return env


@contextlib.contextmanager
def _forwarding(stop: Callable[[int], None]) -> Iterator[None]:
    """While jobs run, SIGINT and SIGTERM go to them rather than end this process, which still writes the table."""

    def handle(number: int, frame: FrameType | None) -> None:
        stop(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _last_line(log: Path, limit: int = 300) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1][:limit] if lines else ""


def _death(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}, without a word"
