"""The same training in Lightning, with everything off that can be off."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import lightning
import torch

from ava.bench.turns import Gate
from ava.bench.workloads import Workload
from ava.data.loader import Batch


class _Module(lightning.LightningModule):
    def __init__(self, model: torch.nn.Module, lr: float) -> None:
        super().__init__()
        self.model, self.lr = model, lr

    def training_step(self, batch: Batch, index: int) -> torch.Tensor:
        """The mean loss of a batch."""
        logits = self.model(batch["inputs"])
        return torch.nn.functional.cross_entropy(logits.flatten(0, -2).float(), batch["targets"].flatten())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The yardstick's optimizer."""
        return torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=0.01, fused=True)


def train(workload: Workload, model: torch.nn.Module, batches: Gate[Batch]) -> None:
    """Fit until the batches end."""
    logging.getLogger("lightning").setLevel(logging.ERROR)
    trainer: Any = lightning.Trainer(
        max_steps=-1, max_epochs=1, accelerator="cpu", gradient_clip_val=1.0, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=workload.log_every,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(_Module(model, workload.lr), train_dataloaders=batches)
