"""Files that are there whole or not at all.

A file is written under a temporary name beside its place, forced to disk, and renamed: whoever reads, and
whatever kills the writer, meets the old content or the new and nothing between. The folder is forced to disk as
well, because a rename lives in the folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Replace the content of `path` in one step; it survives a power cut once this returns.

    Args:
        path: the file; its folder exists.
        text: the new content, written as UTF-8.

    Raises:
        OSError: the disk refused; the old content stands.
    """
    write_lines(path, [text.encode("utf-8")])


def write_lines(path: Path, chunks: Iterable[bytes]) -> None:
    """Replace the content of `path` in one step by `chunks`, one after the other.

    Args:
        path: the file; its folder exists.
        chunks: the new content; may be read lazily from the old file.

    Raises:
        OSError: the disk refused; the old content stands.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.writelines(chunks)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    force_to_disk(path.parent)


def force_to_disk(*paths: Path) -> None:
    """Return once the content of every file, and every folder's list of names, is on the disk.

    They are asked for at once: a file system writes many small files down together in the time of one.

    Raises:
        OSError: the disk refused.
    """
    if len(paths) == 1:
        _force(paths[0])
        return
    with ThreadPoolExecutor(max_workers=min(16, len(paths))) as pool:
        list(pool.map(_force, paths))


def _force(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
