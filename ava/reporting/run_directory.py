"""The run directory: one run owns it, and one process at a time writes into it.

A new run makes its directory with one atomic `mkdir`, so of two that choose the same name one gets it. Whoever
writes holds a lock on `.lock` in there, which says who it is. The lock is the kernel's (flock): it goes when its
holder dies, however that happens, and a file left behind locks nobody out.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import TracebackType

from ava.errors import InputError

_LOCK = ".lock"
_SIGNS = ("config.yaml", "checkpoints", "metrics.jsonl")
"""By any of these a run directory is known."""

_held: set[int] = set()


def _drop_inherited_locks() -> None:
    """In a forked child: a data loader's worker that outlives its parent must not keep the run locked."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_drop_inherited_locks)


class RunDirectory:
    """A run directory that this process holds. Use `create`, `unique` or `open`; also a context manager.

    Attributes:
        root: its absolute path.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._descriptor: int | None = _lock(self.root)

    @classmethod
    def create(cls, root: Path) -> RunDirectory:
        """Make and lock the directory of a new run.

        Args:
            root: a path that does not exist, or a directory with what searches left at most; missing parents are made.

        Raises:
            InputError: there is something already, another process is faster, or it cannot be made. Nothing is left
                behind then.
        """
        root = root.absolute()
        made = _make_parents(root)
        try:
            with _readable(root):
                made += _make_or_take(root)
            directory = cls(root)
        except BaseException:
            _unmake(made)
            raise
        if not _is_empty(root):
            directory.release()
            raise _taken(root)
        return directory

    @classmethod
    def unique(cls, root: Path) -> RunDirectory:
        """Make and lock `root`, or the first of `root-1`, `root-2`, ... whose name is free.

        Args:
            root: the wish, such as a name made of date and time.

        Raises:
            InputError: no directory can be made there; nothing is left behind.
        """
        made = _make_parents(root.absolute())
        for number in itertools.count():
            candidate = root.absolute().with_name(root.name + (f"-{number}" if number else ""))
            try:
                with _readable(candidate):
                    candidate.mkdir()
            except FileExistsError:
                continue
            except BaseException:
                _unmake(made)
                raise
            return cls(candidate)
        raise AssertionError("counting never ends")

    @classmethod
    def open(cls, root: Path) -> RunDirectory:
        """Lock the directory of an earlier run, to resume it.

        Raises:
            InputError: it does not exist, holds no run, cannot be written, or another process holds it.
        """
        if not root.is_dir():
            problem = "is not a directory" if root.exists() else "does not exist"
            raise InputError(f"the run directory {root} {problem}.", hint="Give the directory of an earlier run.")
        if not any((root / sign).exists() for sign in _SIGNS):
            raise InputError(
                f"{root} holds no run: there is none of {', '.join(_SIGNS)}.", hint="Give an earlier run's directory."
            )
        return cls(root)

    def release(self) -> None:
        """Let go of the directory; calling it again does nothing."""
        if self._descriptor is not None:
            _held.discard(self._descriptor)
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _lock(root: Path) -> int:
    """Lock a directory, and write down in its lock file who does; returns the descriptor that holds the lock."""
    with _readable(root):
        descriptor = os.open(root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, (json.dumps(_self()) + "\n").encode())
        except BlockingIOError:
            os.close(descriptor)
            raise _in_use(root) from None
        except BaseException:
            (root / _LOCK).unlink(missing_ok=True)
            os.close(descriptor)
            raise
    _held.add(descriptor)
    return descriptor


def _self() -> dict[str, str | int]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "start": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def _in_use(root: Path) -> InputError:
    try:
        holder = json.loads((root / _LOCK).read_text(encoding="utf-8"))
        who = f"process {holder['pid']} on {holder['host']}, since {holder['start']}"
    except (OSError, ValueError, KeyError, TypeError):
        who = "another process"
    return InputError(
        f"the run directory {root} is in use by {who}.", hint="Wait for it, stop it, or choose another run_dir."
    )


def _taken(root: Path) -> InputError:
    return InputError(
        f"the run directory {root} already holds a run, or other files.",
        hint=f"Continue that run with resume={root}, or choose another run_dir.",
    )


def _make_parents(root: Path) -> list[Path]:
    """Make the missing parents of a path; returns those made here, outermost first."""
    missing = [path for path in reversed(root.parents) if not path.exists()]
    made: list[Path] = []
    try:
        with _readable(root):
            for path in missing:
                with contextlib.suppress(FileExistsError):
                    path.mkdir()
                    made.append(path)
            if not root.parent.is_dir():
                raise NotADirectoryError(20, "a parent of it is a file", str(root))
    except BaseException:
        _unmake(made)
        raise
    return made


def _make_or_take(root: Path) -> list[Path]:
    """Make a directory or find it empty; returns what was made."""
    try:
        root.mkdir()
    except FileExistsError:
        if not root.is_dir() or not _is_empty(root):
            raise _taken(root) from None
        return []
    return [root]


def _is_empty(root: Path) -> bool:
    """Whether no run was here; searches (`lr_finder.*`, `batch_size.json`) precede one."""
    return all(path.name == _LOCK or path.stem in ("lr_finder", "batch_size") for path in root.iterdir())


def _unmake(made: list[Path]) -> None:
    for path in reversed(made):
        with contextlib.suppress(OSError):
            path.rmdir()


@contextlib.contextmanager
def _readable(root: Path) -> Iterator[None]:
    """Turn what the system says of a directory into a message for whoever chose it."""
    try:
        yield
    except (FileExistsError, BlockingIOError, InputError):
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"the run directory {root} cannot be made or written: {reason}.", hint="Choose another run_dir."
        ) from None
