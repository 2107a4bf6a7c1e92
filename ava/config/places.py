"""Files and directories that a configuration names: looked at before anything is built, never touched."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ava.config.paths import OUTPUTS
from ava.config.schema import PARTS, Config, ResumePlan
from ava.errors import InputError, nearest

_SIGNS = ("config.yaml", "checkpoints", "metrics.jsonl")


def check_places(config: Config, plan: ResumePlan | None) -> None:
    """Check that the data can be read and the run directory made, on rank 0: other ranks could see it made already.

    Args:
        config: the checked configuration.
        plan: the checkpoint to continue from, if any.

    Raises:
        InputError: a path is missing, empty, unreadable, not writable or in use.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    check_data_path(config)
    with told_of("run_dir", config.run_dir):
        _check_run_dir(config, plan)


def _check_run_dir(config: Config, plan: ResumePlan | None) -> None:
    if plan is not None and not plan.new_run:
        return
    if config.run_dir is None:
        check_writable("run_dir", None, OUTPUTS)
    else:
        _check_new_run(config.run_dir, restart=config.resume == "auto")


@contextlib.contextmanager
def told_of(key: str, value: object) -> Iterator[None]:
    """Tell of a path that the system cannot even look at: too long, not a name, not permitted."""
    try:
        yield
    except InputError as error:
        is_bare = error.key is None and "\n" not in error.problem
        raise (error.at(key, value) if is_bare else error) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"is a path that cannot be used: {reason}.", key=key, value=value) from None


def check_data_path(config: Config) -> None:
    """Check the option `path` of the data source, where it has one.

    Raises:
        InputError: there is no such file or directory, it cannot be read, or there is nothing in it.
    """
    if "path" not in config.data.options:
        return
    path = config.data.options["path"]
    if path is None:
        if PARTS["data"][config.data.name].builder is not None:
            return  # a plugin may do without
        problem = f"data={config.data.name} reads files, but no path is given."
        raise InputError(problem, key="data.path", value=None, hint="Add `path=FILE_OR_FOLDER`.")
    with told_of("data.path", path):
        _check_readable(Path(str(path)).expanduser(), path)


def _check_readable(place: Path, path: object) -> None:
    if not place.exists():
        raise InputError("there is no such file or directory.", key="data.path", value=path, hint=_sibling(place))
    if not os.access(place, os.R_OK | (os.X_OK if place.is_dir() else 0)):
        raise InputError("cannot be read: permission denied.", key="data.path", value=path)
    if (place.is_dir() and not any(place.iterdir())) or (place.is_file() and place.stat().st_size == 0):
        raise InputError("is empty; data is needed to train.", key="data.path", value=path)


def check_writable(key: str, value: object, place: Path) -> None:
    """Check that a directory can be made, or written where it exists.

    Raises:
        InputError: it or the nearest directory above it is a file or cannot be written.
    """
    existing = place.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise InputError(f"must be a directory, but {existing} is a file.", key=key, value=value)
    if not os.access(existing, os.W_OK | os.X_OK) or os.statvfs(existing).f_flag & os.ST_RDONLY:
        problem = f"must be a directory that can be written, but {existing} cannot."
        raise InputError(problem, key=key, value=value, hint="Choose another one.")


def _check_new_run(run_dir: str, *, restart: bool) -> None:
    place = Path(run_dir)
    check_writable("run_dir", run_dir, place)
    if not place.is_dir():
        return
    if any((place / sign).exists() for sign in _SIGNS) and not restart:
        hint = f"Continue that run with resume={run_dir}, or choose another run_dir."
        raise InputError("there is a run already.", key="run_dir", value=run_dir, hint=hint)


def _sibling(place: Path) -> str:
    siblings = [str(path) for path in place.parent.iterdir()] if os.access(place.parent, os.R_OK | os.X_OK) else []
    return nearest(str(place), siblings) or "Give one that exists."
