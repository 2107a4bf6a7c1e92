"""What tests of the commands share: a working directory, and the commands as processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.config.conftest import forgetful, here

__all__ = ["forgetful", "here", "process"]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def process(tmp_path):
    """Run Python with `ava` on its path, in an empty directory."""

    def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT), **env},
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    return run
