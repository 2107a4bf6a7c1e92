"""What a training loop knows of batches: where the inputs are, what the loss is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ava.errors import InputError

LossFunction = Callable[[Any, Any], Tensor]


def loss_of(model: nn.Module, loss_fn: LossFunction | None, batch: Any) -> Tensor:
    """The loss of one batch.

        (inputs, targets)              loss_fn(model(inputs), targets)
        {"inputs": x, "targets": y}    loss_fn(model(x), y)
        {..., "labels": y}             loss_fn(model(...), y)
        {...} and loss_fn is None      model(...).loss, or ["loss"] of what it returns

    Args:
        model: is called.
        loss_fn: (outputs, targets) -> scalar; None where the model returns its loss.
        batch: one of the above, on the model's device.

    Raises:
        InputError: the batch is none of these, or the loss is not one number.
    """
    if isinstance(batch, Mapping):
        loss = _of_mapping(model, loss_fn, dict(batch))
    elif isinstance(batch, tuple | list) and len(batch) == 2 and loss_fn is not None:
        loss = loss_fn(model(batch[0]), batch[1])
    else:
        raise _unknown(batch, loss_fn)
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        shown = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise InputError(f"the loss has to be one number; it is {shown}.", key="loss_fn", value=loss_fn)
    return loss.reshape(())


def _of_mapping(model: nn.Module, loss_fn: LossFunction | None, batch: dict[str, Any]) -> Any:
    if loss_fn is None:
        outputs = model(**batch)
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else getattr(outputs, "loss", None)
        if loss is None:
            raise InputError(
                f"the model returns a {type(outputs).__name__} without a loss, and there is no loss_fn.",
                key="loss_fn", value=None, hint="Give a loss_fn, or batches with the labels that the model wants.",
            )  # fmt: skip
        return loss
    if "inputs" in batch and "targets" in batch:
        return loss_fn(model(batch["inputs"]), batch["targets"])
    if "labels" in batch:
        labels = batch.pop("labels")
        return loss_fn(model(**batch), labels)
    raise _unknown(batch, loss_fn)


def to_device(batch: Any, device: torch.device) -> Any:
    """The batch with all its tensors on a device."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple | list):
        return [to_device(value, device) for value in batch]
    return batch


def _unknown(batch: Any, loss_fn: LossFunction | None) -> InputError:
    held = sorted(map(str, batch)) if isinstance(batch, Mapping) else f"a {type(batch).__name__}"
    if isinstance(batch, tuple | list):
        held = f"{len(batch)} values" + (" and there is no loss_fn" if loss_fn is None else "")
    return InputError(
        f"batches have to be (inputs, targets), or mappings with `inputs` and `targets`, or with `labels`; got {held}.",
        key="train_loader", hint="Wrap the loader so that it yields one of these.",
    )  # fmt: skip
