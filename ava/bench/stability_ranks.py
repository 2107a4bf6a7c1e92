"""One training of `ava bench stability` on several processes; torchrun starts this module.

python -m torch.distributed.run --standalone --nproc-per-node=3 -m ava.bench.stability_ranks SCENARIO OUTCOME
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path

import torch

from ava.bench.stability_trainings import Scenario, train


def main() -> None:
    """Train the scenario of the first file; rank 0 writes its outcome to the second."""
    torch.set_num_threads(1)
    said, found = map(Path, sys.argv[1:])
    outcome = train(Scenario.from_dict(json.loads(said.read_text(encoding="utf-8"))))
    if os.environ["RANK"] == "0":
        found.write_text(json.dumps(dataclasses.asdict(outcome)), encoding="utf-8")
    sys.stdout.flush()
    os._exit(0)  # now and then gloo aborts an interpreter that takes itself down


if __name__ == "__main__":
    main()
