"""From param groups to batches: who has a gradient, which sentence it follows, and the state that it needs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

import torch
from torch import Tensor

from ava.errors import InputError
from ava.optimization.optimizers.composition import extend
from ava.optimization.optimizers.engines.batch import Batch, Totals, compute_dtype, counter_dtype, local
from ava.optimization.optimizers.sentence import (
    ByShape,
    Sentence,
    Slot,
    Words,
    common_slots,
    compose,
    is_counted,
    own_slots,
)  # fmt: skip
from ava.optimization.optimizers.storage.choice import codec_of, counts_steps
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
        self.own, self.shared = entry.own, sorted(entry.shared - OF_THE_WHOLE)
        self._heard: dict[tuple[Any, ...], tuple[Sentence, Sentence]] = {}

    def sentences(self, group: Group) -> tuple[Sentence, Sentence]:
        """What matrices follow, and what other parameters do.

        Raises:
            InputError: the options do not go together.
        """
        # The rate moves with every step and chooses no stage.
        key = tuple([group[name] for name in self.own if name != "lr"]), tuple([group[name] for name in self.shared])
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
    only: Tensor | None = None,
) -> Iterator[Batch]:
    """The group's parameters that have a gradient, split by sentence, device and type.

    Args:
        grammar: the optimizer's sentences.
        group: the live param group.
        state: the optimizer's; begun where a parameter has none yet.
        numbers: each parameter's place among all.
        scalars: device -> gradient scale and whether to skip, there.
        only: the one parameter to update; None takes all.

    Raises:
        InputError: a gradient is sparse.
    """
    parameters = group["params"] if only is None else [only]
    pairs = [(p, g) for p in parameters if (g := p.grad) is not None]
    if not pairs:
        return
    matrices, others = grammar.sentences(group)
    for sentence, chosen in _split(pairs, matrices, others):
        if any(gradient.layout is not torch.strided for _, gradient in chosen):
            raise InputError(f"{grammar.name} needs dense gradients; build the embedding with sparse=False.")
        held = [state[p] for p, _ in chosen]
        for (parameter, _), own in zip(chosen, held, strict=True):
            begin(sentence, group, parameter, own)
        yield Batch(
            sentence, group, [p for p, _ in chosen], [g for _, g in chosen], held, [numbers[p] for p, _ in chosen],
            _common(sentence, group, chosen[0][0].device), *scalars(chosen[0][0].device),
        )  # fmt: skip


def _split(pairs: Pairs, matrices: Sentence, others: Sentence) -> Iterator[tuple[Sentence, Pairs]]:
    first = pairs[0][0]
    routed = matrices is not others and matrices != others
    if all(p.device == first.device and p.dtype == first.dtype for p, _ in pairs) and not routed:
        yield matrices, pairs
        return
    kinds: dict[Any, Pairs] = {}
    for pair in pairs:
        p = pair[0]
        kinds.setdefault((p.device, p.dtype, routed and p.ndim >= 2), []).append(pair)
    for (_, _, is_matrix), chosen in kinds.items():
        yield (matrices if is_matrix or not routed else others), chosen


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
            value = _start(slot, group, parameter)
            whole = hasattr(value, "to_local") and not all(k == slot.name for k in codec.keys(slot))
            value = local(value) if whole else value
            zeros = functools.partial(torch.zeros_like, local(value), dtype=torch.int64)
            parts = codec.encode(value, slot, zeros)
            state.update({key: part.contiguous() if whole else part for key, part in parts.items()})


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
    shapes: dict[str, tuple[int, ...]] = {
        "row": (rows, *[1] * len(rest)) if shard.ndim > 1 else (), "column": (1, *rest) if shard.ndim > 1 else rest,
        "left": (full_rows, full_rows), "right": (full_cols, full_cols), "scalar": (),
    }  # fmt: skip
    return torch.full(shapes[slot.shape], number, dtype=compute_dtype(shard), device=shard.device)


def _common(sentence: Sentence, group: Group, device: torch.device) -> Totals:
    """What all parameters share, from the param group."""
    for slot in common_slots(sentence):
        if not isinstance(group.get(slot.name), Tensor):
            number = group[slot.start] if isinstance(slot.start, str) else slot.start
            group[slot.name] = torch.full((), number, dtype=counter_dtype(device), device=device)
    return {slot.name: group[slot.name] for slot in common_slots(sentence)}
