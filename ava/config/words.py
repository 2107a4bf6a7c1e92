"""Annotations in words: what an error message says is allowed."""

from __future__ import annotations

import math
import re
import types
import typing
from pathlib import Path
from typing import Any, Literal, Union

from annotated_types import Ge, Gt, Le, Lt, MinLen

_PLAIN = {
    bool: "true or false", int: "a whole number", float: "a number", str: "a text", Path: "a path",
    type(None): "null", dict: "a mapping", list: "a list", tuple: "a list", Any: "anything",
}  # fmt: skip


def allowed(annotation: Any) -> str:
    """Say in words what an annotation allows: "a number > 0", "one of: fp32, bf16", "a list of 2, each a number"."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return allowed(arguments[0]) + _bounds(annotation.__metadata__)
    if origin is Literal:
        return "one of: " + ", ".join(map(str, arguments))
    if origin in (Union, types.UnionType):
        return " or ".join(allowed(argument) for argument in arguments)
    if origin is tuple:
        return _sequence(arguments)
    if origin is list:
        return f"a list, each {allowed(arguments[0])}"
    if origin is dict:
        return "a mapping" if arguments[1] is Any else f"a mapping, each value {allowed(arguments[1])}"
    return _PLAIN.get(origin or annotation, str(annotation))


def _sequence(items: tuple[Any, ...]) -> str:
    if items[-1] is Ellipsis:
        return f"a list, each {allowed(items[0])}"
    if len(set(items)) == 1:
        return f"a list of {len(items)}, each {allowed(items[0])}"
    return f"a list of {len(items)}: " + ", ".join(allowed(item) for item in items)


def _bounds(metadata: tuple[Any, ...]) -> str:
    words = []
    for bound in metadata:
        for kind, sign, field in ((Gt, ">", "gt"), (Ge, ">=", "ge"), (Lt, "<", "lt"), (Le, "<=", "le")):
            if isinstance(bound, kind):
                words.append(f"{sign} {getattr(bound, field)}")
        if isinstance(bound, MinLen):
            words.append("that is not empty")
    return f" {' and '.join(words)}" if words else ""


def is_other_kind(value: object, wanted: str) -> bool:
    """Judge whether saying what a value is helps: `"12"` is a text where a number is wanted; 3 for > 5 is a number."""
    if isinstance(value, bool):
        return True
    if isinstance(value, int | float):
        is_among_numbers = "number" in wanted or re.search(r"one of: [\d.]+\b", wanted) is not None
        return not is_among_numbers or (isinstance(value, float) and not math.isfinite(value))
    if isinstance(value, dict):
        return "mapping" not in wanted
    return not (isinstance(value, str) and ("one of" in wanted or "text" in wanted)) and kind(value) not in wanted


def kind(value: object) -> str:
    """Say what a value is, for "must be a number > 0, not ..."."""
    if value is None:
        return "null"
    if isinstance(value, float) and not math.isfinite(value):
        return "a number that is not finite"
    for sort, name in ((bool, "true or false"), (int, "a whole number"), (float, "a fraction"), (str, "a text")):
        if isinstance(value, sort):
            return name
    return "a section" if isinstance(value, dict) else "a list"
