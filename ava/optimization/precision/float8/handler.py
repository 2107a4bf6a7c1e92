"""FP8 for a loop of one's own: a handler that holds the options and gives the context of a forward pass."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from ava.optimization.options import check
from ava.optimization.precision.float8.training import Float8, check_float8, check_options, prepare_float8


class FP8Handler:
    """The options of FP8 training, and the context to run a forward pass in.

        handler = FP8Handler(enabled=True, fp8_format="hybrid")
        model = FP8ModelWrapper(model=model, fp8_handler=handler)
        with handler.context():
            loss = loss_fn(model(inputs), targets)
        loss.backward()
        optimizer.step()

    Delayed scaling has to know of optimizer steps. The handler hears of every step of an optimizer that holds one of
    its layers' weights, and takes it into account when the context is entered next, or at once in a loop that never
    enters it: micro-batches between two optimizer steps count as one step, and so do the steps of several optimizers
    after one another. A loop whose optimizer is not a `torch.optim.Optimizer` calls `step` itself.

    Args:
        enabled: False makes model and context do nothing at all.
        margin: of delayed: powers of two left free above the largest value seen.
        interval: of delayed: optimizer steps between two new scales.
        fp8_format: "e4m3", "e5m2" or "hybrid".
        recipe: "delayed", or torchao's "tensorwise", "rowwise" and "rowwise_with_gw_hp".
        emulate: the same numerics without hardware for them, slowly.
        include: globs of layers to convert though they are small or heads.
        exclude: globs of layers to leave as they are.
        history: of delayed: optimizer steps whose largest values count.
        device: where the model will compute; by default the GPU if there is one.
        max_over_ranks: of delayed: the elementwise largest of a tensor over all ranks.

    Raises:
        InputError: an option cannot work, or the device has no hardware for FP8.
    """

    def __init__(
        self, enabled: bool = True, margin: int = 0, interval: int = 1, fp8_format: str = "hybrid",
        recipe: str = "delayed", emulate: bool = False, *, include: tuple[str, ...] = (),
        exclude: tuple[str, ...] = (), history: int = 16, device: torch.device | str | None = None,
        max_over_ranks: Callable[[Tensor], Tensor] | None = None,
    ) -> None:  # fmt: skip
        self.enabled = check("precision.enabled", enabled, bool)
        check_options(recipe=recipe, fp8_format=fp8_format, margin=margin, interval=interval, emulate=emulate,
                      history=history, include=include, exclude=exclude)  # fmt: skip
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.margin, self.interval, self.fp8_format = margin, interval, fp8_format
        self.recipe, self.emulate, self.history = recipe, emulate, history
        self.include, self.exclude, self.max_over_ranks = tuple(include), tuple(exclude), max_over_ranks
        self._prepared: list[Float8] = []
        self._heard: set[int] = set()  # the optimizers of the last step
        self._at_once = True  # nobody enters the context, so a step is counted when it is heard of
        self._skipped: Tensor | None = None
        if enabled:
            check_float8(recipe=recipe, fp8_format=fp8_format, margin=margin, interval=interval, emulate=emulate,
                         device=self.device, history=history)  # fmt: skip

    def prepare(self, model: nn.Module) -> None:
        """Convert the model's layers in place; what `FP8ModelWrapper` calls.

        Raises:
            InputError: the model's device has no hardware for FP8, or no layer can be converted.
        """
        if not self.enabled:
            return
        device = next((parameter.device for parameter in model.parameters()), self.device)
        self._prepared.append(prepare_float8(
            model, device=device, recipe=self.recipe, fp8_format=self.fp8_format, margin=self.margin,
            interval=self.interval, include=self.include, exclude=self.exclude, emulate=self.emulate,
            history=self.history, max_over_ranks=self.max_over_ranks,
        ))  # fmt: skip
        self.device = device
        if self.recipe == "delayed" and len(self._prepared) == 1:
            _listen(self)

    @contextmanager
    def context(self) -> Iterator[None]:
        """Autocast to bf16 around the layers that are in FP8; gradients are as enabled as they were."""
        if not self.enabled:
            yield
            return
        self._catch_up()
        self._at_once = False
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            yield

    def step(self, skipped: Tensor | bool = False) -> None:
        """Say that the optimizer took a step, or skipped one; needed only where the handler cannot hear of it."""
        counted = self._at_once and bool(self._heard)
        self._at_once = False
        self._forget()
        if not counted:
            self._count(skipped)

    def sentences(self) -> list[str]:
        """What is done to which layers."""
        return [line for prepared in self._prepared for line in prepared.sentences()]

    def columns(self) -> dict[str, float]:
        """What the casts of the model wrapped last have lost, as `Float8.columns` says."""
        return self._prepared[-1].columns() if self._prepared else {}

    def state_dict(self) -> dict[str, Any]:
        """Scales and their history; they are no part of the model's state."""
        self._catch_up()
        return {"models": [prepared.state_dict() for prepared in self._prepared]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave, with the same models wrapped in the same order."""
        self._forget()
        for prepared, part in zip(self._prepared, state["models"], strict=True):
            prepared.load_state_dict(part)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Unpickled: follows the models that came with it."""
        vars(self).update(state)
        if self.recipe == "delayed" and self._prepared:
            _listen(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> FP8Handler:
        """A handler of its own for a copy of a wrapped model, or for copies of all its models."""
        copied = [prepared for prepared in self._prepared if id(prepared.model) in memo] or self._prepared
        state = vars(self) | {"_prepared": copy.deepcopy(copied, memo), "_heard": set(self._heard)}
        twin = FP8Handler.__new__(FP8Handler)
        twin.__setstate__(state)
        return twin

    def _hear(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer stepped: remember it for the context, or count it where nobody enters one."""
        ours = {id(parameter) for prepared in self._prepared for parameter in prepared.parameters()}
        if not any(id(p) in ours for group in optimizer.param_groups for p in group["params"]):
            return
        found_inf = getattr(optimizer, "found_inf", None)
        skipped = None if found_inf is None else torch.as_tensor(found_inf).reshape(()) != 0
        again = id(optimizer) in self._heard
        self._at_once |= again
        if self._at_once and (again or not self._heard):
            self._forget()
            self._count(skipped)
        elif skipped is not None:
            self._skipped = skipped if self._skipped is None else self._skipped | skipped.to(self._skipped.device)
        self._heard.add(id(optimizer))

    def _catch_up(self) -> None:
        """Count the step that was heard of and not counted yet."""
        if self._heard and not self._at_once:
            self._count(self._skipped)
        self._forget()

    def _forget(self) -> None:
        self._heard.clear()
        self._skipped = None

    def _count(self, skipped: Tensor | bool | None) -> None:
        for prepared in self._prepared:
            prepared.step(False if skipped is None else skipped)


def _listen(handler: FP8Handler) -> None:
    """Tell the handler of every optimizer step for as long as somebody holds it."""
    reference = weakref.ref(handler)

    def hook(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        held = reference()
        if held is not None:
            held._hear(optimizer)

    weakref.finalize(handler, register_optimizer_step_post_hook(hook).remove)
