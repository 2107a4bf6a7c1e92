"""From plain dicts to a checked `Config`: every key, type and range, before anything is built.

A section is a table `key -> (annotation, default)`, be it a dataclass of the schema or the signature of a
registered part. Checking is strict: `True` is no number, `"12"` is no number, 3.0 is no whole number, NaN
and infinity are refused, a list stands for a tuple, and an unknown key is an error that names the nearest one.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from ava import registry
from ava.config import names, words
from ava.config.schema import PARTS, SECTIONS, Config, Part
from ava.errors import InputError, nearest

Fields = Mapping[str, tuple[Any, Any]]

MISSING = "???"
"""How a configuration file spells a value that the user has to give."""


def validate(raw: Mapping[str, Any]) -> Config:
    """Check a composed configuration and give it its types.

    Args:
        raw: plain nested dicts and lists, interpolations resolved.

    Raises:
        InputError: something in it is unknown, missing, of a wrong type or out of range.
    """
    problems: list[InputError] = []
    tables = {section: fields_of(cls) for section, cls in SECTIONS.items()} | _part_tables(raw, problems)
    if problems:
        raise gather(problems)
    suggest = functools.partial(names.suggest, tables=tables, root=list(root_fields()))
    sections = [*SECTIONS, *PARTS]
    root = check_fields("", root_fields(), {k: v for k, v in raw.items() if k not in sections}, problems, suggest)
    values = {
        section: check_fields(section, tables[section], _options(raw, section), problems, suggest)
        for section in sections
    }
    _check_names(root.get("logger", ()), values["trainer"].get("clip"), problems)
    if problems:
        raise gather(problems)
    owned: dict[str, Any] = {section: cls(**values[section]) for section, cls in SECTIONS.items()}
    parts: dict[str, Any] = {section: Part(raw[section]["name"], values[section]) for section in PARTS}
    return Config(**root, **owned, **parts)


def fields_of(cls: type[Any]) -> dict[str, tuple[Any, Any]]:
    """Read the table of a dataclass; a field without a plain default has `registry.REQUIRED`."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {f.name: (hints[f.name], _default(f)) for f in dataclasses.fields(cls)}


def _default(f: dataclasses.Field[Any]) -> Any:
    if f.default_factory is not dataclasses.MISSING:
        return f.default_factory()
    return registry.REQUIRED if f.default is dataclasses.MISSING else f.default


@functools.cache
def root_fields() -> dict[str, tuple[Any, Any]]:
    """Read the table of the root keys that are no sections."""
    return {key: field for key, field in fields_of(Config).items() if key not in SECTIONS and key not in PARTS}


def check_fields(
    section: str,
    fields: Fields,
    given: Mapping[str, Any],
    problems: list[InputError],
    suggest: Callable[[str], str | None],
) -> dict[str, Any]:
    """Check what a section says against its table; what is wrong is added to `problems`.

    Args:
        section: its key, "" for the root.
        fields: key -> (annotation, default).
        given: what the configuration says.
        problems: receives one error for each bad key.
        suggest: full unknown key -> the sentence that names the nearest known one.

    Returns:
        key -> value of the annotated type, defaults filled in.
    """
    path = f"{section}." if section else ""
    values: dict[str, Any] = {}
    for key in given:
        if key not in fields:
            problems.append(_unknown(section, key, given[key], fields, suggest))
    for key, (annotation, default) in fields.items():
        value = given.get(key, MISSING)
        if value == MISSING:
            if default is registry.REQUIRED:
                problem = f"{path}{key} has to be given: {words.allowed(annotation)}."
                problems.append(InputError(problem, hint=f"Add `{path}{key}=...`."))
            values[key] = default
            continue
        try:
            values[key] = _check_value(annotation, value)
        except InputError as error:
            problems.append(error.at(f"{path}{key}", value))
    return values


def _unknown(
    section: str, key: object, value: object, fields: Fields, suggest: Callable[[str], str | None]
) -> InputError:
    full = f"{section}.{key}" if section else str(key)
    while isinstance(value, Mapping) and len(value) == 1:
        (inner, value), *_ = value.items()
        full = f"{full}.{inner}"
    known = list(fields) if section else [*fields, *SECTIONS, *PARTS]
    hint = suggest(full) or f"There are: {', '.join(known) or 'none'}."
    if full.endswith("_target_"):
        hint = "Nothing is built by its path; parts are chosen by name."
    return InputError(f"there is no such key{f' in `{section}`' if section else ''}.", key=full, value=value, hint=hint)


def gather(problems: Sequence[InputError], limit: int = 5) -> InputError:
    """One error that tells of all problems, a line each."""
    if len(problems) == 1:
        return problems[0]
    lines = [f"  {problem}" for problem in problems[:limit]]
    if len(problems) > limit:
        lines.append(f"  and {len(problems) - limit} more.")
    return InputError("\n".join([f"{len(problems)} problems in the configuration:", *lines]))


def _check_value(annotation: Any, value: Any) -> Any:
    """The value, with its annotated type."""
    # A whole number beyond float's range is no finite number either, which JSON cannot say.
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"must be {words.allowed(annotation)}, not {words.kind(value)}.")
    try:
        text = json.dumps(value, default=str)
        return _adapter(annotation).validate_json(text, strict=True)
    except ValidationError:
        wanted = words.allowed(annotation)
        is_bare = wanted.startswith("a list") and "mapping" not in wanted and isinstance(value, str)
        hint = f"Write it as [{value}]." if is_bare else None
        odd = f", not {words.kind(value)}" if words.is_other_kind(value, wanted) else ""
        raise InputError(f"must be {wanted}{odd}.", hint=hint) from None


@functools.cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(annotation, config=ConfigDict(allow_inf_nan=False))
    except PydanticUserError as error:
        if error.code == "type-adapter-config-unused":
            return TypeAdapter(annotation)  # the type brings a configuration of its own
        raise InputError(f"its annotation {annotation} cannot be checked ({type(error).__name__}).") from None


def _options(raw: Mapping[str, Any], section: str) -> Mapping[str, Any]:
    """What the configuration says about a section, less the name of its part."""
    given: Mapping[str, Any] = raw.get(section, {})
    return {key: value for key, value in given.items() if not (section in PARTS and key == "name")}


def _part_tables(raw: Mapping[str, Any], problems: list[InputError]) -> dict[str, Fields]:
    """The table of each section that a registered part owns."""
    for section in [*SECTIONS, *PARTS]:
        given = raw.get(section, {} if section in SECTIONS else None)
        if given is None:
            problems.append(InputError(f"`{section}` has to be chosen.", hint=f"Add `{section}=...`."))
        elif not isinstance(given, Mapping):
            problem = f"is a section with keys, not {words.kind(given)}."
            problems.append(InputError(problem, key=section, value=given, hint=f"Say `{section}.<key>=...`."))
    tables: dict[str, Fields] = {}
    if problems:
        return tables
    for section, parts in PARTS.items():
        name = raw[section].get("name")
        try:
            if any(part.shared and part.shared >= raw[section].keys() for part in parts):
                problems.append(InputError(f"`{section}` has to be chosen.", hint=f"Add `{section}=...`."))
                continue
            if not isinstance(name, str):
                raise InputError(f"must be the name of a {parts.sort}: one of: {', '.join(parts.names())}.")
            tables[section] = parts[name].parameters
        except InputError as error:
            problems.append(error.at(f"{section}.name", name))
    return tables


def _check_names(loggers: Sequence[str], clip: str | None, problems: list[InputError]) -> None:
    """The registered names that stand alone, without options of their own."""
    asked = [("logger", registry.logger, name) for name in loggers or ()]
    asked += [("trainer.clip", registry.clip, clip)] if isinstance(clip, str) else []
    for key, parts, name in asked:
        if name not in parts:
            known = parts.names()
            problem = f"must be one of: {', '.join(known)}."
            problems.append(InputError(problem, key=key, value=name, hint=nearest(name, known)))
