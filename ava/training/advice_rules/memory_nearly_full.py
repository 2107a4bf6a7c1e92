"""Memory is nearly full: the next longer batch or a checkpoint may end the run."""

from __future__ import annotations

from ava.registry import Fraction, advice
from ava.training.history import Advice, History


@advice
def memory_nearly_full(history: History, /, share: Fraction = 0.95) -> Advice | None:
    """The run has held nearly all memory that there is.

    Args:
        history: the run so far.
        share: of it that is nearly all.
    """
    limit, held = history.setting.memory_limit, history.lines[-1].get("memory", 0.0)
    if not limit or held <= share * limit:
        return None
    text = (
        f"memory is nearly full ({held / 1e9:.1f} of {limit / 1e9:.1f} GB were held): try "
        f"trainer.accumulate={2 * history.setting.accumulate} or trainer.activation_checkpointing=true"
    )
    return Advice(text, {"memory": held, "limit": limit})
