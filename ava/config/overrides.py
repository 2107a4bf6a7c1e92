"""What stands on the command line: Hydra's override grammar, checked before anything is composed.

`key=value`, `group=option`, `+key=value`, `~key`, and in sweeps `key=a,b`, `choice()`, `range()`, `glob()`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType, QuotedString, ValueType
from hydra.errors import HydraException

from ava.config import words
from ava.config.schema import PARTS, SECTIONS
from ava.errors import InputError, nearest

_MAX_BRACKETS = 100
_INSTEAD = {
    "hydra.run": "Use `run_dir=...` for the run's directory.",
    "hydra.sweep": "Use `sweep.dir=...` and `sweep.jobs=...`.",
    "hydra.launcher": "Use `sweep.jobs=...` to run several jobs at a time.",
    "hydra.sweeper": "Use `-m key=a,b` with `sweep.dir=...` and `sweep.jobs=...`.",
    "hydra.searchpath": "Use `--config-dir DIR`.",
}


def parse(overrides: Sequence[str], *, sweep: bool = False, loader: ConfigLoader | None = None) -> list[Override]:
    """Parse overrides.

    Args:
        overrides: as they stand on the command line.
        sweep: whether a key may have several values.
        loader: what `glob()` in a sweep looks into.

    Raises:
        InputError: one is not written as an override, belongs to Hydra itself, or sweeps where nothing is swept.
    """
    parser = OverridesParser.create(config_loader=loader)
    parsed = [_parse_one(parser, override) for override in overrides]
    for override in parsed:
        _refuse_hydra(override)
        if override.is_sweep_override() and not sweep:
            key, value = override.key_or_group, override.get_value_string()
            is_plain = override.value_type == ValueType.SIMPLE_CHOICE_SWEEP
            hint = "Add -m to run one job for each value" + (
                f", or write '{key}=[{value}]' for a list." * is_plain or "."
            )
            raise InputError("several values for one run.", key=key, value=value, hint=hint)
    return parsed


def _parse_one(parser: OverridesParser, override: str) -> Override:
    if override.startswith("-"):
        raise InputError(f"`{override}` is no option of this command.", hint="See --help.")
    key, _, value = override.partition("=")
    if not key.strip().strip("+~"):
        raise InputError(f"`{override}` is no override: it names no key.", hint="Write `key=value`; see --help.")
    if "=" not in override and not override.startswith("~"):
        raise InputError(f"`{override}` is no override.", hint=f"Write `{override}=...`; see --help.")
    if sum(map(override.count, "[{(")) > _MAX_BRACKETS:
        raise InputError(f"has more than {_MAX_BRACKETS} brackets.", key=key, value=value)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Hydra's advice on escaping; a bad value is told of below
            return parser.parse_overrides([override])[0]
    except (HydraException, ValueError, TypeError) as error:
        reason = " ".join(re.sub(r"Error parsing override '.*'\n", "", str(error)).split("\n")[0].split())[:120]
        if "LexerNoViableAlt" in reason:
            reason = "it holds a character that needs quotes"
        quoted = value if value.isprintable() and len(value) < 60 and not set(value) & set("\"'\\[{(") else "..."
        raise InputError(
            f"cannot be read ({reason}).", key=key, value=value, hint=f"Quote what is special: '{key}=\"{quoted}\"'."
        ) from None


def _refuse_hydra(override: Override) -> None:
    key = override.key_or_group.replace("/", ".")
    if key != "hydra" and not key.startswith("hydra.") and not (override.package or "").startswith("hydra"):
        return
    hint = _INSTEAD.get(".".join(key.split(".")[:2]), "See --help for the keys there are.")
    raise InputError(
        "Hydra's own settings are not used here.", key=override.key_or_group, value=_shown(override), hint=hint
    )


def named_plugins(overrides: Sequence[Override]) -> list[str]:
    """Read which plugin modules the command line names: they are imported before anything is composed.

    Raises:
        InputError: `plugins` is no list of module names.
    """
    named: list[str] = []
    for override in overrides:
        if override.key_or_group != "plugins" or override.is_delete():
            continue
        value = [] if override.is_sweep_override() else override.value()
        if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
            hint = f"Write `plugins=[{value if isinstance(value, str) and value else 'my_package.my_module'}]`."
            raise InputError("must be a list of modules.", key="plugins", value=_shown(override), hint=hint)
        named = [str(name) for name in value]
    return named


def for_hydra(
    overrides: Sequence[Override], is_group: Callable[[str], bool], options: Callable[[str], list[str]]
) -> list[str]:
    """Spell overrides for Hydra, after checking the groups among them.

    Plain values are spelled `++key=value`, so that Hydra adds what it does not know and the validation, which knows
    every key, tells what is unknown.

    Args:
        overrides: parsed overrides.
        is_group: whether a name is a configuration group.
        options: group -> what can be chosen in it.

    Raises:
        InputError: a group has no such option.
    """
    lines = []
    for override in overrides:
        line = override.input_line or ""
        if override.package is not None:
            problem = "a group cannot be put in another place."
            raise InputError(problem, key=f"{override.key_or_group}@{override.package}", value=_shown(override))
        if is_group(override.key_or_group) and not isinstance(override.value(), dict):
            _check_option(override, options(override.key_or_group))
            if override.value() is None and not override.is_delete():
                continue  # nothing chosen, as in `experiment=null`
        elif override.type in (OverrideType.CHANGE, OverrideType.ADD):
            if "/" in override.key_or_group:
                raise InputError("there is no such group.", key=override.key_or_group, value=_shown(override))
            _check_section(override)
            _check_chosen(override, options)
            line = "++" + line.lstrip("+")
        lines.append(line)
    return lines


def _check_section(override: Override) -> None:
    value = override.value()
    if override.key_or_group in (*SECTIONS, *PARTS) and not isinstance(value, dict):
        key = override.key_or_group
        problem = f"is a section with keys, not {words.kind(value)}."
        raise InputError(problem, key=key, value=_shown(override), hint=f"Say `{key}.<key>=...`.")


def _check_chosen(override: Override, options: Callable[[str], list[str]]) -> None:
    """Refuse to put another part's name over the options of the one that was chosen."""
    group, _, key = override.key_or_group.partition(".")
    if key == "name" and group in PARTS and str(override.value()) in options(group):
        problem = "a part is chosen with its own options, not by its name alone."
        raise InputError(
            problem, key=f"{group}.name", value=_shown(override), hint=f"Write `{group}={_shown(override)}`."
        )


def _check_option(override: Override, options: list[str]) -> None:
    value = override.value()
    if override.key_or_group in (*SECTIONS, *PARTS) and isinstance(value, list | None) and not override.is_delete():
        problem = f"must be one option: {', '.join(options)}."
        raise InputError(problem, key=override.key_or_group, value=_shown(override))
    for name in value if isinstance(value, list) else [] if value is None else [value]:
        if str(name) not in options and not override.is_sweep_override():
            raise InputError(
                f"there is no such option; `{override.key_or_group}` can be: {', '.join(options) or 'nothing yet'}.",
                key=override.key_or_group, value=name, hint=nearest(str(name), options),
            )  # fmt: skip


def _shown(override: Override) -> Any:
    value = override.get_value_string() if override.value_type is not None else override.value()
    return value.text if isinstance(value, QuotedString) else value
