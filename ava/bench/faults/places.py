"""Which parameters a fault befalls."""

from __future__ import annotations

import fnmatch

import torch
from torch import nn

from ava.bench.faults.fault import Settled
from ava.bench.faults.parts import Parts
from ava.errors import InputError, nearest


def placed(parts: Parts, fault: Settled) -> dict[str, nn.Parameter]:
    """The parameters whose names fit the fault's place; where it has none, those of one layer that the seed chooses.

    A layer is a module that holds a matrix (or a tensor of more dimensions) itself.

    Raises:
        InputError: no name fits.
    """
    named = parts.named()
    if fault.place is None:
        return _one_layer(named, fault.seed)
    found = {name: p for name, p in named.items() if fnmatch.fnmatchcase(name, fault.place)}
    if not found:
        problem = f"no parameter fits; there are {', '.join(list(named)[:6])} and so on, {len(named)} in all."
        raise InputError(problem, key="place", value=fault.place, hint=nearest(fault.place, named))
    return found


def _one_layer(named: dict[str, nn.Parameter], seed: int) -> dict[str, nn.Parameter]:
    layers = list(dict.fromkeys(_owner(name) for name, p in named.items() if p.ndim >= 2))
    if not layers:
        layers = list(dict.fromkeys(map(_owner, named)))
    chosen = layers[int(torch.randint(len(layers), (), generator=generator(seed)))]
    return {name: p for name, p in named.items() if _owner(name) == chosen}


def _owner(name: str) -> str:
    """The module that holds a parameter."""
    return name.rpartition(".")[0]


def one_element(parameters: dict[str, nn.Parameter], seed: int) -> tuple[str, int]:
    """One of all their elements, each as likely: the parameter's name, and the place in it as if it were flat."""
    place = int(torch.randint(sum(p.numel() for p in parameters.values()), (), generator=generator(seed)))
    for name, parameter in parameters.items():
        if place < parameter.numel():
            return name, place
        place -= parameter.numel()
    raise AssertionError


def generator(*keys: int) -> torch.Generator:
    """Random numbers on the CPU that these keys, and nothing else, decide."""
    mixed = 0
    for key in keys:
        mixed = (mixed * 1_000_003 + key + 0x9E3779B9) % 2**63
    return torch.Generator().manual_seed(mixed)
