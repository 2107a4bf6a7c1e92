"""Ranks average their losses, so that all stop at the same step with the same answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys


def test_two_ranks_agree(tmp_path):
    command = [sys.executable, "-m", "tests.optimization.learning_rate.finder.two_ranks"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen([*command, str(rank), str(tmp_path)], env=environment, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    errors = [rank.communicate(timeout=60)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], errors
    one, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert one == other
    assert one["stopped"] == "diverged"
    assert "ends after 39 batches; 40 steps need 40" in one["told"]
    assert [one["sharded"][name][1] for name in ("torch", "ava")] == [True, True]
