"""`ava-train -m`: every combination of the values given, each run in its own process and directory.

Every combination is checked before the first one starts. A run that fails is recorded and the rest go on; at the
end stands a table, best first, also written as sweep.csv.
"""

from __future__ import annotations

import json
import os
import re
import textwrap
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override, Quote, QuotedString

from ava.cli.jobs import Job, Outcome, run_jobs
from ava.config import overrides as overriding
from ava.config.compose import compose
from ava.config.loader import make_loader
from ava.config.paths import default_sweep_dir
from ava.config.places import check_data_path, check_writable
from ava.config.plugins import load_plugins
from ava.config.schema import Config
from ava.errors import InputError
from ava.reporting.table import best_first, print_table, write_csv

MAX_RUNS = 1000


def sweep(overrides: Sequence[str], config_dirs: Sequence[Path]) -> int:
    """Run a sweep.

    Args:
        overrides: as they stand on the command line, some with several values.
        config_dirs: the user's directories of configuration files.

    Returns:
        The exit code: 0 if every run succeeded, 1 if one failed, 130 or 143 if it was interrupted.

    Raises:
        InputError: a combination cannot be; nothing has been started or made.
    """
    _refuse_ranks()
    combinations, swept = expand(overrides, config_dirs)
    configs = [_check(combination, config_dirs) for combination in combinations]
    settings = configs[0].sweep
    again = "resume=auto" in combinations[0]
    folder = default_sweep_dir(datetime.now()) if settings.dir is None else Path(settings.dir)
    _check_folder(folder, settings.dir, again=again)
    folder.mkdir(parents=True, exist_ok=True)
    flags = [flag for path in config_dirs for flag in ("--config-dir", str(path))]
    jobs = [_job(i, combination, swept, folder, flags) for i, combination in enumerate(combinations)]
    print(f"{len(jobs)} runs in {folder}, {settings.jobs} at a time", flush=True)
    outcomes, code = run_jobs(jobs, settings.jobs)
    rows = [_row(job, outcome) for job, outcome in zip(jobs, outcomes, strict=True)]
    _conclude(rows, folder)
    return code


def expand(overrides: Sequence[str], config_dirs: Sequence[Path] = ()) -> tuple[list[list[str]], list[str]]:
    """Write out every combination of a sweep.

    Args:
        overrides: as they stand on the command line: `key=a,b`, `choice()`, `range()`, `glob()`.
        config_dirs: the user's directories of configuration files.

    Returns:
        The overrides of each run, and the keys that differ between runs.

    Raises:
        InputError: too many runs, or a key that a sweep sets itself.
    """
    load_plugins(overriding.named_plugins(overriding.parse([o for o in overrides if o.startswith("plugins=")])))
    parsed = overriding.parse(overrides, sweep=True, loader=make_loader(config_dirs))
    total, swept = 1, []
    for override in parsed:
        _refuse_own_keys(override)
        if override.is_sweep_override():
            if not override.is_discrete_sweep():
                value = override.get_value_string()
                problem = "an interval has no end of values."
                raise InputError(problem, key=override.key_or_group, value=value, hint="Use range().")
            swept.append(override.key_or_group)
            total *= _count(override, MAX_RUNS // total + 1)
        if total > MAX_RUNS:
            raise InputError(f"more than {MAX_RUNS} runs in one sweep.", hint="Give fewer values.")
    (combinations,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    return combinations, swept


def _count(override: Override, limit: int) -> int:
    """The number of values of an override, counted no further than just above `limit`."""
    count = 0
    for _ in override.sweep_string_iterator():
        count += 1
        if count > limit:
            break
    if count == 0:
        raise InputError("matches nothing.", key=override.key_or_group, value=override.get_value_string())
    return count


def _refuse_own_keys(override: Override) -> None:
    key = override.key_or_group
    if key == "run_dir":
        hint = "Use sweep.dir=..., below which each run gets its own."
        raise InputError("one directory cannot hold many runs.", key=key, value=override.get_value_string(), hint=hint)
    if key in ("sweep", "plugins", "resume") or key.startswith("sweep."):
        if override.is_sweep_override():
            raise InputError("is the same for all runs.", key=key, value=override.get_value_string())
        if key == "resume" and override.value() not in (None, "auto"):
            problem = "many runs cannot continue one; must be auto or null."
            raise InputError(problem, key=key, value=override.get_value_string())


def _refuse_ranks() -> None:
    ranks = os.environ.get("WORLD_SIZE", "1")
    if ranks != "1" or "TORCHELASTIC_RUN_ID" in os.environ:
        raise InputError(
            f"-m cannot sweep inside torchrun: each of its {ranks} ranks would start the whole sweep.",
            hint="Start `ava-train -m ...` without torchrun, or torchrun without -m.",
        )


def _check(combination: Sequence[str], config_dirs: Sequence[Path]) -> Config:
    """The configuration of a run, as a new one: what it continues, if anything, is a matter of its own directory."""
    config = compose([o for o in combination if not o.startswith("resume=")], config_dirs)
    check_data_path(config)
    return config


def _check_folder(folder: Path, given: str | None, *, again: bool) -> None:
    check_writable("sweep.dir", given, folder)
    if folder.is_dir() and any(folder.iterdir()) and not again:
        hint = "Choose another one, or add resume=auto to go on with the sweep in it."
        raise InputError("is not empty.", key="sweep.dir", value=folder, hint=hint)


def _job(number: int, combination: Sequence[str], swept: Sequence[str], folder: Path, flags: Sequence[str]) -> Job:
    different = [o for o in combination if o.partition("=")[0].lstrip("+") in swept]
    words = re.sub(r"[^\w.=,+-]+", "_", ",".join(different))[:100]
    run_dir = folder / (f"{number}-{words}" if words else str(number))
    quoted = QuotedString(str(run_dir), Quote.single).with_quotes()
    shown = " ".join(different) or "(as given)"
    return Job(shown, [*flags, *combination, f"run_dir={quoted}"], run_dir, run_dir.with_name(run_dir.name + ".log"))


def _row(job: Job, outcome: Outcome) -> dict[str, Any]:
    """A line of the table: what a run came to."""
    summary = _summary(job.run_dir)
    monitor = summary.get("monitor")
    best = summary.get("best", {}).get(monitor, {}).get("value") if monitor else None
    return {
        "overrides": job.shown, "status": outcome.status, "metric": monitor, "mode": summary.get("mode"),
        "value": best, "loss": summary.get("loss"), "seconds": outcome.seconds, "exit code": outcome.code,
        "error": outcome.error, "run": str(job.run_dir),
    }  # fmt: skip


def _summary(run_dir: Path) -> dict[str, Any]:
    try:
        summary = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
        return summary if isinstance(summary, dict) else {}
    except (OSError, ValueError):
        return {}


def _conclude(rows: list[dict[str, Any]], folder: Path) -> None:
    """Show and write the table: best first by each metric, runs without a result last."""
    metrics = list(dict.fromkeys((row["metric"], row["mode"]) for row in rows if row["metric"]))
    ordered = [
        row
        for metric, mode in metrics
        for row in best_first([row for row in rows if row["metric"] == metric], "value", mode or "max")
    ]
    ordered += [row for row in rows if not row["metric"]]
    for row in ordered:
        row.pop("mode")
    shown = [_screen(row) for row in ordered]
    print_table(shown, title=f"Sweep {folder}")
    write_csv(ordered, folder / "sweep.csv")
    print(f"written to {folder / 'sweep.csv'}", flush=True)


def _screen(row: dict[str, Any]) -> dict[str, Any]:
    # The whole message stood there as the run ended, and is in the file; here it would push the table apart.
    reason = textwrap.shorten(row["error"].removeprefix("ava-train: "), 60, placeholder=" ...")
    status = f"{row['status']}: {reason}" if reason else row["status"]
    metric = {row["metric"]: row["value"]} if row["metric"] else {}
    return {"overrides": row["overrides"], "status": status, **metric, "loss": row["loss"], "seconds": row["seconds"]}
