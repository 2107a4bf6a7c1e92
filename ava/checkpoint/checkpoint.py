"""One checkpoint: a folder that is there whole, or not at all, and that proves its content.

    step-300/
        model.safetensors        the tensors of the section "model"
        optimizer.safetensors    ...
        state.json               the rest of every section: numbers, text, and where each tensor stands
        manifest.json            step, and size and checksum of every file

There is no pickle: loading executes nothing. All files are on the disk before the folder gets its name, and the
folder has its name before `latest` points to it, so a kill or a power cut at any moment leaves the earlier checkpoints
as they were.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ava.checkpoint import manifest
from ava.checkpoint.folder import clear_leftovers, latest, prune, publish, resolve, steps
from ava.checkpoint.tree import flatten, restore
from ava.errors import InputError, TrainingFailed

__all__ = ["latest", "load", "prune", "read_manifest", "resolve", "save", "steps"]

STATE = "state.json"
_SECTION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")

read_manifest = manifest.read


def save(folder: Path, step: int, state: Mapping[str, Any], world_size: int | None = None) -> Path:
    """Write `folder/step-N`, replacing one of that name, and point `latest` to it.

    Args:
        folder: the run's `checkpoints`; made if need be. Only one process may save into it at a time.
        step: optimizer steps taken, >= 0.
        state: section -> tree of dict, list, tuple, tensor, int, float, str, bool and None. A section's name is its
            file's name: letters, digits, `_` and `-`.
        world_size: the number of ranks that trained, for whoever resumes.

    Returns:
        The checkpoint's folder.

    Raises:
        InputError: the state holds something that cannot be stored exactly.
        TrainingFailed: the disk refused; earlier checkpoints are untouched.
    """
    for section in state:
        if not _SECTION.fullmatch(section):
            raise InputError(f"a checkpoint section cannot be called {section!r}: letters, digits, _ and - only.")
    flat = {section: flatten(tree, section) for section, tree in state.items()}
    temporary = folder / f".step-{step}.{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        clear_leftovers(folder)
        temporary.mkdir()
        _write(temporary, flat, step, world_size)
        return publish(temporary, step)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise TrainingFailed(
            f"the checkpoint could not be written to {folder}: {_reason(error)}. Earlier checkpoints are intact: "
            "make room, then continue with resume=auto.",
            step=step,
        ) from error


def load(checkpoint: Path, sections: Collection[str] | None = None) -> dict[str, Any]:
    """Read a checkpoint after verifying all that is read.

    Args:
        checkpoint: a `step-N` folder, as `resolve` or `latest` give it.
        sections: those to read, of those that are there; None reads all.

    Returns:
        The state given to `save`, with its tensors on the CPU.

    Raises:
        InputError: a file is missing, truncated, altered or of a newer format; names it.
    """
    files = manifest.read(checkpoint)["files"]
    if sections is not None:
        wanted = {STATE, *map(_file, sections)}
        files = {name: about for name, about in files.items() if name in wanted}
    manifest.check(checkpoint, files)
    try:
        skeletons = json.loads((checkpoint / STATE).read_bytes())
        if sections is not None:
            skeletons = [(section, skeleton) for section, skeleton in skeletons if section in sections]
        return {section: restore(skeleton, _tensors(checkpoint, section, files)) for section, skeleton in skeletons}
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{checkpoint} cannot be read: {error!r}.", hint=manifest.REMEDY) from error


def _write(folder: Path, flat: dict[str, tuple[Any, dict[str, Any]]], step: int, world_size: int | None) -> None:
    """Fill a folder with the files of a checkpoint."""
    files = [STATE]
    skeletons = [(section, skeleton) for section, (skeleton, _) in flat.items()]
    (folder / STATE).write_text(json.dumps(skeletons, allow_nan=False), encoding="utf-8")
    for section, (_, tensors) in flat.items():
        if tensors:
            files.append(_file(section))
            save_file(tensors, folder / files[-1])
    (folder / manifest.FILE).write_text(manifest.build(folder, files, step, world_size), encoding="utf-8")


def _tensors(checkpoint: Path, section: str, files: dict[str, Any]) -> dict[str, Any]:
    """The tensors of a section by name. Only files that the manifest vouches for are read."""
    if _file(section) not in files:
        return {}
    # safetensors maps the file into memory; without the copies, a training would go on living in a file that is pruned
    return {name: tensor.clone() for name, tensor in load_file(checkpoint / _file(section)).items()}


def _file(section: str) -> str:
    return f"{section}.safetensors"


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
