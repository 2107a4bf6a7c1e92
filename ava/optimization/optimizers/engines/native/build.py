"""From source to a loaded library: the compiler, and a cache that only its owner can write.

A library is kept under the hash of its source, the compiler and its flags, and the processor. It is built into a
file of its own and renamed into place, so two processes may build at once. Its last 32 bytes are the digest of the
others: a torn file is built anew. A cache directory that others could write to is not used.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import stat
import subprocess
import tempfile
import warnings
from pathlib import Path

FLAGS = (
    "-O3", "-march=native", "-std=c++17", "-fPIC", "-shared", "-w", "-fopenmp",
    "-fno-math-errno", "-fno-trapping-math", "-fassociative-math", "-fno-signed-zeros",
)  # fmt: skip
"""Sums may be reordered, or no reduction would be vectorised. No -ffast-math: it would flush the whole process's small
numbers to zero."""
_DIGEST = 32


class NoCompiler(Exception):  # noqa: N818
    """No compiler is there, or it does not work."""


_TOLD: list[str] = []
"""The first reason why there was no kernel: the next ones differ by the names of temporary files."""


def tell(reason: str) -> None:
    """Warn, once a process, that there are no kernels."""
    if _TOLD:
        return
    _TOLD.append(reason)
    warnings.warn(
        f"{reason}; optimizers and gradient measurements run on plain torch operations, with the same result at 2 to "
        "20 times the cost. Install g++ for the fast ones.", RuntimeWarning, stacklevel=2,
    )  # fmt: skip


def load(source: str) -> ctypes.CDLL:
    """Compile a source, or take it from the cache, and load it.

    Raises:
        NoCompiler: it cannot be compiled here.
    """
    compiler = find_compiler()
    key = hashlib.sha256("\0".join([source, compiler, *FLAGS, _processor()]).encode()).hexdigest()[:40]
    path = cache_directory() / f"{key}.so"
    try:
        if not _is_whole(path):
            path = _built(source, compiler, path)
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise NoCompiler(f"the kernel cannot be built or loaded: {error}") from error


@functools.cache
def find_compiler() -> str:
    """The compiler's path and version.

    Raises:
        NoCompiler: there is none; `AVA_CXX` names one, and `AVA_CXX=none` forbids it.
    """
    wanted = os.environ.get("AVA_CXX")
    for name in [wanted] if wanted else ["g++", "c++"]:
        path = shutil.which(name)
        if path is not None:
            try:
                answer = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
            except OSError as error:
                raise NoCompiler(f"no C++ compiler was found: {path} does not run ({error})") from error
            return f"{path}\n{answer.stdout}"
    raise NoCompiler("no C++ compiler was found" + (f" under the name AVA_CXX={wanted}" if wanted else ""))


@functools.cache
def _processor() -> str:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
        return "\n".join(line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part")))
    except OSError:
        return f"{platform.machine()} {platform.processor()}"


@functools.cache
def cache_directory() -> Path:
    """The user's directory of kernels; one of this process alone where that is not private."""
    base = os.environ.get("AVA_CACHE") or os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    path = Path(base) / "ava" / "kernels"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _is_private(path):
            return path
        reason = "others may write to it"
    except (OSError, RuntimeError) as error:
        reason = str(error)
    return _own_directory(path, reason)


@functools.cache
def _own_directory(instead_of: Path, reason: str) -> Path:
    """A directory of this process alone, which is gone with it."""
    import atexit

    warnings.warn(
        f"kernels are not kept in {instead_of}: {reason}. They are built anew in each process.", RuntimeWarning,
        stacklevel=2,
    )  # fmt: skip
    path = tempfile.mkdtemp(prefix="ava-kernels-")
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return Path(path)


def _is_private(path: Path) -> bool:
    """Whether only this user can write to a directory or file, itself no link."""
    info = path.lstat()
    return not stat.S_ISLNK(info.st_mode) and info.st_uid == os.geteuid() and not info.st_mode & 0o022


def _is_whole(path: Path) -> bool:
    """Whether a library is there, ours, and as it was written."""
    try:
        if not _is_private(path):
            return False
        content = path.read_bytes()
    except OSError:
        return False
    return hashlib.sha256(content[:-_DIGEST]).digest() == content[-_DIGEST:]


def _built(source: str, compiler: str, path: Path) -> Path:
    """Build into the cache, or beside it where that may only be read or is full.

    Returns:
        Where the library is.
    """
    try:
        _build(source, compiler, path)
    except OSError as error:
        path = _own_directory(path.parent, error.strerror or str(error)) / path.name
        if not _is_whole(path):
            _build(source, compiler, path)
    return path


def _build(source: str, compiler: str, path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="build-", dir=path.parent) as folder:
        text, made = Path(folder) / "kernel.cpp", Path(folder) / "kernel.so"
        text.write_text(source, encoding="utf-8")
        command = [compiler.split("\n")[0], *FLAGS, str(text), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NoCompiler(f"the compiler failed: {done.stderr.strip()[-2000:]}")
        content = made.read_bytes()
        made.write_bytes(content + hashlib.sha256(content).digest())
        made.chmod(0o700)
        made.replace(path)
