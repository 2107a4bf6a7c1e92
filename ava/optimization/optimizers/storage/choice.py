"""Which codec stores a slot."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ava.optimization.optimizers.sentence import Sentence, Slot, is_counted
from ava.optimization.optimizers.storage.bfloat16 import BFloat16
from ava.optimization.optimizers.storage.codec import Codec
from ava.optimization.optimizers.storage.dense import Dense
from ava.optimization.optimizers.storage.factored import Factored
from ava.optimization.optimizers.storage.int8 import Int8

CODECS: dict[str, Codec] = {"dense": Dense(), "bf16": BFloat16(), "int8": Int8(), "factored": Factored()}

SMALLEST_INT8 = 4096
"""Below this many elements 8 bits save nothing worth their error."""


def codec_name(slot: Slot, state: str, *, is_small: bool) -> str:
    """The name of the codec of one slot.

    Args:
        slot: what is stored.
        state: the option `state` of the param group.
        is_small: whether the parameter has fewer than SMALLEST_INT8 elements.
    """
    return "dense" if slot.exact or slot.shape != "full" or (state == "int8" and is_small) else state


def codec_of(slot: Slot, state: str, parameter: Tensor) -> Codec:
    """The codec of one slot of one parameter; of a sharded one, `parameter` is the local shard."""
    return CODECS[codec_name(slot, state, is_small=parameter.numel() < SMALLEST_INT8)]


def counts_steps(sentence: Sentence, group: dict[str, Any]) -> bool:
    """Whether the parameters of a group count their updates: for a rule, or for random rounding."""
    return is_counted(sentence) or CODECS[group["state"]].draws or bool(group["stochastic_rounding"])
