"""A layer does not learn any more: its gradient is exactly 0, or there is none."""

from __future__ import annotations

from ava.registry import PositiveInt, advice
from ava.training.history import Advice, History

_NAMED = 3


@advice
def dead_layer(history: History, /, lines: PositiveInt = 3, steps: PositiveInt = 20) -> Advice | None:
    """Some layers' gradients are exactly 0, line after line.

    Args:
        history: the run so far.
        lines: one after another in which they are.
        steps: that these lines are apart, at least.
    """
    looks = list(history.layers)[-lines:]
    if len(looks) < lines or len(history.lines) < lines or history.steps_of(lines - 1) < steps:
        return None
    names = dict.fromkeys(name for look in history.layers for name in look.norms)
    dead = [name for name in names if all(look.norms.get(name, 0.0) == 0.0 for look in looks)]
    if not dead:
        return None
    since = looks[0].step
    more = f" and {len(dead) - _NAMED} more" if len(dead) > _NAMED else ""
    which = "every layer" if len(dead) == len(names) else ", ".join(dead[:_NAMED]) + more
    text = (
        f"no gradient reaches {which} since step {since}, so it learns nothing: if it was not frozen on purpose, its "
        f"units are dead: try a lower optimizer.lr, or an activation without a flat side (model.activation=gelu)"
    )
    return Advice(text, {"since": since, "num_layers": len(dead)}, subject=",".join(dead))
