"""Checks options against the annotations of their parameters, as the configuration would."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt

from ava.errors import InputError, nearest

_SIGNS = {Gt: ("above", "gt"), Ge: ("at least", "ge"), Lt: ("below", "lt"), Le: ("at most", "le")}


def check(name: str, value: Any, annotation: Any) -> Any:
    """The value as the annotation's type.

    Args:
        name: the option, for the message.
        value: what was given.
        annotation: from the annotations that `ava.registry` knows.

    Returns:
        The value; a list is made the tuple that is asked for, a whole number a float.

    Raises:
        InputError: the value is not allowed; says what is.
    """
    if not _is_allowed(value, annotation):
        raise InputError(f"must be {describe(annotation)}.", key=name, value=value)
    return _convert(value, annotation)


def check_all(whose: str, options: Mapping[str, Any], annotations: Mapping[str, Any]) -> dict[str, Any]:
    """The options as their annotations' types.

    Args:
        whose: for the message, such as "clip norm".
        options: what was given.
        annotations: of all options that there are.

    Raises:
        InputError: there is no such option, or the value is not allowed.
    """
    for key in options:
        if key not in annotations:
            problem = f"{whose} has no option {key!r}; it has: {', '.join(annotations) or 'none'}."
            raise InputError(problem, hint=nearest(key, annotations))
    return {key: check(key, value, annotations[key]) for key, value in options.items()}


def describe(annotation: Any) -> str:
    """What an annotation allows, in words."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        limits = [f"{_SIGNS[type(m)][0]} {getattr(m, _SIGNS[type(m)][1])}" for m in arguments[1:] if type(m) in _SIGNS]
        return " ".join([describe(arguments[0]), " and ".join(limits)]).strip()
    if origin is Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if origin is tuple and arguments[1:] == (Ellipsis,):
        return f"a list, each {describe(arguments[0])}"
    if origin is dict:
        return "a mapping"
    if origin is tuple:
        words = list(map(describe, arguments))
        return f"{len(words)} values, " + (f"each {words[0]}" if len(set(words)) == 1 else ", ".join(words))
    if origin in (types.UnionType, typing.Union):
        return " or ".join(map(describe, arguments))
    plain = {float: "a finite number", int: "a whole number", bool: "true or false", str: "a text"}
    return plain.get(annotation, "null" if annotation is types.NoneType else str(annotation))


def _is_allowed(value: Any, annotation: Any) -> bool:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _is_allowed(value, arguments[0]) and all(_is_within(value, limit) for limit in arguments[1:])
    if origin is Literal:
        return value in arguments
    if origin is tuple and arguments[1:] == (Ellipsis,):
        return isinstance(value, tuple | list) and all(_is_allowed(item, arguments[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict)
    if origin is tuple:
        fits = isinstance(value, tuple | list) and len(value) == len(arguments)
        return fits and all(map(_is_allowed, value, arguments))
    if origin in (types.UnionType, typing.Union):
        return any(_is_allowed(value, argument) for argument in arguments)
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return annotation is Any or isinstance(value, annotation)


def _is_within(value: Any, limit: Any) -> bool:
    match limit:
        case Gt(gt):
            return bool(value > gt)
        case Ge(ge):
            return bool(value >= ge)
        case Lt(lt):
            return bool(value < lt)
        case Le(le):
            return bool(value <= le)
    return True


def _convert(value: Any, annotation: Any) -> Any:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _convert(value, arguments[0])
    if origin is tuple:
        each = arguments[:1] * len(value) if arguments[1:] == (Ellipsis,) else arguments
        return tuple(map(_convert, value, each))
    if origin in (types.UnionType, typing.Union) and value is not None:
        return _convert(value, next(a for a in arguments if _is_allowed(value, a)))
    return float(value) if annotation is float else value
