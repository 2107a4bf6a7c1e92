"""The yardstick: the loop that a PyTorch tutorial writes."""

from __future__ import annotations

import torch

from ava.bench.turns import Gate
from ava.bench.workloads import Workload
from ava.data.loader import Batch


def train(workload: Workload, model: torch.nn.Module, batches: Gate[Batch]) -> None:
    """Forward, backward, clip, step; the loss is read where the workload logs."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=workload.lr, weight_decay=0.01, fused=True)
    model.train()
    for step, batch in enumerate(batches, start=1):
        optimizer.zero_grad(set_to_none=True)
        logits = model(batch["inputs"])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, -2).float(), batch["targets"].flatten())
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % workload.log_every == 0:
            loss.item()
