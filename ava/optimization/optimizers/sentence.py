"""An optimizer is a sentence of stages.

Lion, in words: interpolate momentum and gradient, take the sign, decay the weights, subtract. As a sentence:

    (interpolate, to_sign, decoupled_decay, descend)

A stage is one such word: a rule over the operands of a parameter, written in ordinary arithmetic,

    @stage("moments", Slot("exp_avg"))
    def interpolate(t, h):
        beta1, beta2 = h.betas
        t.u = beta1 * t.exp_avg + (1 - beta1) * t.g
        t.exp_avg = beta2 * t.exp_avg + (1 - beta2) * t.g

and the state it keeps (its slots). The rule does not know what its operands are: torch tensors, or symbols whose
operations an engine records once and prints as a kernel. So one source serves every engine, and none of this needs
torch.

The operands, `t`:

    t.p     the parameter; assign the new value
    t.g     the gradient; gradient stages assign it anew, the caller's `p.grad` is never written
    t.u     the update in the making: what moments leave, directions turn, gates and trust scale, `descend` subtracts
    t.den   what `divide` divides `t.u` by, if the moments leave it (eps not yet added)
    t.lr    the learning rate of this update, at first `h.lr`
    t.step  this update's number, from 1; a stage that reads it says `counts=True`
    t.NAME  a slot, before the stage that owns it has assigned it: the value of the last step
    t.size, t.rows, t.cols  how many elements; seen as a matrix, the first dimension and the others' product

and what reduces them, each over one parameter (all shards of it):

    t.sum(x), t.mean(x)                one number
    t.row_mean(x), t.col_mean(x)       over the columns of each row, over the rows of each column; they broadcast
    t.random(stream)                   numbers in [0, 1) from a counter: the same for the same seed, step and place
    t.apply(function, x, ...)          a function of whole tensors (a matrix product), which no kernel can print; what
                                       is not of the parameter's shape goes in, and comes out, in a list

A stage whose rule needs a sum over the elements of *all* parameters says `totals=("NAME", ...)`: what an earlier stage
left in `t.NAME` is that sum by the time the rule runs.

The hyperparameters, `h`, are the live param group: `h.lr`, `h.betas`, under torch.optim's names. Any schedule can
move any of them between two steps.

Rules are pure: assign (`t.g = t.g + x`), never augment (`t.g += x`), for that would write into the operand itself.
They branch on nothing numeric (`arithmetic.where` chooses). Which stages a sentence has may depend on the options, and
is the business of the named optimizer (`adamw.py`, `lion.py`) and, for the options that all share, of
`composition.py`; both are asked anew when an option changes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

Part: TypeAlias = Literal["gradient", "moments", "direction", "gate", "trust", "decay", "write", "constraint"]
Shape: TypeAlias = Literal["full", "row", "column", "left", "right", "scalar", "optimizer"]


Operand: TypeAlias = Any
"""A number, a tensor or a symbol: arithmetic and comparison; functions are in `arithmetic.py`."""


class Space(Protocol):
    """What an engine lends to the operands of one parameter."""

    def sum(self, x: Any) -> Any:
        """The sum over the parameter's elements."""
        ...

    def row_mean(self, x: Any) -> Any:
        """The mean of each row, kept as a column of width 1."""
        ...

    def col_mean(self, x: Any) -> Any:
        """The mean of each column, kept as a row of height 1."""
        ...

    def random(self, stream: int) -> Any:
        """Uniform numbers, one an element; another stream gives others."""
        ...

    def apply(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """A function of whole tensors; those in lists are not shards of the parameter's shape."""
        ...


class Operands:
    """One parameter's operands, by name: `t` of a rule."""

    def __init__(self, space: Space, **operands: Any) -> None:
        self.__dict__.update(operands)
        self._space = space

    def sum(self, x: Any) -> Any:
        """The sum over the parameter's elements."""
        return self._space.sum(x)

    def mean(self, x: Any) -> Any:
        """The mean over the parameter's elements."""
        return self._space.sum(x) / self.size

    def row_mean(self, x: Any) -> Any:
        """The mean of each row: over all dimensions but the first; of one dimension, over all."""
        return self._space.row_mean(x)

    def col_mean(self, x: Any) -> Any:
        """The mean of each column: over the first dimension."""
        return self._space.col_mean(x)

    def random(self, stream: int = 0) -> Any:
        """Uniform numbers in [0, 1), one an element."""
        return self._space.random(stream)

    def apply(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """A function of whole tensors; a sentence with one is run by the reference engine."""
        return self._space.apply(function, *arguments)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...


class Hyperparameters:
    """A param group read by attribute: `h` of a rule."""

    __slots__ = ("_group",)

    def __init__(self, group: Mapping[str, Any]) -> None:
        self._group = group

    def __getattr__(self, name: str) -> Any:
        try:
            return self._group[name]
        except KeyError:
            raise AttributeError(f"the param group has no hyperparameter {name!r}") from None


Rule: TypeAlias = Callable[[Operands, Hyperparameters], None]


@dataclass(frozen=True)
class Slot:
    """A tensor of state.

    Attributes:
        name: its key in the optimizer's state; torch.optim's where torch has one.
        signed: whether it can be negative; what is not needs no sign in compressed storage.
        shape: "full" is the parameter's; "row" (rows, 1, ...) and "column" (1, cols) of the parameter seen as a
            matrix; "left" (rows, rows) and "right" (cols, cols); "scalar" is one number a parameter, "optimizer"
            one for all parameters, kept in the param groups.
        start: its value before the first step: a number, the name of a hyperparameter, or "p", the parameter's value.
        exact: it is never compressed, because what is lost would be lost to the weights.
        limit: of "left" and "right": the hyperparameter above which the side is left out: no elements are kept.
    """

    name: str
    signed: bool = True
    shape: Shape = "full"
    start: float | str = 0.0
    exact: bool = False
    limit: str | None = None


@dataclass(frozen=True, eq=False)
class Stage:
    """One word of a sentence. Stages are compared by identity, so that a sentence is a cheap key.

    Attributes:
        rule: assigns the operands it changes.
        part: where in a sentence it stands.
        slots: the state it keeps.
        counts: whether it reads `t.step`.
        totals: operands that are summed over all parameters before the rule runs.
        variants: option -> the stage that takes this one's place when the option is set.
    """

    rule: Rule
    part: Part
    slots: tuple[Slot, ...] = ()
    counts: bool = False
    totals: tuple[str, ...] = ()
    variants: Mapping[str, Stage] = field(default_factory=dict)

    def __repr__(self) -> str:
        return self.rule.__name__


Sentence: TypeAlias = tuple[Stage, ...]
Words: TypeAlias = "tuple[Stage | float | None, ...]"
"""What a named optimizer returns: stages, where a 0, False or None stands for a stage left out."""


@dataclass(frozen=True)
class ByShape:
    """Two routes: parameters of two or more dimensions follow one sentence, the others another."""

    matrices: Words
    others: Words


def stage(
    part: Part,
    *slots: Slot,
    counts: bool = False,
    totals: tuple[str, ...] = (),
    variants: Mapping[str, Stage] | None = None,
) -> Callable[[Rule], Stage]:
    """Make a rule a stage; the arguments are `Stage`'s."""
    return lambda rule: Stage(rule, part, slots, counts, totals, variants or {})


def compose(words: Iterable[Stage | float | None]) -> Sentence:
    """The sentence without the words left out: `weight_decay and decoupled_decay` is 0 where there is no decay."""
    return tuple([word for word in words if isinstance(word, Stage)])


@functools.cache
def slots_of(sentence: Sentence) -> tuple[Slot, ...]:
    """The state a sentence keeps, each slot once, in order."""
    return tuple(dict.fromkeys(slot for word in sentence for slot in word.slots))


@functools.cache
def own_slots(sentence: Sentence) -> tuple[Slot, ...]:
    """The slots that each parameter has of its own."""
    return tuple(slot for slot in slots_of(sentence) if slot.shape != "optimizer")


@functools.cache
def common_slots(sentence: Sentence) -> tuple[Slot, ...]:
    """The slots that all parameters share."""
    return tuple(slot for slot in slots_of(sentence) if slot.shape == "optimizer")


@functools.cache
def variants(sentence: Sentence, name: str) -> Sentence:
    """The variants of that name that a sentence's stages have, a sentence of their own; empty if none has one."""
    return tuple(word.variants[name] for word in sentence if name in word.variants)


@functools.cache
def is_counted(sentence: Sentence) -> bool:
    """Whether a stage of the sentence reads the number of the update."""
    return any(word.counts for word in sentence)
