"""Optimizer state in host memory: parameters and gradients stay on the accelerator, the update is computed by the host.

    optimizer = get_optimizer("adamw")(model.parameters(), lr=1e-3)
    offload_optimizer(optimizer)

For each update gradients and parameters are copied to twins in host memory, the engine of the host's device updates
the twins and the state, which is begun there and never leaves, and the twins are copied back. The optimizer stays
what it was to everybody else: its groups hold the accelerator's parameters, and its state dicts are those of any other.

What the accelerator saves is the state: 8 bytes a parameter with AdamW. What it costs are three copies of the
parameters through the bus, and an update at the speed of the host's memory.

Reference: Ren et al. 2021, ZeRO-Offload, https://arxiv.org/abs/2101.06840
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ava.errors import InputError
from ava.optimization.optimizers.batches import Pairs
from ava.optimization.optimizers.composed import ComposedOptimizer, Group
from ava.optimization.optimizers.watched import States


def offload_optimizer(optimizer: ComposedOptimizer, host: torch.device | str = "cpu") -> None:
    """Keep an optimizer's state on the host, and update there.

    Args:
        optimizer: changed in place; before its first step and before state is loaded into it.
        host: where state lives.

    Raises:
        InputError: it updates in the backward pass, has state already, or its parameters are sharded.
    """
    key = "trainer.offload_optimizer"
    if not isinstance(optimizer, ComposedOptimizer):
        problem = f"moves the state of Ava's optimizers, not of {type(optimizer).__name__}."
        raise InputError(problem, key=key, value=True, hint="Take one from ava.optimization.get_optimizer.")
    if "load_state_dict" in vars(optimizer):
        raise InputError("its state is in host memory already.", key=key, value=True, hint="Offload it once.")
    if optimizer.fused is not None:
        problem = "updates once a step, but optimizer.fused_backward updates during the backward pass."
        raise InputError(problem, key=key, value=True, hint="Leave one of them out.")
    if optimizer.state:
        raise InputError(
            "the optimizer has state already.", key=key, value=True, hint="Offload it before its first step."
        )
    kinds = {type(p) for group in optimizer.param_groups for p in group["params"]} - {Tensor, nn.Parameter}
    if kinds:
        problem = f"moves whole parameters, and these are of type {kinds.pop().__name__}."
        raise InputError(problem, key=key, value=True, hint="Leave it out.")
    hosted = _Hosted(optimizer, torch.device(host))
    # Everything that touches state goes through these two.
    for name in ("update", "load_state_dict"):
        setattr(optimizer, name, getattr(hosted, name))


class _Hosted:
    """What stands in front of an optimizer's `update` and `load_state_dict`."""

    def __init__(self, optimizer: ComposedOptimizer, host: torch.device) -> None:
        self.optimizer, self.host = optimizer, host
        self.plain_update, self.plain_load = optimizer.update, optimizer.load_state_dict
        # Kept from step to step: page-locked memory is dear to get.
        self.twins: dict[Tensor, Tensor] = {}
        self.gradients: dict[Tensor, Tensor] = {}

    @torch.no_grad()
    def update(
        self, work: Sequence[tuple[Group, Pairs | None]], variant: str | None = None,
        state: MutableMapping[Tensor, dict[str, Any]] | None = None,
    ) -> None:  # fmt: skip
        """As of the optimizer, on the host."""
        given = [(group, _with_gradients(group) if pairs is None else pairs) for group, pairs in work]
        held = self.optimizer.state if state is None else state
        there = [(group, [self._pair(p, g) for p, g in pairs]) for group, pairs in given]
        owners = {twin: p for (_, mine), (_, pairs) in zip(there, given, strict=True)
                  for (twin, _), (p, _) in zip(mine, pairs, strict=True)}  # fmt: skip
        with self._numbered(owners), self._scalars_at_home():
            self.plain_update(there, variant, {twin: held[p] for twin, p in owners.items()})
        for twin, p in owners.items():
            p.detach().copy_(twin, non_blocking=True)

    def _pair(self, parameter: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """The twins of a parameter and its gradient, with their values on the way."""
        value, slope = parameter.detach(), gradient.detach()
        twin = _room(self.twins, parameter, value, self.host)
        theirs = _room(self.gradients, parameter, slope, self.host)
        twin.copy_(value, non_blocking=True)
        theirs.copy_(slope, non_blocking=True)
        return twin, theirs

    @contextmanager
    def _numbered(self, owners: dict[Tensor, Tensor]) -> Iterator[None]:
        """Within it twins have their owners' numbers, which random numbers are made from."""
        numbers = self.optimizer._numbers
        numbers.update({twin: numbers[p] for twin, p in owners.items()})
        try:
            yield
        finally:
            for twin in owners:
                del numbers[twin]

    @contextmanager
    def _scalars_at_home(self) -> Iterator[None]:
        """Within it what the optimizer asks for is on the host; reading it waits for every copy begun before."""
        devices = {p.device for p in self.twins if p.device.type == "cuda"}
        for device in devices:
            torch.cuda.current_stream(device).synchronize()
        former = {name: getattr(self.optimizer, name, None) for name in ("grad_scale", "found_inf")}
        for name, value in former.items():
            setattr(self.optimizer, name, None if value is None else value.to(self.host))
        try:
            yield
        finally:
            for name, value in former.items():
                setattr(self.optimizer, name, value)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As of the optimizer; torch moves state to where its parameters are, which for once are the twins."""
        optimizer = self.optimizer
        own = [group["params"] for group in optimizer.param_groups]
        twins = [[_room(self.twins, p, p.detach(), self.host) for p in group] for group in own]
        self._exchange(own, twins)
        try:
            self.plain_load(state_dict)
        finally:
            self._exchange(twins, own)

    def _exchange(self, before: list[list[Tensor]], after: list[list[Tensor]]) -> None:
        """Put other tensors in the places of those that the groups and the state speak of."""
        optimizer = self.optimizer
        names = {
            old: new for olds, news in zip(before, after, strict=True) for old, new in zip(olds, news, strict=True)
        }
        for group, params in zip(optimizer.param_groups, after, strict=True):
            group["params"] = params
        optimizer.state = States({names[p]: slots for p, slots in optimizer.state.items()})
        if optimizer.training_weights is not None:
            optimizer.training_weights = {names[p]: value for p, value in optimizer.training_weights.items()}


def _with_gradients(group: Group) -> Pairs:
    return [(p, p.grad) for p in group["params"] if p.grad is not None]


def _room(rooms: dict[Tensor, Tensor], owner: Tensor, like: Tensor, host: torch.device) -> Tensor:
    """Memory on the host that is laid out as a tensor is; page-locked where that is on a GPU."""
    room = rooms.get(owner)
    if room is None or room.stride() != like.stride() or room.dtype != like.dtype or room.shape != like.shape:
        pinned = like.device.type == "cuda" and host.type == "cpu"
        rooms[owner] = room = torch.empty_like(like, device=host, pin_memory=pinned)
    return room
