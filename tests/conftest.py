"""What all tests share.

One torch thread for each test process: two workers with two threads each would wait for one another. One kernel cache
for all workers, apart from the user's: a kernel is compiled once, not once a worker.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("AVA_CACHE", str(Path(tempfile.gettempdir()) / f"ava-tests-{os.getuid()}"))


def pytest_configure(config: pytest.Config) -> None:
    """Where there is no compiler, the one notice of it is no failure."""
    config.addinivalue_line("filterwarnings", r"ignore:no C\+\+ compiler was found:RuntimeWarning")
