"""Hydra's configuration loader over Ava's own files, the user's directories and the parts of plugins.

Hydra composes and nothing else: no application, no logging, no launcher, no working directory, and nothing is
ever instantiated. The loader is made directly rather than through Hydra's global state, so that `ava.train`
also works inside a program that uses Hydra itself.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.core.utils import JobRuntime, setup_globals
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ava.config.limits import read_capped
from ava.config.paths import conf_directory
from ava.errors import InputError


class UserFiles(FileConfigSource):
    """A directory of the user's files: each is measured before it is read, and none may speak to Hydra."""

    @staticmethod
    def scheme() -> str:
        """Name the scheme by which a search path refers to this source."""
        return "user"

    def load_config(self, config_path: str) -> ConfigResult:
        """Read one file, if it is of a size that a configuration can have."""
        path = Path(self.path, self._normalize_file_name(config_path))
        text = read_capped(path)
        header = ConfigSource._get_header_dict(text[:512])
        try:
            config = OmegaConf.load(io.StringIO(text))
        except (OmegaConfBaseException, yaml.YAMLError) as error:
            raise InputError(f"{path} cannot be used: {' '.join(str(error).split())}.") from None
        if not OmegaConf.is_dict(config):
            raise InputError(f"{path} must hold keys and values.")
        defaults = str(OmegaConf.to_container(config, resolve=False).get("defaults", ""))  # type: ignore[union-attr]
        if "hydra" in config or (header["package"] or "").startswith("hydra") or "hydra" in defaults:
            raise InputError(f"{path} sets hydra, whose own settings are not used here.", hint="Leave them out.")
        return ConfigResult(config=config, path=f"user://{self.path}", provider=self.provider, header=header)


class _Loader(ConfigLoaderImpl):
    """A file that begins with `_` is no option: it holds what all options of its group share."""

    def get_group_options(self, *arguments: Any, **options: Any) -> list[str]:
        found: list[str] = super().get_group_options(*arguments, **options)
        return [name for name in found if not name.startswith("_")]


def make_loader(config_dirs: Sequence[Path] = ()) -> ConfigLoaderImpl:
    """Make a loader over the built-in files, the user's directories and what plugins stored.

    Args:
        config_dirs: the user's directories, as `ava.config.paths.check_config_dirs` returns them.
    """
    version.setbase("1.3")
    Plugins.instance().register(UserFiles)
    setup_globals()
    JobRuntime.instance().set("name", "ava")
    path = ConfigSearchPathImpl()
    path.append("hydra", "pkg://hydra.conf")
    path.append("main", f"file://{conf_directory()}")
    for folder in config_dirs:
        path.append("user", f"user://{folder}")
    path.append("schema", "structured://")
    return _Loader(config_search_path=path)


def options(loader: ConfigLoaderImpl, group: str) -> list[str]:
    """List what can be chosen in a group."""
    found: list[str] = loader.get_group_options(group, ObjectType.CONFIG, config_name=None, overrides=[])
    return found
