"""Decay at milestones."""

from __future__ import annotations

import itertools

from ava.errors import InputError
from ava.optimization.learning_rate.factors import Factors
from ava.optimization.learning_rate.lengths import in_steps
from ava.registry import Fraction, Length, scheduler


@scheduler
def multistep(step: int, total: int, /, milestones: tuple[Length, ...] = (0.5, 0.75), gamma: Fraction = 0.1) -> Factors:
    """Step decay at chosen places: times `gamma` at each of `milestones`, as DenseNets were trained.

        gamma ** (number of milestones <= step)

    Args:
        step: optimizer steps taken.
        total: length of the training in steps.
        milestones: steps at which the rate drops, in increasing order; those beyond the training never come.
        gamma: what a drop leaves of the rate.

    Returns:
        The multiplier on every group's base learning rate.

    Raises:
        InputError: the milestones do not increase.

    Reference: Huang et al. 2016, https://arxiv.org/abs/1608.06993
    """
    _check_increase(milestones, total)
    return Factors(gamma ** sum(in_steps(milestone, total) <= step for milestone in milestones))


def _check_increase(milestones: tuple[int | float, ...], total: int) -> None:
    """Refuse an order that cannot be meant; two shares of a very short training may round to one step."""
    for before, after in itertools.pairwise(milestones):
        if isinstance(before, int) is isinstance(after, int):
            increases = before < after
        else:
            increases = in_steps(before, total) <= in_steps(after, total)
        if not increases:
            problem = f"must increase, but {after} comes after {before} in a training of {total} steps."
            raise InputError(problem, key="milestones", value=list(milestones), hint="Sort them, each once.")
