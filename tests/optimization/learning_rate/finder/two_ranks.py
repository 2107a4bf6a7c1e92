"""What `test_ranks.py` lets each of two ranks do: search with data of its own.

python -m tests.optimization.learning_rate.finder.two_ranks RANK FOLDER
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from ava.errors import InputError
from ava.optimization import LRFinder, LRFinderConfig, get_optimizer


def main(rank: int, folder: Path) -> None:
    """Search with enough data, with a loader that is shorter on rank 1, and with sharded parameters."""
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
    found = {"lr": lr, "loss": results["loss"], "stopped": results["stopped"], "told": told, "sharded": sharded()}
    (folder / f"{rank}.json").write_text(json.dumps(found))
    distributed.destroy_process_group()


def sharded() -> dict[str, Any]:
    """Search with sharded parameters (FSDP2) and a state of 3 steps; whether every shard is what it was."""
    mesh = init_device_mesh("cpu", (2,))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 1))
    fully_shard(model, mesh=mesh)
    torch.manual_seed(1 + distributed.get_rank())
    batches = [(torch.randn(32, 6), torch.ones(32, 1)) for _ in range(30)]
    found: dict[str, Any] = {}
    for name, build in (("torch", torch.optim.AdamW), ("ava", get_optimizer("adamw"))):
        optimizer = build(model.parameters(), lr=1e-3)
        for inputs, targets in batches[:3]:
            nn.functional.mse_loss(model(inputs), targets).backward()
            optimizer.step()
            optimizer.zero_grad()
        before = local(model, optimizer)
        lr, _ = LRFinder(model, optimizer, nn.functional.mse_loss, LRFinderConfig(num_steps=30)).find(batches)
        found[name] = [lr, all(map(torch.equal, before, local(model, optimizer)))]
    return found


def local(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Copies of this rank's parts of all parameters and state."""
    values = [*model.parameters(), *(v for slots in optimizer.state.values() for v in slots.values())]
    tensors = [v.to_local() if isinstance(v, DTensor) else v for v in values if isinstance(v, Tensor)]
    return [tensor.detach().clone() for tensor in tensors]


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
    os._exit(0)  # gloo's threads now and then abort an interpreter that ends in the ordinary way
