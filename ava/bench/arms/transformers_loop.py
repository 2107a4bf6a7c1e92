"""The same training in Hugging Face's Trainer, with everything off that can be off."""

from __future__ import annotations

import logging
import tempfile
import warnings
from typing import Any

import torch
import transformers

from ava.bench.turns import Gate
from ava.bench.workloads import Workload
from ava.data.loader import Batch


class _WithLoss(torch.nn.Module):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        """The mean loss of a batch, as Trainer expects it from a model."""
        logits = self.model(inputs)
        return {"loss": torch.nn.functional.cross_entropy(logits.flatten(0, -2).float(), targets.flatten())}


class _Trainer(transformers.Trainer):
    batches: Gate[Batch]

    def get_train_dataloader(self) -> Any:
        """The gate's batches, instead of a loader of Trainer's own."""
        return self.batches


def train(workload: Workload, model: torch.nn.Module, batches: Gate[Batch]) -> None:
    """Train until the batches end."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = transformers.TrainingArguments(
            output_dir=folder, max_steps=10**9, per_device_train_batch_size=workload.batch_size, max_grad_norm=1.0,
            logging_strategy="no", save_strategy="no", eval_strategy="no", report_to=[], disable_tqdm=True,
            use_cpu=True, lr_scheduler_type="constant", label_names=["targets"], remove_unused_columns=False,
        )  # fmt: skip
        optimizer = torch.optim.AdamW(model.parameters(), lr=workload.lr, weight_decay=0.01, fused=True)
        trainer = _Trainer(
            model=_WithLoss(model),
            args=arguments,
            train_dataset=_Nothing(),
            optimizers=(optimizer, None),
        )
        trainer.batches = batches
        trainer.train()


class _Nothing(torch.utils.data.IterableDataset[Any]):
    """Trainer wants a data set even where it does not read one."""

    def __iter__(self) -> Any:
        return iter(())
