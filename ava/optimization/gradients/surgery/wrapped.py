"""What a model handed to a surgeon is: its parameters, and the ranks that train it together."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ava.errors import InputError
from ava.optimization.gradients.surgery.ranks import Ranks, Sums

_TRAINER = "Train with `ava-train surgery=...`, or give GradientSurgeon the gradients of real backward passes."


def ranks_of(model: nn.Module | Iterable[Tensor]) -> tuple[list[Tensor], Ranks]:
    """The parameters that are trained, and who averages gradients with whom.

    Args:
        model: a module, which may be in DistributedDataParallel, or parameters.

    Raises:
        InputError: it is no such thing, or its parameters are sharded, or DistributedDataParallel hides from the graph
            which parameters an objective reaches.
    """
    given = model.parameters() if isinstance(model, nn.Module) else model
    parameters = list(given) if isinstance(given, Iterable) and not isinstance(given, Tensor) else [given]
    for parameter in parameters:
        if not isinstance(parameter, Tensor):
            raise InputError(f"needs a module or its parameters, and was given {type(parameter).__name__}.")
    if any(hasattr(parameter, "to_local") for parameter in parameters) or _is_sharded(model):
        problem = "the model's parameters are sharded (FSDP), and passes within a pass would not gather them."
        raise InputError(problem, hint=_TRAINER)
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not isinstance(model, DistributedDataParallel):
        return trained, Ranks()
    if model.find_unused_parameters or model.static_graph:
        problem = "DistributedDataParallel with find_unused_parameters or static_graph joins the outputs of all heads"
        hint = f"Wrap with neither; or: {_TRAINER}"
        raise InputError(f"{problem}, so that heads cannot be told from shared parameters.", hint=hint)
    return trained, Ranks(_sums(model), model.process_group.size())


def _is_sharded(model: object) -> bool:
    """Whether any of its modules gathers its parameters for the forward pass, as FSDP does in both versions."""
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel

    kinds = (FSDPModule, FullyShardedDataParallel)
    return isinstance(model, nn.Module) and any(isinstance(module, kinds) for module in model.modules())


def _sums(model: DistributedDataParallel) -> Sums:
    """Adds a tensor up over the model's ranks, on their own device: NCCL knows no other."""
    group, device = model.process_group, next(model.parameters()).device

    def add_up(tensor: Tensor) -> Tensor:
        moved = tensor.to(device)
        torch.distributed.all_reduce(moved, group=group)
        return moved.to(tensor.device)

    return add_up
