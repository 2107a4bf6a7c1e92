"""What a task of next tokens asks of a model beyond logits, and what it says where a model has no answer.

Every model answers `model(inputs)` with (B, T, V) logits. Two abilities are parameters of `forward` by name:

    documents         the batch holds several documents a row; the model keeps them apart
    targets, chunk    the model returns the summed cross-entropy itself, with `chunk` rows of logits at a time

The second is asked of the model and not done behind its back, so that compiling and DDP wrap all of the computation.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from ava.data.source import IGNORED
from ava.errors import InputError
from ava.tasks.task import Batch


def logits_of(model: nn.Module, batch: Batch) -> Tensor:
    """(B, T, V) logits in the model's own type; documents of one row do not see each other.

    Raises:
        InputError: the batch holds documents and the model does not keep them apart.
    """
    if "documents" not in batch:
        logits: Tensor = model(batch["inputs"])
    else:
        check_documents(model)
        logits = model(batch["inputs"], documents=batch["documents"])
    return logits


def summed_cross_entropy(model: nn.Module, batch: Batch, chunk: int = 0) -> Tensor:
    """Cross-entropy summed over the targets that count, 0-dim float32.

    Args:
        model: see above.
        batch: {"inputs": (B, T), "targets": (B, T)}, and "documents" where rows hold several.
        chunk: rows of logits at a time; 0 for all at once.

    Raises:
        InputError: the model lacks what the batch or `chunk` asks for.
    """
    if chunk == 0:
        logits = logits_of(model, batch).float().flatten(0, 1)
        return cross_entropy(logits, batch["targets"].flatten(), ignore_index=IGNORED, reduction="sum")
    check_chunked_loss(model, chunk)
    if "documents" not in batch:
        loss: Tensor = model(batch["inputs"], targets=batch["targets"], chunk=chunk)
    else:
        check_documents(model)
        loss = model(batch["inputs"], targets=batch["targets"], chunk=chunk, documents=batch["documents"])
    return loss


def check_documents(model: nn.Module) -> None:
    """Refuse a model that would let documents of one row see each other."""
    if "documents" not in _accepted(type(_innermost(model)).forward):
        raise InputError(
            f"{type(_innermost(model)).__name__} would let documents that share a sequence see each other: "
            "its forward takes no `documents` (B, T), which number them.",
            hint="Use data.packing=stream (data=tokens: separator=null), or a model that takes them, such as gpt.",
        )


def check_chunked_loss(model: nn.Module, chunk: int) -> None:
    """Refuse a model that cannot compute its own loss."""
    if not {"targets", "chunk"} <= _accepted(type(_innermost(model)).forward):
        raise InputError(
            f"{type(_innermost(model)).__name__} cannot compute its loss by chunks: its forward does not take "
            "`targets` (B, T) and `chunk`, with which it has to return the summed cross-entropy.",
            key="task.chunked_loss", value=chunk, hint="Set task.chunked_loss=0, or use model=gpt.",
        )  # fmt: skip


def _innermost(model: nn.Module) -> nn.Module:
    """The model within what DDP and the compiler wrap around it."""
    while True:
        if isinstance(model, DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


@lru_cache
def _accepted(forward: Callable[..., Any]) -> frozenset[str]:
    """The names of what a `forward` takes."""
    return frozenset(inspect.signature(forward).parameters)
