"""The checkpoints of one run: `step-N` folders beside a `latest` pointer.

A folder called `step-N` is complete, because it got that name only after all of it was on disk. Names that begin with
a dot are work in progress: `.step-N.<pid>.tmp` is being written or deleted; `.step-N.replaced` is the former `step-N`
and counts as it while none has taken its place, so that at every moment one of them is there.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from ava.checkpoint import atomic, manifest
from ava.errors import InputError

POINTER = "latest"
_STEP = re.compile(r"\.?step-(\d+)(\.replaced)?")


def steps(folder: Path) -> dict[int, Path]:
    """The checkpoints in a folder, by step, in order; none where the folder does not exist."""
    found: dict[int, Path] = {}
    for path in sorted(folder.glob("*step-*")) if folder.is_dir() else []:
        match = _STEP.fullmatch(path.name)
        if match and path.name.startswith(".") == bool(match[2]) and (path / manifest.FILE).is_file():
            found[int(match[1])] = path  # a dot sorts before a letter: step-N overrides .step-N.replaced
    return dict(sorted(found.items()))


def latest(folder: Path) -> Path | None:
    """The checkpoint a run goes on from: what `latest` points to, or the newest if it points nowhere.

    Args:
        folder: a run's `checkpoints`; it need not exist.
    """
    known = steps(folder)
    pointed = _pointed(folder)
    if pointed in known:
        return known[pointed]
    return known[max(known)] if known else None


def resolve(path: Path) -> Path:
    """The checkpoint that a user means by a path.

    Args:
        path: a run directory, its `checkpoints`, or one `step-N` in there.

    Raises:
        InputError: there is no checkpoint.
    """
    if not path.is_dir():
        problem = "is a file" if path.exists() else "does not exist"
        raise InputError(f"{path} {problem}; a run directory or a checkpoint directory is needed.")
    if (path / manifest.FILE).is_file() or _STEP.fullmatch(path.name):
        return path
    found = latest(path / "checkpoints") or latest(path)
    if found is None:
        raise InputError(
            f"{path} holds no complete checkpoint.",
            hint="Give a run directory that has checkpoints/step-N, or one such step-N itself.",
        )
    return found


def prune(folder: Path, keep_last: int, keep: set[int]) -> None:
    """Delete old checkpoints.

    Stays: the `keep_last` newest up to the one `latest` points to, that one itself, and `keep`. A run resumed from an
    earlier step has abandoned the later ones; they go.

    Args:
        folder: a run's `checkpoints`.
        keep_last: how many of the newest stay, >= 0.
        keep: further steps that stay, such as the best.

    Raises:
        OSError: a folder cannot be deleted.
    """
    known = steps(folder)
    current = latest(folder)
    now = next((step for step, path in known.items() if path == current), 0)
    past = [step for step in known if step <= now]
    kept = {now, *keep, *past[max(0, len(past) - keep_last) :]}
    for step, path in known.items():
        if step not in kept:
            remove(path)


def publish(temporary: Path, step: int) -> Path:
    """Give a finished folder its name `step-N`, in the place of an earlier one, and point `latest` to it.

    The names change only after all content is on the disk. Should a power cut keep one of the two renames and lose
    the other, `latest` still finds a complete checkpoint.

    Args:
        temporary: the folder, all files written.
        step: its step.

    Raises:
        OSError: the disk refused; what was there before is found by `latest` still.
    """
    folder = temporary.parent
    final, replaced = folder / f"step-{step}", folder / f".step-{step}.replaced"
    pointer = folder / f".{POINTER}.{os.getpid()}.tmp"
    pointer.write_text(final.name + "\n", encoding="utf-8")
    atomic.force_to_disk(*temporary.iterdir(), temporary, pointer)
    if final.exists():
        final.rename(replaced)
    temporary.rename(final)
    pointer.rename(folder / POINTER)
    atomic.force_to_disk(folder)
    if replaced.exists():
        remove(replaced)
    return final


def clear_leftovers(folder: Path) -> None:
    """Undo what a killed save or deletion left half done. Only the process that holds the run's lock may call it."""
    for path in folder.glob(".step-*.replaced"):
        final = folder / path.name[1 : -len(".replaced")]
        if final.exists():
            remove(path)
        else:
            path.rename(final)
    for path in folder.glob(".*.tmp"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def remove(path: Path) -> None:
    """Delete a checkpoint: its name goes first, so that no half of it is taken for a whole."""
    doomed = path.with_name(f".{path.name.lstrip('.')}.removed.tmp")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed)


def _pointed(folder: Path) -> int | None:
    try:
        match = _STEP.fullmatch((folder / POINTER).read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError):
        return None
    return int(match[1]) if match else None
