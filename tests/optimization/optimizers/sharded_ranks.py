"""What `test_sharded.py` lets every rank do: train whole parameters beside their shards, and tell the differences.

torchrun --nproc-per-node 2 -m tests.optimization.optimizers.sharded_ranks RESULTS.json
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from ava.errors import InputError
from ava.optimization import get_optimizer, list_optimizers

Case = dict[str, Any]

OF_ALL: list[Case] = [
    {},
    {"cautious": True},
    {"orthograd": True, "centralise": True, "standardise": True},
    {"state": "factored"},
    {"state": "int8"},
]
OF_ADAMW: list[Case] = [
    {"normalise": True, "max_norm": 1.5},
    {"unit_norm": True, "lookahead": 2},
    {"state": "bf16"},
    {"noise": 0.1},
    {"stochastic_rounding": True},
]
FAST: list[Case] = [{}, {"cautious": True}, {"state": "factored"}]
# One row, fewer elements than ranks, uneven halves, a matrix of a shard's own shape, enough for 8-bit state.
SHAPES = ((5, 3), (7,), (1,), (4, 4), (8, 4), (4, 3, 2), (1, 6), (90, 100))
STEPS = 4


def cases() -> list[Case]:
    """Name, options, sharded dimension and engine of each training."""
    names = list_optimizers()
    chosen = [(name, options, 0, "reference") for name in names for options in OF_ALL]
    chosen += [(name, {}, 1, "reference") for name in names]
    chosen += [("adamw", options, dim, "reference") for options in OF_ADAMW for dim in (0, 1)]
    chosen += [("adamw", options, dim, "auto") for options in FAST for dim in (0, 1)]
    return [dict(zip(("name", "options", "dim", "engine"), case, strict=True)) for case in chosen]


def parameters(dtype: torch.dtype) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]
    return [torch.nn.Parameter(value.to(dtype)) for value in values]


def gradient(p: Tensor, step: int) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    return p.detach() + 0.5 * torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype)


def shard(value: Tensor, mesh: DeviceMesh, dim: int) -> DTensor:
    return distribute_tensor(value.detach().clone(), mesh, [Shard(dim if value.ndim > 1 else 0)])


def train_both(case: Case, mesh: DeviceMesh) -> Case:
    """How the ends of both trainings differ, and whether the sharded one trained."""
    dtype = torch.bfloat16 if "stochastic_rounding" in case["options"] else torch.float64
    whole, start = parameters(dtype), parameters(dtype)
    shards = [torch.nn.Parameter(shard(p, mesh, case["dim"])) for p in whole]
    build = get_optimizer(case["name"])
    one, other = (build(params, **case["options"], engine=case["engine"]) for params in (whole, shards))
    for step in range(STEPS):
        for p, q in zip(whole, shards, strict=True):
            p.grad = gradient(p, step)
            q.grad = shard(p.grad, mesh, case["dim"])
        one.step()
        other.step()
    ends = [q.full_tensor() for q in shards]
    moments = [other.state[q].get(slot) for q in shards for slot in ("exp_avg", "exp_avg_sq", "momentum_buffer")]
    return {
        "difference": max((p - q).abs().max().item() for p, q in zip(whole, ends, strict=True)),
        "moved": all(bool((q != p).any()) for p, q in zip(start, ends, strict=True)),
        "finite": all(bool(q.isfinite().all()) for q in ends),
        "moments_are_sharded": all(isinstance(moment, DTensor) for moment in moments if moment is not None),
    }


def report(case: Case, mesh: DeviceMesh) -> Case:
    """The case with what it gave: differences, a refusal, or an error."""
    try:
        return case | train_both(case, mesh)
    except InputError as refusal:
        return case | {"refused": str(refusal)}
    except Exception:
        return case | {"error": traceback.format_exc()}


def draws(mesh: DeviceMesh) -> Case:
    """Noise alone, of two halves and of two replicas."""
    ends = {}
    for name, placement in (("halves", Shard(0)), ("replicas", Replicate())):
        zeros = distribute_tensor(torch.zeros(4, 3), mesh, [placement])
        p = torch.nn.Parameter(zeros)
        p.grad = zeros.clone()
        get_optimizer("sgd")([p], lr=1.0, momentum=0.0, noise=1.0, engine="reference").step()
        gathered = [torch.empty_like(p.to_local()) for _ in range(mesh.size())]
        distributed.all_gather(gathered, p.detach().to_local().contiguous())
        ends[name] = [part.tolist() for part in gathered]
    return ends


def mixed(mesh: DeviceMesh) -> Case:
    """Sums over all parameters where some are sharded and some replicated, and the same of whole ones."""
    found: Case = {}
    for name, total in (("agmohd", "update_norm"), ("prodigy", "d_numerator")):
        for order in (1, -1):
            optimizers = [_mixed(name, mesh if is_sharded else None, order) for is_sharded in (True, False)]
            mine = torch.stack([optimizer.param_groups[0][total].double() for optimizer in optimizers])
            told = [torch.empty_like(mine) for _ in range(mesh.size())]
            distributed.all_gather(told, mine)
            found[f"{name} {order}"] = [one.tolist() for one in told]
    return found


def _mixed(name: str, mesh: DeviceMesh | None, order: int) -> torch.optim.Optimizer:
    params = []
    for index, placement in enumerate([Shard(0), Replicate(), Shard(0)][::order]):
        values = [gradient(torch.zeros(*SHAPES[index], dtype=torch.float64), seed) for seed in (index, 9)]
        p, g = (value if mesh is None else distribute_tensor(value, mesh, [placement]) for value in values)
        params.append(torch.nn.Parameter(p))
        params[-1].grad = g
    optimizer = get_optimizer(name)(params)
    for _ in range(2):
        grads = [p.grad for p in params]
        optimizer.step()
        for p, g in zip(params, grads, strict=True):
            p.grad = g
    return optimizer


def main() -> None:
    distributed.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    result = {"cases": [report(case, mesh) for case in cases()], "draws": draws(mesh), "mixed": mixed(mesh)}
    if distributed.get_rank() == 0:
        Path(sys.argv[1]).write_text(json.dumps(result))
    distributed.barrier()
    # Gloo's threads now and then outlive the group, and abort an interpreter that ends in the ordinary way.
    os._exit(0)


if __name__ == "__main__":
    main()
