"""Why recovery gave up, in words that a person can act on."""

from __future__ import annotations

from ava.optimization.stability.ladder import Answer, Ladder

_REASONS = {
    "persistent": "loss or gradients left what was to be expected, and stayed away",
    "bad_start": "the training did not get below the loss of the untrained model",
    "nonfinite": "losses or gradients were not finite",
    "weights_nonfinite": "weights became NaN or infinite",
    "weights_jumped": "weights changed between two steps",
}
_REMEDIES = {
    "persistent": "Look at the samples of these steps, try a lower optimizer.lr or more scheduler.warmup_steps.",
    "bad_start": "The rate is probably far too high even so, or the model or its data are broken: try "
                 "`ava-lr-find`, a smaller optimizer.lr, and `health.detail_every=1` to see which layer explodes.",
    "nonfinite": "Look at the samples and layers that the incidents name; `health.anomaly=true` names the operation. "
                 "If it began with a rate that is high, try a lower optimizer.lr.",
    "weights_nonfinite": "If a lower optimizer.lr does not help, `health.anomaly=true` names the operation; weights "
                         "that change by themselves point to memory or a device that fails.",
    "weights_jumped": "Something besides the optimizer writes into the weights: a hook, or memory that fails.",
}  # fmt: skip

UNTRAINED = f"all steps were left out, for {_REASONS['nonfinite']}: nothing was trained. {_REMEDIES['nonfinite']}"


def diagnosis(answer: Answer, ladder: Ladder, lr: float | None) -> str:
    """One or two sentences: what happened how often, at which rate, and what to try.

    Args:
        answer: the last one; its sign is the cause that could not be mended.
        ladder: what was tried.
        lr: the schedule's rate; None where the optimizer chooses it.
    """
    is_nonfinite = not ladder.is_finite and answer.sign in ("persistent", "bad_start")
    cause = "nonfinite" if is_nonfinite else answer.sign
    times = "once" if ladder.spent == 1 else f"{ladder.spent} times"
    factor = ladder.comeback.factor
    at = "" if lr is None or factor == 1 else f", in the end at {factor:.3g} of the rate ({lr * factor:.3g})"
    return (
        f"recovery went back {times}{at}, which is all that recovery.budget={ladder.budget} allows, and still "
        f"{_REASONS[cause]}. {_REMEDIES[cause]}"
    )
