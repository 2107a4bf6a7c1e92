"""What tests of the configuration share: an empty working directory, and registries that forget plugins."""

from __future__ import annotations

import copy
import sys

import pytest
from hydra.core.config_store import ConfigStore

from ava import registry
from ava.config.loader import make_loader


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def forgetful(monkeypatch):
    """Whatever plugins register in the test is forgotten after it."""
    make_loader()  # Hydra stores its own configurations as its modules are first imported
    for parts in registry.REGISTRIES.values():
        monkeypatch.setattr(parts, "_plugins", {})
    monkeypatch.setattr(ConfigStore.instance(), "repo", copy.deepcopy(ConfigStore.instance().repo))
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("my_"):
            del sys.modules[name]
