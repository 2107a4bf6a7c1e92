"""float16 does not hold what the gradients need."""

from __future__ import annotations

from ava.registry import Fraction, PositiveInt, advice
from ava.training.history import Advice, History


@advice
def loss_scale_falls(
    history: History, /, share: Fraction = 0.1, lines: PositiveInt = 3, steps: PositiveInt = 50
) -> Advice | None:
    """The loss scale goes on falling after it should have found its place.

    Args:
        history: the run so far.
        share: of the steps that may overflow.
        lines: one after another for which that holds.
        steps: after which it should have found it.
    """
    rows = list(history.lines)[-lines - 1 :]
    if len(rows) <= lines or rows[0]["step"] < steps or "precision/overflows" not in rows[0]:
        return None
    overflows = [row.get("precision/overflows", 0.0) for row in rows]
    shares = [
        (b - a) / (late["step"] - early["step"])
        for a, b, early, late in zip(overflows, overflows[1:], rows, rows[1:], strict=False)
    ]
    if min(shares) <= share:
        return None
    since, scale = int(rows[1]["step"]), rows[-1]["precision/loss_scale"]
    text = (
        f"the loss scale falls since step {since} (to {scale:.3g}; {sum(shares) / len(shares):.0%} of the steps "
        f"overflow): try precision=bf16, or a lower optimizer.lr"
    )
    return Advice(text, {"since": since, "loss_scale": scale, "overflows": sum(shares) / len(shares)})
