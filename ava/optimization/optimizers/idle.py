"""Options that would do nothing are refused: who gave them expects something."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ava.errors import InputError
from ava.registry import optimizer as registry

if TYPE_CHECKING:
    from ava.optimization.optimizers.composed import ComposedOptimizer


def refuse_idle(optimizer: ComposedOptimizer) -> None:
    """Check that every option that was asked for has something to do.

    Raises:
        InputError: one has not; says what it is for.
    """
    if optimizer.whole["sam_adaptive"] and optimizer.whole["sam_rho"] is None:
        raise InputError(
            "says how sam_rho is measured, which is not given.", key="sam_adaptive", value=True,
            hint="Set sam_rho too; adaptive radii are about ten times larger, such as 0.5.",
        )  # fmt: skip
    if optimizer.pilot is not None:
        from ava.optimization.stability.idle import refuse_idle_options

        refuse_idle_options(optimizer.param_groups, registry[optimizer.name].defaults)
    rounding = [group for group in optimizer.param_groups if group["stochastic_rounding"]]
    if not rounding or registry[optimizer.name].defaults["stochastic_rounding"]:
        return
    dtypes = {p.dtype for group in rounding for p in group["params"]}
    if all(dtype.itemsize != 2 for dtype in dtypes):
        raise InputError(
            f"there is nothing to round: it is for 16-bit parameters, and these are {', '.join(map(str, dtypes))}.",
            key="stochastic_rounding", value=True, hint="Leave it out, or call model.bfloat16() first.",
        )  # fmt: skip
