"""Trade time for memory: recompute activations in the backward pass instead of keeping them.

Of a checkpointed block only the input is kept; when the backward pass comes to it, the block runs again. "selective"
also keeps what matrix products, convolutions and attention gave out: they are most of the work, and what lies between
them (norms, activation functions, additions, dropout) is cheap to compute again. Gradients are the same to the bit:
random numbers, autocast and running statistics are, in the second run, what they were in the first.

Reference: Chen et al. 2016, https://arxiv.org/abs/1604.06174; selective: Korthikanti et al. 2022,
https://arxiv.org/abs/2205.05198
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal, TypeAlias

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from ava.errors import InputError
from ava.optimization.optimizers.wrappers.sam import kept_buffers

How: TypeAlias = bool | int | Literal["full", "selective"]
Contexts: TypeAlias = tuple[AbstractContextManager[Any], AbstractContextManager[Any]]
"""Around a block's first run, and around its second."""

KEPT = frozenset(
    f"aten::{name}"
    for name in (
        "mm", "addmm", "bmm", "baddbmm", "_scaled_mm", "convolution", "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention", "_scaled_dot_product_fused_attention_overrideable",
    )
)  # fmt: skip
"""Operators whose results "selective" keeps."""


def checkpoint_activations(model: nn.Module, how: How = True) -> None:
    """Make modules of `model.blocks` forget their inner activations until the backward pass needs them.

    The modules stay what they are, so parameter names and checkpoints do not change.

    Args:
        model: changed in place.
        how: true or "full": every block; k: every k-th; "selective": every block, but results of matrix products,
            convolutions and attention are kept; false: none.

    Raises:
        InputError: the model has no `blocks`, or fewer than k.
    """
    if how is False:
        return
    contexts = _selective if how == "selective" else None
    for block in _chosen(model, how):
        block.forward = functools.partial(_recomputed, block, block.forward, contexts)


def _chosen(model: nn.Module, how: How) -> list[nn.Module]:
    blocks = getattr(model, "blocks", None)
    key = "trainer.activation_checkpointing"
    if not isinstance(blocks, nn.ModuleList | nn.Sequential) or len(blocks) == 0:
        raise InputError(
            f"{type(model).__name__} has no `blocks` (an nn.ModuleList or nn.Sequential) to recompute.",
            key=key, value=how, hint="Give the model one, or turn this off.",
        )  # fmt: skip
    if how not in ("full", "selective") if isinstance(how, str) else how < 1:
        raise InputError("must be true, false, a number from 1, full or selective.", key=key, value=how)
    period = 1 if isinstance(how, str) else int(how)
    if period > len(blocks):
        raise InputError(
            f"recomputes one block in {period}, and {type(model).__name__} has {len(blocks)}.", key=key, value=how,
            hint=f"Give a number from 1 (every block) to {len(blocks)} (the last).",
        )  # fmt: skip
    return list(blocks)[period - 1 :: period]


def _recomputed(
    block: nn.Module, forward: Callable[..., Any], contexts: Callable[[], Contexts] | None, *args: Any, **kwargs: Any
) -> Any:
    # A compiled graph holds every change of a buffer once, and knows no contexts but the selective ones.
    if next(block.buffers(), None) is not None and not torch.compiler.is_compiling():
        contexts = functools.partial(_once, block, contexts or _plain)
    chosen: dict[str, Any] = {} if contexts is None else {"context_fn": contexts}
    return checkpoint(forward, *args, use_reentrant=False, **chosen, **kwargs)


def _plain() -> Contexts:
    return nullcontext(), nullcontext()


def _selective() -> Contexts:
    made: Contexts = create_selective_checkpoint_contexts(_policy)  # type: ignore[no-untyped-call]
    return made


def _policy(_: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    schema = getattr(operator, "_schema", None)
    if schema is None or schema.name not in KEPT or _draws(schema, args, kwargs):
        return CheckpointPolicy.PREFER_RECOMPUTE
    return CheckpointPolicy.MUST_SAVE


def _draws(schema: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether attention drops out: unless it draws in the second run too, who draws after it gets other numbers."""
    names = [argument.name for argument in schema.arguments]
    if "dropout_p" not in names:
        return False
    place = names.index("dropout_p")
    return bool(kwargs.get("dropout_p", args[place] if place < len(args) else 0.0))


def _once(block: nn.Module, contexts: Callable[[], Contexts]) -> Contexts:
    """Contexts in which the second run leaves the block's running statistics alone: a batch counts once."""
    first, again = contexts()
    return first, _both(again, block)


@contextmanager
def _both(again: AbstractContextManager[Any], block: nn.Module) -> Iterator[None]:
    with kept_buffers(block), again:
        yield
