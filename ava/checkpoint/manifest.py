"""What a checkpoint folder must hold, byte for byte.

`manifest.json` names every file with its size and its xxh3_128 checksum, and carries a checksum of itself. That
finds truncation and decay, which the tensor formats do not: nearly every flipped bit loads silently. It does not stop
an attacker, who can rewrite the manifest; that nothing in a checkpoint is executable does.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import xxhash

from ava.errors import InputError

FILE = "manifest.json"
FORMAT = 1
"""Counts up with every change that an older Ava could not read."""


def build(folder: Path, files: list[str], step: int, world_size: int | None) -> str:
    """The manifest of a folder just written, as text.

    Args:
        folder: where the files are.
        files: their names.
        step: optimizer steps taken.
        world_size: the number of ranks that trained, if it matters to whoever resumes.

    Raises:
        OSError: a file cannot be read back.
    """
    listed = {name: {"bytes": (folder / name).stat().st_size, "xxh3_128": checksum(folder / name)} for name in files}
    content = {"format": FORMAT, "step": step, "world_size": world_size, "files": listed}
    return json.dumps({**content, "checksum": _digest(content)}, indent=1) + "\n"


def read(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint: `format`, `step`, `world_size`, and `files` by name.

    Raises:
        InputError: it is missing, altered, or of a newer format.
    """
    path = folder / FILE
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{folder} is no complete checkpoint: {FILE} is missing.", hint=REMEDY) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.", hint=REMEDY) from None
    except ValueError:
        raise InputError(f"{path} is damaged: it is not JSON.", hint=REMEDY) from None
    version = content.get("format") if isinstance(content, dict) else None
    if type(version) is int and version > FORMAT:
        raise InputError(
            f"{path} is of checkpoint format {version}; this Ava reads formats up to {FORMAT}.", hint="Upgrade Ava."
        )
    if version != FORMAT or content.pop("checksum", None) != _digest(content):
        raise InputError(f"{path} is damaged: its content does not match its own checksum.", hint=REMEDY)
    return dict(content)


def check(folder: Path, files: dict[str, dict[str, Any]]) -> None:
    """Compare every file with what the manifest says of it.

    Raises:
        InputError: a file is missing, truncated or altered; names it.
    """
    for name, expected in files.items():
        path = folder / name
        try:
            size = path.stat().st_size
            if size != expected["bytes"]:
                raise InputError(f"{path} is truncated: {size} of {expected['bytes']} bytes are there.", hint=REMEDY)
            if checksum(path) != expected["xxh3_128"]:
                raise InputError(f"{path} is damaged: its content does not match its checksum.", hint=REMEDY)
        except FileNotFoundError:
            raise InputError(f"{path} is missing from the checkpoint.", hint=REMEDY) from None
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}.", hint=REMEDY) from None


def checksum(path: Path) -> str:
    """The xxh3_128 of a file, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()


def _digest(content: dict[str, Any]) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(content, sort_keys=True).encode())


REMEDY = "Resume from another checkpoint of the run: resume=<run directory>/checkpoints/step-N."
