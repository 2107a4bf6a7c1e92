"""Lightning's `Tuner.lr_find`, as its documentation says: before the training, restored from its own checkpoint."""

from __future__ import annotations

import logging
import signal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning
import torch
from lightning.pytorch.tuner.tuning import Tuner
from torch import Tensor

from ava.bench.arms.finder_arm import Range, Search, silently
from ava.bench.finder_scene import Scene


class _Module(lightning.LightningModule):
    def __init__(self, scene: Scene) -> None:
        super().__init__()
        self.model, self.lr = scene.model, float(scene.optimizer.defaults["lr"])
        self._loss_fn, self._optimizer = scene.loss_fn, scene.optimizer

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """The loss of a batch."""
        return self._loss_fn(self.model(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The training's own, so that its moments take part in the search."""
        return self._optimizer


def prepare(scene: Scene, tested: Range) -> Search:
    """The search; the trainer is built beforehand.

    `update_attr` is off, so that what differs afterwards was not asked for: with it, as by default, every group would
    be given the suggested rate.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.CRITICAL)
    folder = TemporaryDirectory(prefix="ava-bench-")
    with silently():
        trainer: Any = lightning.Trainer(
            accelerator="cpu", default_root_dir=Path(folder.name), logger=False, enable_checkpointing=False,
            enable_model_summary=False, enable_progress_bar=False,
        )  # fmt: skip
        module = _Module(scene)

    def search() -> float | None:
        handler = signal.getsignal(signal.SIGINT)  # an interrupted trainer lets Ctrl-C be ignored from then on
        try:
            with silently():
                found: Any = Tuner(trainer).lr_find(
                    module, train_dataloaders=scene.loader, min_lr=tested.min_lr, max_lr=tested.max_lr,
                    num_training=tested.num_steps, update_attr=False,
                )  # fmt: skip
                lr: float | None = found.suggestion()
        finally:
            signal.signal(signal.SIGINT, handler)
            folder.cleanup()
        return lr

    return search
