"""A callback for Hugging Face's Trainer that tells AGMOHD the loss of every step.

    trainer = Trainer(model, arguments, optimizers=(optimizer, None), callbacks=[AGMOHDCallback()])

The Trainer hands its callbacks no loss, so the model's own is listened to: what its forward returns as `loss` while it
trains. Where the Trainer hands the model the number of items of a whole step (`num_items_in_batch`), each accumulated
batch's loss is its share of the step's, and the shares are added up; else the mean is taken. Without the callback
AGMOHD goes by gradients alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ava.errors import InputError

try:
    from transformers import TrainerCallback
except ImportError as missing:
    raise InputError(
        "AGMOHDCallback is for Hugging Face's Trainer, and transformers is not installed.",
        hint="pip install transformers",
    ) from missing


class AGMOHDCallback(TrainerCallback):
    """Tells the optimizer the loss of every step, and the Trainer's log what the optimizer saw.

    What is told is the loss that the Trainer logs: of all the step's accumulated batches, and of all ranks. Logs get
    `hindrance`, `momentum`, `gradient_norm`, `skipped_steps` and `clipped_steps`.

    Raises:
        InputError: training begins with an optimizer that cannot be told a loss.

    Warns:
        UserWarning: once: the Trainer clips too, or the model returns no loss.
    """

    def __init__(self) -> None:
        self._losses: list[Tensor] = []
        self._are_shares = self._has_warned = False
        self._handle: RemovableHandle | None = None
        self._optimizer: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Listen to the model."""
        self._optimizer = _unwrapped(kwargs.get("optimizer"))
        if not hasattr(self._optimizer, "observe"):
            name = type(self._optimizer).__name__
            hint = "Pass Trainer(optimizers=(AGMOHD(...), None)), or leave the callback out."
            raise InputError("cannot be told a loss.", key="optimizer", value=name, hint=hint)
        self._losses = []
        self._handle = kwargs["model"].register_forward_hook(self._listen, with_kwargs=True)
        options = getattr(getattr(self._optimizer, "pilot", None), "options", {})
        if args.max_grad_norm and options.get("gradient_clipping") == "adaptive":
            warnings.warn(
                f"the Trainer clips gradients to max_grad_norm={args.max_grad_norm} before AGMOHD sees them. Set "
                "max_grad_norm=0 to leave clipping to it, or gradient_clipping='none' to leave it to the Trainer.",
                stacklevel=2,
            )

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tell the loss of what was heard since the last step."""
        losses, self._losses = self._losses, []
        if not losses:
            self._warn_of_silence()
            return
        total = sum(losses[1:], losses[0])
        if not self._are_shares:
            self._optimizer.observe(total / len(losses))
        elif getattr(args, "average_tokens_across_devices", False):  # shares of the items of all ranks
            self._optimizer.observe(total * args.world_size)
        else:
            self._optimizer.observe(total)

    def _warn_of_silence(self) -> None:
        if self._has_warned:
            return
        self._has_warned = True
        warnings.warn(
            "AGMOHDCallback hears no loss, so AGMOHD goes by gradients alone: the model returns none, as with a "
            "compute_loss of one's own or label_smoothing_factor. Call optimizer.observe(loss) in compute_loss "
            "instead, and leave the callback out.", stacklevel=2,
        )  # fmt: skip

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Add what the optimizer saw to the log's entry."""
        if logs is None or "loss" not in logs:
            return
        stats = self._optimizer.get_training_stats()
        names = ("hindrance", "momentum", "gradient_norm", "skipped_steps", "clipped_steps")
        seen = {name: stats[name] for name in names}
        logs.update(seen)
        if state.log_history:  # the Trainer has copied the entry there before it asks callbacks
            state.log_history[-1].update(seen)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Listen no more."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def _listen(self, model: nn.Module, arguments: Any, named: Mapping[str, Any], output: Any) -> None:
        loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
        if model.training and isinstance(loss, Tensor):
            self._losses.append(loss.detach().mean())
            self._are_shares = named.get("num_items_in_batch") is not None


def _unwrapped(optimizer: Any) -> Any:
    """The optimizer within what accelerate has wrapped around it."""
    while not hasattr(optimizer, "observe") and hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer
