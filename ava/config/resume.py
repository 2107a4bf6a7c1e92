"""Which run a command continues, and with what configuration.

A resumed run keeps its saved configuration; only what the command line names is replaced. Its plugins have to be
named again: a file never imports code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override

from ava.checkpoint.folder import latest, resolve
from ava.config import overrides as overriding
from ava.config.compose import Composed, checked, compose_raw
from ava.config.paths import OUTPUTS
from ava.config.places import told_of
from ava.config.saved import FILE, differences, load_saved, read_saved, same_run
from ava.config.schema import PARTS, SECTIONS, Config, ResumePlan
from ava.errors import InputError

_SHORT = {"path": "data.path", "clip": "trainer.clip"}
"""Keys that stand for others."""
_OF_THE_RUN = ("run_dir", "resume", "experiment")
"""Keys that say where and what is continued, rather than how it trains."""


def prepare(overrides: Sequence[str], config_dirs: Sequence[Path] = ()) -> tuple[Config, ResumePlan | None]:
    """Compose and check the configuration of a run, new or resumed.

    Args:
        overrides: as they stand on the command line.
        config_dirs: the user's directories of configuration files.

    Returns:
        The configuration, and from where to continue; None starts anew.

    Raises:
        InputError: something in it cannot be, or there is nothing to resume.
    """
    composed = compose_raw(overrides, config_dirs)
    asked, run_dir = composed.resolved.get("resume"), composed.resolved.get("run_dir")
    if not isinstance(asked, str) or not isinstance(run_dir, str | None):
        return checked(composed.resolved), None
    if asked == "auto":
        with told_of("run_dir", run_dir):
            checkpoint = latest(Path(run_dir) / "checkpoints") if run_dir else _newest(checked(composed.resolved))
        if checkpoint is None:
            return checked(composed.resolved), None
    else:
        with told_of("resume", asked):
            checkpoint = resolve(Path(asked))
    return _continue(checkpoint, composed, overrides, config_dirs)


def _continue(
    checkpoint: Path, composed: Composed, overrides: Sequence[str], config_dirs: Sequence[Path]
) -> tuple[Config, ResumePlan]:
    """Continue from a checkpoint, in its run's directory unless another one is named."""
    own = checkpoint.absolute().parent.parent
    asked, named = composed.resolved["resume"], composed.resolved.get("run_dir")
    if not (own / FILE).is_file():
        problem = f"is a checkpoint, but there is no {FILE} of its run in {own}."
        raise InputError(problem, key="resume", value=asked, hint="Keep a checkpoint in its run directory.")
    config = resumed(own / FILE, overrides, config_dirs)
    run_dir = own if named is None else Path(named)
    plan = ResumePlan(checkpoint, run_dir, new_run=run_dir.resolve() != own.resolve())
    return dataclasses.replace(config, run_dir=str(run_dir), resume=asked), plan


def resumed(saved: Path, overrides: Sequence[str], config_dirs: Sequence[Path] = ()) -> Config:
    """Take a saved configuration, with only what the command line names replaced.

    Args:
        saved: the `config.yaml` of the run.
        overrides: as they stand on the command line.
        config_dirs: the user's directories of configuration files.

    Raises:
        InputError: it changes the task, an experiment changes the run, or plugins of the run are not named.
    """
    raw = read_saved(saved)
    _require_plugins(raw.get("plugins"), overrides)
    compose_raw([o for o in overrides if o.startswith("plugins=")], config_dirs)
    config = load_saved(saved)
    named = compose_raw(overrides, config_dirs, base=_choices(config))
    tree = config.as_dict()
    for override in named.overrides:
        _apply(override, tree, named)
    merged = checked(tree)
    merged = _with_found_lr(config, merged, named)
    if any(override.key_or_group == "experiment" for override in named.overrides):
        _refuse_change(saved, merged, checked(compose_raw(overrides, config_dirs).resolved))
    return merged


def _with_found_lr(saved: Config, merged: Config, named: Composed) -> Config:
    """The rates that the run found, in place of those from which it looked; others only where they are named.

    `resume=auto` says the command that began the run again, with the rates from which that looked.

    Raises:
        InputError: a run that has begun is to look for its rate.
    """
    if not saved.lr_finder.enabled:
        if merged.lr_finder.enabled:
            problem = "a run looks for its learning rate before its first step, and this one has begun."
            hint = "`ava-find-lr resume=...` tests it as it stands."
            raise InputError(problem, key="lr_finder.enabled", value=True, hint=hint)
        return merged
    keys = {override.key_or_group for override in named.overrides}
    if merged.optimizer.name != saved.optimizer.name:
        return merged
    again = named.resolved.get("resume") == "auto"
    kept = [key for key in ("lr", "groups") if again or f"optimizer.{key}" not in keys]
    found = {key: saved.optimizer.options[key] for key in kept}
    part = dataclasses.replace(merged.optimizer, options=merged.optimizer.options | found)
    return dataclasses.replace(merged, optimizer=part)


def _apply(override: Override, tree: dict[str, Any], named: Composed) -> None:
    """Put what one override names into the saved configuration."""
    key = override.key_or_group
    if key in _OF_THE_RUN:
        return
    if key == "task" and key in named.groups:
        _refuse_other_task(override, tree, named)
        return
    path = _SHORT.get(key, key).split(".")
    source: Any = named.resolved
    target = tree
    for step in path[:-1]:
        source, target = source.get(step, {}), target.setdefault(step, {})
    if path[-1] in source:
        target[path[-1]] = source[path[-1]]
    else:
        target.pop(path[-1], None)


def _choices(config: Config) -> list[str]:
    """Spell the choices that a saved configuration made, for composing what the command line names beside them."""
    chosen = [f"{group}={getattr(config, group).name}" for group in PARTS]
    return chosen + [
        f"{group}={getattr(config, group).name}" for group, cls in SECTIONS.items() if hasattr(cls, "name")
    ]


def _require_plugins(needed: Any, overrides: Sequence[str]) -> None:
    named = overriding.named_plugins(overriding.parse(overrides))
    missing = [str(plugin) for plugin in needed or [] if plugin not in named] if isinstance(needed, list) else []
    if missing:
        raise InputError(
            f"the run needs the plugins {', '.join(missing)}, which a file cannot import.",
            hint=f"Add `plugins=[{','.join(map(str, needed))}]`.",
        )


def _refuse_other_task(override: Override, tree: dict[str, Any], named: Composed) -> None:
    asked, saved = named.resolved["task"]["name"], tree["task"]["name"]
    if asked != saved:
        problem = f"a run cannot change its task; it was started with task={saved}."
        raise InputError(problem, key="task", value=override.value(), hint="Leave it out, or start a new run.")


def _refuse_change(saved: Path, merged: Config, composed: Config) -> None:
    changed = differences(merged, composed)
    if changed:
        raise InputError(
            f"experiment=... is not what {saved} was started with; it would change {', '.join(changed[:5])}.",
            hint="Leave the experiment out, and name the keys to change.",
        )


def _newest(config: Config) -> Path | None:
    """Find the newest run below outputs that has this configuration and a checkpoint."""
    candidates = [*OUTPUTS.glob(f"*/*/{FILE}"), *OUTPUTS.glob(f"*/*/*/{FILE}")]
    for file in sorted(candidates, key=lambda path: path.stat().st_mtime, reverse=True):
        checkpoint = latest(file.parent / "checkpoints")
        try:
            if checkpoint is not None and same_run(load_saved(file), config):
                return checkpoint
        except InputError:
            continue  # a run of another version, or one with plugins that this command does not name
    return None
