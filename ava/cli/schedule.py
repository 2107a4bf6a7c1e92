"""`ava schedule`: the schedule that a training would follow, drawn and tabulated; nothing is trained."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ava.cli.arguments import Parser
from ava.errors import InputError

if TYPE_CHECKING:
    from ava.config.preview import Preview
    from ava.config.schema import ResumePlan
    from ava.reporting.schedule_curves import Drawing

_HELP = """\
ava schedule [options] [overrides]

Draws the learning rate, and whatever else a schedule moves, over the steps of the training that `ava train` with the
same overrides would be. It reads the data and trains nothing.

Options
  -h, --help             this
  --output FILE          the picture, .png, .svg or .pdf; default schedule.png, which is replaced if it is there
  --csv FILE             every step with its exact numbers, too
  -cd, --config-dir DIR  a directory with configuration files of your own; may be repeated

Examples
  ava schedule optimizer=lion scheduler=onecycle trainer.max_steps=500
  ava schedule scheduler=wsd trainer.max_epochs=3 'scheduler.also={weight_decay: cosine}'
  ava schedule experiment=gpt_stdlib --output gpt.png --csv gpt.csv
  ava schedule resume=outputs/mine trainer.max_steps=4000
"""
_FORMATS = (".png", ".svg", ".pdf")
_COLUMNS = 100
"""Of output that goes to no terminal."""


def schedule(words: Sequence[str]) -> int:
    """Draw the schedule of a configuration.

    Args:
        words: options and overrides.

    Returns:
        The exit code.

    Raises:
        InputError: an option or the configuration cannot be used; it is what `ava train` would say.
    """
    parser = Parser("ava schedule")
    add: Any = parser.add_argument
    add("--help", "-h", action="store_true")
    add("--config-dir", "-cd", action="append", default=[], metavar="DIR")
    add("--output", default="schedule.png", metavar="FILE")
    add("--csv", metavar="FILE")
    options = parser.split(words)
    if options.help:
        print(_HELP, end="")
        return 0
    picture = _checked_file("--output", options.output, _FORMATS)
    table = None if options.csv is None else _checked_file("--csv", options.csv, ())
    preview, plan = _preview(options.overrides, options.config_dir)
    drawing = preview.drawing()
    _show(drawing, plan)
    _write(drawing, preview, picture, table)
    return 0


def _checked_file(option: str, name: str, endings: Sequence[str]) -> Path:
    """A file that can be written, known before the work rather than after it."""
    from ava.config.places import check_writable, told_of

    path = Path(name).expanduser()
    with told_of(option, name):
        if endings and path.suffix.lower() not in endings:
            raise InputError(f"must end in one of: {', '.join(endings)}.", key=option, value=name)
        if path.is_dir():
            raise InputError("is a directory.", key=option, value=name, hint="Name a file in it.")
        if not path.parent.exists():
            raise InputError(f"there is no directory {path.parent}.", key=option, value=name, hint="Make it first.")
        if path.exists() and not os.access(path, os.W_OK):
            raise InputError("cannot be written: permission denied.", key=option, value=name)
        check_writable(option, name, path.parent)
    return path


def _preview(overrides: Sequence[str], config_dirs: Sequence[str]) -> tuple[Preview, ResumePlan | None]:
    from ava.config.paths import check_config_dirs
    from ava.config.places import check_data_path
    from ava.config.resume import prepare

    config, plan = prepare(overrides, check_config_dirs(config_dirs))
    check_data_path(config)
    from ava.config.preview import Preview

    return Preview(config), plan


def _show(drawing: Drawing, plan: ResumePlan | None) -> None:
    from rich.console import Console

    from ava.reporting.schedule_plot import curve_table, phase_table, plot_text

    width = shutil.get_terminal_size((_COLUMNS, 24)).columns
    console = Console(width=width, highlight=False, markup=False)
    print(f"{drawing.title}\n")
    if (console.encoding or "").lower().startswith("utf"):
        print(plot_text(drawing, width, colour=console.color_system is not None))
    else:
        print(f"This terminal's encoding, {console.encoding}, has no characters to draw with: see the file.\n")
    console.print(phase_table(drawing))
    if drawing.panels:
        console.print(curve_table(drawing))
    for note in [*drawing.notes, *([] if plan is None else [_standing(plan)])]:
        print(note)


def _standing(plan: ResumePlan) -> str:
    from ava.checkpoint.checkpoint import read_manifest

    return (
        f"{plan.checkpoint} stands at step {read_manifest(plan.checkpoint)['step']:,}; the training goes on from there."
    )


def _write(drawing: Drawing, preview: Preview, picture: Path, table: Path | None) -> None:
    from ava.config.places import told_of
    from ava.reporting import schedule_figure
    from ava.reporting.schedule_curves import write_csv

    with told_of("--output", picture):
        schedule_figure.write(drawing, picture)
    print(f"written to {picture}")
    if table is not None:
        with told_of("--csv", table):
            write_csv(preview.rows(), table)
        print(f"every step is in {table}")


if __name__ == "__main__":
    sys.exit(schedule(sys.argv[1:]))
