"""Tab completion: Hydra's shell scripts and queries, over our configuration loader."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from hydra.core.config_loader import ConfigLoader
from hydra.core.plugins import Plugins
from hydra.plugins.completion_plugin import CompletionPlugin
from omegaconf import OmegaConf

from ava.config.loader import make_loader
from ava.config.paths import check_config_dirs
from ava.errors import InputError


class _WithoutHydra:
    """What completion asks a loader for, less Hydra's own settings, which `ava-train` refuses."""

    def __init__(self, loader: ConfigLoader) -> None:
        self._loader = loader

    def get_group_options(self, group_name: str, *rest: Any, **options: Any) -> list[str]:
        found: list[str] = self._loader.get_group_options(group_name, *rest, **options)
        return [name for name in found if group_name or name not in ("hydra", "config")]

    def load_configuration(self, *rest: Any, **options: Any) -> Any:
        config = self._loader.load_configuration(*rest, **options)
        OmegaConf.set_struct(config, False)
        del config["hydra"]
        return config


def complete(request: str, config_dirs: Sequence[Path]) -> int:
    """Answer `-sc install=bash`, `-sc uninstall=zsh`, `-sc query=fish`.

    Args:
        request: what stands after `-sc`.
        config_dirs: the user's directories of configuration files.

    Returns:
        The exit code.

    Raises:
        InputError: there is no such request or shell.
    """
    action, _, shell = request.partition("=")
    loader = _WithoutHydra(make_loader([*config_dirs, *_dirs_on_line(os.environ.get("COMP_LINE", ""))]))
    shells: dict[str, Any] = {plugin.provides(): plugin for plugin in _plugins()}
    if action not in ("install", "uninstall", "query") or shell not in shells:
        known = ", ".join(f"install={name}" for name in sorted(shells))
        problem = f"must be one of: {known}; or the same with uninstall or query."
        raise InputError(problem, key="--shell-completion", value=request)
    plugin = shells[shell](loader)
    if action == "query":
        if "COMP_LINE" not in os.environ:
            problem = "asks how the line in COMP_LINE goes on, which is not set."
            raise InputError(problem, key="--shell-completion", value=request, hint="The shell sets it on Tab.")
        # An option half written ends Hydra's parser with its usage, in the middle of the user's line.
        with contextlib.suppress(SystemExit), contextlib.redirect_stderr(io.StringIO()):
            plugin.query("config")
    else:
        getattr(plugin, action)()
    return 0


def _plugins() -> list[type[CompletionPlugin]]:
    return cast("list[type[CompletionPlugin]]", Plugins.instance().discover(CompletionPlugin))


def _dirs_on_line(line: str) -> list[Path]:
    """Read the directories that the line to be completed gives with --config-dir, as far as they exist."""
    try:
        words = shlex.split(line)
        after = [value for flag, value in itertools.pairwise(words) if flag in ("--config-dir", "-cd")]
        return check_config_dirs(after)
    except (ValueError, InputError):
        return []  # a line that is still being written
