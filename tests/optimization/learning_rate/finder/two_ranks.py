"""What `test_ranks.py` lets each of two ranks do: search with data of its own.

python -m tests.optimization.learning_rate.finder.two_ranks RANK FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import distributed, nn

from ava.errors import InputError
from ava.optimization import LRFinder, LRFinderConfig


def main(rank: int, folder: Path) -> None:
    """Search twice: with enough data, and with a loader that is shorter on rank 1."""
    distributed.init_process_group(
        "gloo", store=distributed.FileStore(str(folder / "store"), 2), rank=rank, world_size=2
    )
    torch.manual_seed(0)
    model = nn.parallel.DistributedDataParallel(nn.Linear(4, 1))
    torch.manual_seed(1 + rank)
    batches = [(torch.randn(32, 4), torch.ones(32, 1)) for _ in range(40)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    finder = LRFinder(model, optimizer, nn.functional.mse_loss, LRFinderConfig(max_lr=100.0, num_steps=40))
    lr, results = finder.find(batches)
    told = ""
    try:
        finder.find(batches[: 40 - rank])
    except InputError as error:
        told = str(error)
    found = {"lr": lr, "loss": results["loss"], "stopped": results["stopped"], "told": told}
    (folder / f"{rank}.json").write_text(json.dumps(found))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
