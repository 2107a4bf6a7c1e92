"""Run a script on two ranks, which must end without an error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_END = """
import os
os._exit(0)  # now and then gloo aborts an interpreter that takes itself down
"""


def run_on_two_ranks(script: str, folder: Path) -> None:
    """Run the script, and fail with what it said if a rank fails; tests that call it are of the group "ranks"."""
    (folder / "ranks.py").write_text(script + _END)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [*command, str(folder / "ranks.py")],
        capture_output=True, text=True, check=False, env=environment, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
