"""FP8 for a training: which layers, said at the start; what happens after each optimizer step; what is saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any, cast

import torch
from annotated_types import Ge
from torch import Tensor, nn

from ava.errors import InputError
from ava.optimization.options import check
from ava.optimization.precision.float8 import delayed, dynamic
from ava.optimization.precision.float8.filter import Selection, select
from ava.optimization.precision.float8.formats import casts
from ava.optimization.precision.float8.hardware import check_hardware
from ava.optimization.precision.float8.scaling import DelayedScaling
from ava.optimization.precision.fused_encoders import forbid_fused_encoders
from ava.optimization.precision.names import grouped

_MAX_MARGIN = 14
"""One more and the largest value itself would be a subnormal e4m3."""
_HISTORY = 16
_TYPES: dict[str, Any] = {
    "recipe": str, "fp8_format": str, "margin": int, "interval": int, "history": Annotated[int, Ge(1)],
    "include": tuple[str, ...], "exclude": tuple[str, ...], "emulate": bool,
}  # fmt: skip


class Float8:
    """What a training keeps of its FP8 layers; made by `prepare_float8`.

    Attributes:
        model: the model that holds them.
        layers: names of the converted layers.
        skipped: name -> why a linear layer was not converted.
    """

    def __init__(
        self, model: nn.Module, selection: Selection, description: str, scaling: DelayedScaling | None, gathered: bool
    ) -> None:  # fmt: skip
        self.model, self.layers, self.skipped = model, selection.converted, selection.skipped
        self.scaling = scaling
        self._description, self._gathered = description, gathered
        # Not looked up by name again: what is built around the model may rename them.
        self._converted = [model.get_submodule(name) for name in self.layers]

    def parameters(self) -> Iterator[nn.Parameter]:
        """The layers' parameters as they are now: sharding and loading put others in their places."""
        for layer in self._converted:
            yield from layer.parameters()

    def sentences(self) -> list[str]:
        """What is done to which layers, for the start of a run."""
        lines = [self._description, f"FP8 layers ({len(self.layers)}): {', '.join(grouped(self.layers))}."]
        if self.skipped:
            reasons = dict.fromkeys(self.skipped.values())
            kept = {reason: [name for name in self.skipped if self.skipped[name] == reason] for reason in reasons}
            parts = "; ".join(f"{', '.join(grouped(names))} ({reason})" for reason, names in kept.items())
            lines.append(f"Not in FP8 ({len(self.skipped)}): {parts}.")
        return lines

    def step(self, skipped: Tensor | bool = False) -> None:
        """To be called after each optimizer step, on every rank.

        Args:
            skipped: whether the optimizer left the step out; a 0-dim tensor is not read.
        """
        if self.scaling is not None:
            self.scaling.step(skipped)
        elif self._gathered:
            dynamic.renew_gathered_scales(self.model)

    def columns(self) -> dict[str, float]:
        """Shares of the elements that saturated and that became zero in the casts of one step; waits for the device.

        That step is the first after the last call, so that other steps do not pay for the count. Empty where nothing
        was counted: dynamic scaling leaves nothing to saturate, and compiled layers do not count. Where operands held
        an infinity or a NaN since the last call, `fp8/nonfinite` says how many, of three for each layer.
        """
        if self.scaling is None:
            return {}
        saturated, flushed, total, nonfinite = self.scaling.count_again()
        shares = {"fp8/saturated": saturated / total, "fp8/underflow": flushed / total} if total else {}
        return shares | ({"fp8/nonfinite": float(nonfinite)} if nonfinite else {})

    def state_dict(self) -> dict[str, Any]:
        """Scales and their history, for a checkpoint; empty with dynamic scaling."""
        return {} if self.scaling is None else self.scaling.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave.

        Raises:
            InputError: it was saved under another recipe, or of other layers.
        """
        if self.scaling is not None:
            self.scaling.load_state_dict(state)
        elif state:
            raise InputError("the checkpoint holds FP8 scales of the recipe delayed.", key="precision.recipe",
                             hint="Continue with precision.recipe=delayed.")  # fmt: skip


def check_float8(
    *, recipe: str, fp8_format: str, margin: int, interval: int, emulate: bool, device: torch.device,
    float8_all_gather: bool = False, history: int = _HISTORY,
) -> None:  # fmt: skip
    """Refuse what cannot work, before anything is built or torchao is imported.

    Args:
        recipe: tensorwise, rowwise, rowwise_with_gw_hp or delayed.
        fp8_format: e4m3, e5m2 or hybrid.
        margin: powers of two left free above the largest value seen.
        interval: optimizer steps between two new scales.
        emulate: the same numerics without hardware for them.
        device: where the layers compute.
        float8_all_gather: under FSDP2 ranks exchange the weights in 8 bits.
        history: of delayed: optimizer steps whose largest values count.

    Raises:
        InputError: the combination is impossible, or the device has no hardware for it.
    """
    check_options(recipe=recipe, fp8_format=fp8_format, margin=margin, interval=interval, emulate=emulate,
                  history=history)  # fmt: skip
    if float8_all_gather and recipe != "tensorwise":
        raise InputError("weights are exchanged in 8 bits with recipe tensorwise only.",
                         key="precision.recipe", value=recipe)  # fmt: skip
    if not emulate:
        check_hardware(device)


def check_options(
    *, recipe: str, fp8_format: str, margin: int, interval: int, emulate: bool, history: int = _HISTORY,
    include: tuple[str, ...] = (), exclude: tuple[str, ...] = (),
) -> None:  # fmt: skip
    """Refuse options that work on no device; what they mean stands at `prepare_float8`.

    Raises:
        InputError: one is of another type or out of its range, or the recipe has no use for it.
    """
    given = {"recipe": recipe, "fp8_format": fp8_format, "margin": margin, "interval": interval, "emulate": emulate,
             "history": history, "include": include, "exclude": exclude}  # fmt: skip
    for key, value in given.items():
        check(f"precision.{key}", value, _TYPES[key])
    casts(recipe, fp8_format)
    for key, value, neutral in (("margin", margin, 0), ("interval", interval, 1), ("history", history, _HISTORY)):
        if recipe != "delayed" and value != neutral:
            raise InputError(
                f"recipe {recipe} scales dynamically: each cast reads its own tensor's largest value, so there is "
                "nothing to leave room for and nothing to renew.",
                key=f"precision.{key}", value=value,
                hint=f"Set precision.recipe=delayed, or {key} to {neutral}.",
            )  # fmt: skip
    if not 0 <= margin <= _MAX_MARGIN:
        raise InputError(f"must be from 0 to {_MAX_MARGIN}: e4m3 has no more powers of two to give.",
                         key="precision.margin", value=margin)  # fmt: skip
    if interval < 1:
        raise InputError("must be at least 1 optimizer step.", key="precision.interval", value=interval)


def prepare_float8(
    model: nn.Module, *, device: torch.device, recipe: str = "tensorwise", fp8_format: str = "hybrid",
    margin: int = 0, interval: int = 1, include: tuple[str, ...] = (), exclude: tuple[str, ...] = (),
    emulate: bool = False, max_over_ranks: Callable[[Tensor], Tensor] | None = None, history: int = _HISTORY,
    float8_all_gather: bool = False,
) -> Float8:  # fmt: skip
    """Make the model's linear layers compute in 8-bit floats, in place; before the optimizer, DDP, FSDP2 and compile.

    Args:
        model: on `device`.
        device: where it computes.
        recipe: tensorwise, rowwise, rowwise_with_gw_hp or delayed.
        fp8_format: e4m3, e5m2 or hybrid.
        margin: of delayed: powers of two left free above the largest value seen.
        interval: of delayed: optimizer steps between two new scales.
        include: globs of layers to convert though they are small or heads.
        exclude: globs of layers to leave as they are; stronger than `include`.
        emulate: the same numerics without hardware for them; size then decides nothing.
        max_over_ranks: of delayed: the elementwise largest of a tensor over all ranks.
        history: of delayed: optimizer steps whose largest values count.
        float8_all_gather: under FSDP2 ranks exchange the weights in 8 bits; their parameters become new objects.

    Raises:
        InputError: an option cannot work, no layer is left to convert, or torchao is missing.
    """
    check_float8(recipe=recipe, fp8_format=fp8_format, margin=margin, interval=interval, emulate=emulate,
                 device=device, float8_all_gather=float8_all_gather, history=history)  # fmt: skip
    selection = select(model, recipe, include=include, exclude=exclude, emulate=emulate)
    types, scaling = casts(recipe, fp8_format), None
    if recipe == "delayed":
        scaling = DelayedScaling(selection.converted, types, device, margin=margin, interval=interval,
                                 history=history, max_over_ranks=max_over_ranks)  # fmt: skip
        for row, name in enumerate(selection.converted):
            delayed.convert(cast(nn.Linear, model.get_submodule(name)), scaling, row)
    else:
        dynamic.convert(model, selection.converted, recipe, types, device, emulate=emulate,
                        float8_all_gather=float8_all_gather)  # fmt: skip
    forbid_fused_encoders(model, {name: model.get_submodule(name) for name in selection.converted})
    return Float8(model, selection, _describe(recipe, fp8_format, emulate), scaling, float8_all_gather)


def _describe(recipe: str, fp8_format: str, emulate: bool) -> str:
    types = casts(recipe, fp8_format)
    products = ", ".join(
        f"{name} in bf16" if "none" in pair else f"{name} {pair[0]} x {pair[1]}"
        for name, pair in types.products.items()
    )  # fmt: skip
    text = f"FP8, recipe {recipe}, format {fp8_format}: {products}."
    if fp8_format == "e5m2" and types == casts(recipe, "hybrid"):
        text += " Nothing multiplies e5m2 by e5m2, so with this recipe e5m2 is what hybrid is."
    return text + (" Emulated: the numerics of FP8 without its speed; size decides nothing." if emulate else "")
