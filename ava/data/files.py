"""What the sources that read a user's files share: finding, reading and splitting them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from ava.errors import InputError


def existing(path: str | None, what: str = "FILE_OR_FOLDER") -> Path:
    """The file or folder that the user gave.

    Args:
        path: what was given; `~` is the home folder.
        what: what the message asks for when nothing was given.
    Raises:
        InputError: nothing was given, or it does not exist.
    """
    if path is None:
        raise InputError("this data source reads your own files and needs to know where.", hint=f"Give path={what}.")
    try:
        found = Path(path).expanduser().absolute()
        found.stat()
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"path {path!r} cannot be read: {reason}.", hint=f"Give path={what}.") from error
    return found


def matching(folder: Path, pattern: str) -> list[Path]:
    """The files below `folder` that match a glob, sorted by name.

    Raises:
        InputError: `pattern` is no relative glob, or matches no file; says which kinds of file there are.
    """
    try:
        paths = sorted(path for path in folder.glob(pattern) if path.is_file())
    except (ValueError, NotImplementedError) as error:
        raise InputError(
            f"{pattern!r} is no pattern for files in a folder: {error}.", hint="Use for example '**/*.txt'."
        ) from error
    if not paths:
        suffixes = sorted({path.suffix for path in folder.rglob("*") if path.is_file() and path.suffix})
        have = f"It holds files ending in {', '.join(suffixes[:8])}." if suffixes else "It holds no files."
        raise InputError(f"no file in {folder} matches {pattern!r}.", hint=have)
    return paths


def read_bytes(path: Path) -> bytes:
    """What is in a file.

    Raises:
        InputError: it cannot be read; names it and the reason.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error


def held_out(names: Sequence[str], fraction: float) -> list[bool]:
    """Which files are for validation: those whose name hashes below `fraction`.

    A file's side does not depend on the other files or on the run's seed, so adding files moves none, and runs with
    different seeds are measured on the same data. With two files or more, each side gets at least one.

    Args:
        names: relative paths, with `/` on every system.
        fraction: the expected share for validation, 0 <= fraction <= 1.
    """
    place = [int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") / 2**64 for name in names]
    chosen = [p < fraction for p in place]
    if len(names) > 1 and not any(chosen):
        chosen[place.index(min(place))] = True
    if all(chosen) and names:
        chosen[place.index(max(place))] = False
    return chosen
