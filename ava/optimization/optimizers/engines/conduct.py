"""Runs batches on the fastest engines that know them, and passes sums between those that need them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from ava.errors import InputError
from ava.optimization.optimizers.engines import fused, reference
from ava.optimization.optimizers.engines.batch import Batch, Conversation, Engine, Totals
from ava.optimization.optimizers.engines.native import engine as native
from ava.optimization.optimizers.engines.triton import engine as triton


def engine_for(batch: Batch, choice: Literal["auto", "reference"]) -> Engine:
    """The fastest engine that runs the batch.

    Raises:
        InputError: a gradient is sparse.
    """
    if choice == "auto" and native.fits(batch):
        return native
    if any(gradient.layout is not torch.strided for gradient in batch.gradients):
        raise InputError("optimizers here need dense gradients.", hint="Build the embedding with sparse=False.")
    if choice == "auto" and triton.fits(batch):
        return triton
    return fused if choice == "auto" and fused.fits(batch) else reference


def conduct(batches: Sequence[Batch], choice: Literal["auto", "reference"]) -> Totals:
    """Run all batches, and let their gradients go: remembered batches would keep them beside the next step's.

    Returns:
        The new values of what all parameters share, by name; empty where nothing is shared.
    """
    common = _run(batches, choice)
    for batch in batches:
        batch.gradients = []
    return common


def _run(batches: Sequence[Batch], choice: Literal["auto", "reference"]) -> Totals:
    runs = [run for batch in batches if (run := engine_for(batch, choice).run(batch)) is not None]
    if not runs:
        return {}
    common: Totals = {}
    asked = _advance(runs, None, common)
    while asked:
        names = asked[0][1].keys()
        totals = {name: _sum([sums[name] for _, sums in asked]) for name in names}
        asked = _advance([run for run, _ in asked], totals, common)
    return common


def _advance(
    runs: list[Conversation], totals: Totals | None, common: Totals
) -> list[tuple[Conversation, Totals]]:  # fmt: skip
    """Let each run go on to its next question; collect what those that end return."""
    asked = []
    for run in runs:
        try:
            asked.append((run, next(run) if totals is None else run.send(totals)))
        except StopIteration as end:
            common.update(end.value)
    return asked


def _sum(values: list[torch.Tensor]) -> torch.Tensor:
    total = values[0]
    for value in values[1:]:
        total = total + value.to(total.device)
    return total
