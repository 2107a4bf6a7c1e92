"""An optimizer is a sentence of stages.

Lion, in words: interpolate momentum and gradient, take the sign, decay the weights, subtract. As a sentence:

    (interpolate, sign, decoupled_decay, descend)

A stage is one such word: an elementwise rule over the operands of a parameter, written in ordinary arithmetic,

    @stage(Slot("exp_avg"))
    def interpolate(t, h):
        beta1, beta2 = h.betas
        t.u = beta1 * t.exp_avg + (1 - beta1) * t.g
        t.exp_avg = beta2 * t.exp_avg + (1 - beta2) * t.g

and the state it keeps (its slots). The rule does not know what its operands are: one torch tensor, a list of
them, or symbols whose operations an engine records once and prints as a kernel. So one source serves every
engine, and none of this needs torch.

The operands, `t`:

    t.p     the parameter; assign the new value
    t.g     the gradient; gradient stages assign it anew, the caller's `p.grad` is never written
    t.u     the update in the making: what `descend` multiplies with the learning rate and subtracts
    t.step  this update's number, from 1; a stage that reads it says `counts=True`
    t.NAME  a slot, before the stage that owns it has assigned it: the value of the last step, at first zero

The hyperparameters, `h`, are the live param group: `h.lr`, `h.betas`, under torch.optim's names. Any schedule can
move any of them between two steps.

Rules are pure: assign (`t.g = t.g + x`), never augment (`t.g += x`), for that would write into the operand itself.
They branch on nothing numeric. Which stages a sentence has may depend on the options, and is the business of
the named optimizer (`adamw.py`, `lion.py`), which is asked anew at every step.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias


class Operand(Protocol):
    """What a rule may do with an operand: arithmetic, comparison (giving 0 or 1), and these functions."""

    def __add__(self, other: Operand | float, /) -> Operand: ...
    def __radd__(self, other: float, /) -> Operand: ...
    def __sub__(self, other: Operand | float, /) -> Operand: ...
    def __rsub__(self, other: float, /) -> Operand: ...
    def __mul__(self, other: Operand | float, /) -> Operand: ...
    def __rmul__(self, other: float, /) -> Operand: ...
    def __truediv__(self, other: Operand | float, /) -> Operand: ...
    def __pow__(self, other: float, /) -> Operand: ...
    def __rpow__(self, other: float, /) -> Operand: ...
    def __gt__(self, other: Operand | float, /) -> Operand: ...
    def sign(self) -> Operand:
        """-1, 0 or 1."""
        ...

    def sqrt(self) -> Operand:
        """The square root."""
        ...


class Operands:
    """One parameter's operands, by name: `t` of a rule."""

    def __init__(self, **operands: Any) -> None:
        self.__dict__.update(operands)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Operand: ...
        def __setattr__(self, name: str, value: Operand) -> None: ...


class Hyperparameters:
    """A param group read by attribute: `h` of a rule."""

    __slots__ = ("_group",)

    def __init__(self, group: dict[str, Any]) -> None:
        self._group = group

    def __getattr__(self, name: str) -> Any:
        try:
            return self._group[name]
        except KeyError:
            raise AttributeError(f"the param group has no hyperparameter {name!r}") from None


Rule: TypeAlias = Callable[[Operands, Hyperparameters], None]


@dataclass(frozen=True)
class Slot:
    """A tensor of state, shaped like the parameter and zero at first.

    Attributes:
        name: its key in the optimizer's state; torch.optim's where torch has one.
        signed: whether it can be negative; what is not needs no sign in compressed storage.
    """

    name: str
    signed: bool = True


@dataclass(frozen=True, eq=False)
class Stage:
    """One word of a sentence. Stages are compared by identity, so that a sentence is a cheap key.

    Attributes:
        rule: assigns the operands it changes.
        slots: the state it keeps.
        counts: whether it reads `t.step`.
    """

    rule: Rule
    slots: tuple[Slot, ...] = ()
    counts: bool = False

    def __repr__(self) -> str:
        return self.rule.__name__


Sentence: TypeAlias = tuple[Stage, ...]
Words: TypeAlias = tuple[Stage | float, ...]
"""What a named optimizer returns: stages, where a 0 or False stands for a stage left out."""


def stage(*slots: Slot, counts: bool = False) -> Callable[[Rule], Stage]:
    """Make a rule a stage.

    Args:
        slots: the state it keeps.
        counts: whether it reads `t.step`.

    Returns:
        The decorator.
    """
    return lambda rule: Stage(rule, slots, counts)


def compose(words: Iterable[Stage | float]) -> Sentence:
    """The sentence without the words left out: `weight_decay and decoupled_decay` is 0 where there is no decay."""
    return tuple([word for word in words if isinstance(word, Stage)])


@functools.cache
def slots_of(sentence: Sentence) -> tuple[Slot, ...]:
    """The state a sentence keeps, each slot once, in order."""
    return tuple(dict.fromkeys(slot for word in sentence for slot in word.slots))


@functools.cache
def is_counted(sentence: Sentence) -> bool:
    """Whether a stage of the sentence reads the number of the update."""
    return any(word.counts for word in sentence)
