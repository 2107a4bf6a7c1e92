"""From param groups to batches: who has a gradient, which sentence it follows, and the state that it needs."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

import torch
from torch import Tensor

from ava.optimization.optimizers.composition import extend
from ava.optimization.optimizers.engines.batch import Batch, Totals, compute_dtype, local, wide_dtype
from ava.optimization.optimizers.sentence import (
    ByShape,
    Sentence,
    Slot,
    Words,
    common_slots,
    compose,
    is_counted,
    own_slots,
    variants,
)  # fmt: skip
from ava.optimization.optimizers.storage.choice import codec_of, counts_steps
from ava.optimization.optimizers.storage.codec import Codec
from ava.registry import optimizer

Group = dict[str, Any]
Pairs = list[tuple[Tensor, Tensor]]

OF_THE_WHOLE = frozenset({"groups", "layer_lr_decay", "fused_backward", "sam_rho", "sam_adaptive"})
"""The shared options that say something about the whole optimizer, not about a group."""


class Grammar:
    """The sentences of a named optimizer: asked anew when an option changes, remembered while none does.

    Args:
        name: the registered name.
        builder: the function under `@optimizer`.
    """

    def __init__(self, name: str, builder: Callable[..., Words | ByShape]) -> None:
        self.name, self.builder = name, builder
        entry = optimizer[name]
        self.own = entry.own
        # The rate moves with every step and chooses no stage, except where there is none; silent options never do.
        self.speaking = [name for name in entry.own if name not in {"lr", *entry.tags.get("silent", ())}]
        self.shared = sorted(entry.shared - OF_THE_WHOLE)
        self._heard: dict[tuple[Any, ...], tuple[Sentence, Sentence]] = {}

    def sentences(self, group: Group) -> tuple[Sentence, Sentence]:
        """What matrices follow, and what other parameters do.

        Raises:
            InputError: the options do not go together.
        """
        own = tuple([group[name] for name in self.speaking])
        key = group["lr"] is None, own, tuple([group[name] for name in self.shared])
        if key not in self._heard:
            if len(self._heard) > 64:
                self._heard.clear()
            self._heard[key] = self._compose(group)
        return self._heard[key]

    def _compose(self, group: Group) -> tuple[Sentence, Sentence]:
        words = self.builder(**{name: group[name] for name in self.own})
        routes = extend(words, **{name: group[name] for name in self.shared})
        return compose(routes.matrices), compose(routes.others)


def batches(
    grammar: Grammar,
    group: Group,
    state: MutableMapping[Tensor, dict[str, Tensor]],
    numbers: dict[Tensor, int],
    scalars: Callable[[torch.device], tuple[Tensor | None, Tensor | None]],
    pairs: Pairs | None = None,
    variant: str | None = None,
) -> Iterator[Batch]:
    """The group's parameters that have a gradient, split by sentence, device and type.

    Args:
        grammar: the optimizer's sentences.
        group: the live param group.
        state: the optimizer's; begun where a parameter has none yet.
        numbers: each parameter's place among all.
        scalars: device -> gradient scale and whether to skip, there.
        pairs: which parameters of the group to update, each with its gradient; None takes all that have one.
        variant: speak no update, but only the stages' variants of this name, with the gradient they are handed; a
            counter stays as it is.
    """
    if pairs is None:
        pairs = [(p, g) for p in group["params"] if (g := p.grad) is not None]
    if not pairs:
        return
    matrices, others = grammar.sentences(group)
    for sentence, chosen in _split(pairs, matrices, others):
        spoken = sentence if variant is None else variants(sentence, variant)
        if not spoken:
            continue
        held = [state[p] for p, _ in chosen]
        for (parameter, _), own in zip(chosen, held, strict=True):
            begin(sentence, group, parameter, own)
        if variant is not None:
            held = [{k: v.clone() if k == "step" else v for k, v in own.items()} for own in held]
        yield Batch(
            spoken, group, [p for p, _ in chosen], [g for _, g in chosen], held, [numbers[p] for p, _ in chosen],
            common_values(spoken, group, chosen[0][0].device), *scalars(chosen[0][0].device),
        )  # fmt: skip


def _split(pairs: Pairs, matrices: Sentence, others: Sentence) -> Iterator[tuple[Sentence, Pairs]]:
    first = pairs[0][0]
    routed = matrices is not others and matrices != others
    kind = type(first)  # sharded parameters apart from whole ones
    is_alike = all(type(p) is kind and p.device == first.device and p.dtype == first.dtype for p, _ in pairs)
    if is_alike and not routed and (spread := _spread(first)) is not None:
        is_alike = all(_spread(p) == spread for p, _ in pairs)
    if is_alike and not routed:
        yield matrices, pairs
        return
    kinds: dict[Any, Pairs] = {}
    for pair in pairs:
        p = pair[0]
        kinds.setdefault((type(p), p.device, p.dtype, _spread(p), routed and p.ndim >= 2), []).append(pair)
    for (*_, is_matrix), chosen in kinds.items():
        yield (matrices if is_matrix or not routed else others), chosen


def _spread(parameter: Any) -> tuple[Any, ...] | None:
    """How a sharded parameter lies over ranks: sums over differently spread ones become whole differently."""
    return (parameter.device_mesh, parameter.placements) if hasattr(parameter, "_local_tensor") else None


def begin(sentence: Sentence, group: Group, parameter: Tensor, state: dict[str, Tensor]) -> None:
    """Give a parameter the state that the sentence needs and that is not there yet."""
    slots = own_slots(sentence)
    if counts_steps(sentence, group) and "step" not in state:
        # Moments from a file without a counter (torch's SGD has none) are past their first step.
        begun = is_counted(sentence) and any(slot.name in state for slot in slots)
        state["step"] = torch.full((), float(begun), dtype=torch.float32, device=parameter.device)
    for slot in slots:
        codec = codec_of(slot, group["state"], local(parameter))
        if not all(key in state for key in codec.keys(slot)):
            state.update(stored(codec, slot, _start(slot, group, parameter), _zeros))


def stored(codec: Codec, slot: Slot, whole: Tensor, bits: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """The parts that store a slot's value for the first time.

    Args:
        codec: how.
        slot: what.
        whole: its value, sharded if the parameter is.
        bits: value -> the bits it is rounded with.
    """
    value = local(whole)
    is_shard = value is not whole
    parts = codec.encode(value, slot, functools.partial(bits, value))
    # What is stored as one tensor of the parameter's shape is sharded as the parameter is.
    if is_shard and codec.keys(slot) == (slot.name,):
        return {key: _sharded_like(whole, part) for key, part in parts.items()}
    return {key: part.contiguous() if is_shard else part for key, part in parts.items()}


def _zeros(value: Tensor) -> Tensor:
    return torch.zeros_like(value, dtype=torch.int64)


def _sharded_like(whole: Any, part: Tensor) -> Tensor:
    from torch.distributed.tensor import DTensor

    make: Any = DTensor.from_local
    sharded: Tensor = make(part, whole.device_mesh, whole.placements, shape=whole.shape, stride=whole.stride())
    return sharded


def _start(slot: Slot, group: Group, parameter: Tensor) -> Tensor:
    """A slot's value before the first step; the engine's own type where it is not shaped like the parameter."""
    if slot.start == "p":
        return parameter.detach().clone(memory_format=torch.preserve_format)
    number = group[slot.start] if isinstance(slot.start, str) else slot.start
    if slot.shape == "full":
        return torch.full_like(parameter, number, memory_format=torch.preserve_format)
    shard = local(parameter)
    rows, rest = (shard.shape[0], shard.shape[1:]) if shard.ndim > 1 else (1, shard.shape)
    full_rows = parameter.shape[0] if parameter.ndim > 1 else 1
    full_cols = parameter.numel() // max(1, full_rows)
    limit = math.inf if slot.limit is None else group[slot.limit]
    left, right = (n if n <= limit else 0 for n in (full_rows, full_cols))
    shapes: dict[str, tuple[int, ...]] = {
        "row": (rows, *[1] * len(rest)) if shard.ndim > 1 else (), "column": (1, *rest) if shard.ndim > 1 else rest,
        "left": (left, left), "right": (right, right), "scalar": (),
    }  # fmt: skip
    return torch.full(shapes[slot.shape], number, dtype=compute_dtype(shard), device=shard.device)


def common_values(sentence: Sentence, group: Group, device: torch.device) -> Totals:
    """What all parameters share, from the param group."""
    for slot in common_slots(sentence):
        if not isinstance(group.get(slot.name), Tensor):
            number = group[slot.start] if isinstance(slot.start, str) else slot.start
            group[slot.name] = torch.full((), number, dtype=wide_dtype(device), device=device)
    return {slot.name: group[slot.name] for slot in common_slots(sentence)}
