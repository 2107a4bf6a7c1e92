"""Where configuration files are: the built-in ones, the user's, and those of earlier runs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from ava.errors import InputError

OUTPUTS = Path("outputs")


def conf_directory() -> Path:
    """Find the built-in configuration files: `ava/conf` in an installed wheel, `conf` next to `ava` in a checkout.

    Raises:
        InputError: neither is there; the installation is broken.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise InputError(f"the configuration files of Ava are missing from {package}.", hint="Install Ava again.")


def group_options(folders: Sequence[Path]) -> dict[str, list[str]]:
    """List every configuration group and its options, as their files say; nothing is read or imported.

    A file that begins with `_` is no option: it holds what all options of its group share.
    """
    found: dict[str, set[str]] = {}
    for folder in folders:
        for file in folder.glob("*/[!_]*.yaml"):
            found.setdefault(file.parent.name, set()).add(file.stem)
    return {group: sorted(options) for group, options in sorted(found.items())}


def check_config_dirs(folders: Sequence[str]) -> list[Path]:
    """Make the folders given with `--config-dir` absolute.

    Raises:
        InputError: one is no directory, or holds a file that a built-in one would hide.
    """
    paths = [Path(folder).expanduser().resolve() for folder in folders]
    builtin = conf_directory()
    for path in paths:
        if not path.is_dir():
            raise InputError("must be a directory of configuration files.", key="--config-dir", value=path)
        hidden = [file for file in path.glob("*/*.yaml") if (builtin / file.relative_to(path)).exists()]
        if hidden:
            raise InputError(
                f"{hidden[0].relative_to(path)} has the name of a built-in configuration, which would hide it.",
                key="--config-dir", value=path, hint="Give the file another name.",
            )  # fmt: skip
    return paths


def default_run_dir(task: str, optimizer: str, now: datetime) -> Path:
    """Name the directory of a run for which none was given: outputs/<date>/<time>-<task>-<optimizer>."""
    return OUTPUTS / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}-{task}-{optimizer}"


def default_sweep_dir(now: datetime) -> Path:
    """Name the directory of a sweep for which none was given: outputs/<date>/<time>-sweep."""
    return OUTPUTS / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}-sweep"
