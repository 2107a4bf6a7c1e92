"""`ava export`: what a run has trained, as a directory to deploy, quantized where asked."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ava.cli.arguments import Parser
from ava.errors import InputError, nearest

if TYPE_CHECKING:
    from ava.config.exporting import Export

FORMATS = ("safetensors", "int8", "int4", "int2")
_TYPES = ("dynamic", "static")
_BACKENDS = ("auto", "torch.ao", "torchao")
_DEVICES = ("cpu", "cuda")
_COLUMNS = 100
"""Of output that goes to no terminal."""
_HELP = """\
ava export RUN --format FORMAT [options] [plugins=[...]]

Writes RUN/export/FORMAT: the weights that the run evaluated (averages where it kept any), its configuration, and what
the format costs: size, latency, and the metrics on the run's validation data before and after.
`ava.load_exported(DIRECTORY)` gives the model back.

  RUN                    a run directory, or one of its checkpoints
  --format FORMAT        safetensors: the weights as they are; int8, int4, int2: linear layers quantized

Options
  -h, --help             this
  --output DIR           in the place of RUN/export/FORMAT
  --force                replace an export that is there
  --checkpoint WHICH     best, latest or step-N; default the best that is there, else the latest
  --type TYPE            of int8: dynamic takes the range of a layer's inputs from each call, static from training data
  --backend BACKEND      auto, torch.ao or torchao; auto takes the fastest that the device has
  --device DEVICE        cpu (the default) or cuda
  --control RUN2         beside a run trained with precision.qat: one trained as long without, to compare with

Examples
  ava export outputs/mine --format int8
  ava export outputs/mine --format int4 --checkpoint latest --output deploy/mine
  ava export outputs/with_qat --format int4 --control outputs/without
"""


def export(words: Sequence[str]) -> int:
    """Export a run.

    Args:
        words: the run, options, and `plugins=[...]`.

    Returns:
        The exit code.

    Raises:
        InputError: something of it cannot be; nothing was written.
    """
    parser = Parser("ava export")
    add: Any = parser.add_argument
    add("--help", "-h", action="store_true")
    add("--format")
    add("--output", metavar="DIR")
    add("--force", action="store_true")
    add("--checkpoint", metavar="WHICH")
    add("--type", default="dynamic")
    add("--backend", default="auto")
    add("--device", default="cpu")
    add("--control", metavar="RUN2")
    options = parser.split(words)
    if options.help:
        print(_HELP, end="")
        return 0
    for option, known in (("format", FORMATS), ("type", _TYPES), ("backend", _BACKENDS), ("device", _DEVICES)):
        _check_choice(option, getattr(options, option), known)
    if options.type == "static" and options.format != "int8":
        hint = "Use --format int8, or leave --type out."
        raise InputError("only int8 rounds the inputs of layers.", key="--type", value="static", hint=hint)
    if options.format == "safetensors":
        for option, value, idle in (("backend", options.backend, "auto"), ("control", options.control, None)):
            if value != idle:
                problem = "nothing is quantized with --format safetensors."
                raise InputError(problem, key=f"--{option}", value=value, hint=f"Leave --{option} out.")
    run, plugins = _split(options.overrides)
    _show(_export(options, run, plugins))
    return 0


def _check_choice(option: str, value: str | None, known: Sequence[str]) -> None:
    if value is None:
        raise InputError(f"--{option} has to be given: {', '.join(known)}.", hint=f"Write `--{option} {known[0]}`.")
    if value not in known:
        hint = nearest(value, known, f"--{option} {{}}")
        raise InputError(f"there is: {', '.join(known)}.", key=f"--{option}", value=value, hint=hint)


def _split(words: Sequence[str]) -> tuple[Path, list[str]]:
    """The run, and the plugins that it needs."""
    from ava.config import overrides

    runs = [word for word in words if not word.startswith("plugins=")]
    if len(runs) != 1:
        problem = f"one run has to be named, not {len(runs)}" + (f": {', '.join(runs)}." if runs else ".")
        raise InputError(problem, hint="Write `ava export outputs/mine --format int8`.")
    named = overrides.parse([word for word in words if word.startswith("plugins=")])
    return Path(runs[0]).expanduser(), overrides.named_plugins(named)


def _export(options: Any, run: Path, plugins: list[str]) -> Export:
    from ava.config.places import check_writable, told_of
    from ava.config.trained import choose_checkpoint, load_trained

    _check_device(options.device)
    with told_of("RUN", run):
        _, root = choose_checkpoint(run, options.checkpoint)
    folder = Path(options.output).expanduser() if options.output else root / "export" / options.format
    with told_of("--output", folder):
        check_writable("--output", folder, folder.parent)
        _check_free(folder, options.force)
    control = None
    if options.control is not None:
        with told_of("--control", options.control):
            control = load_trained(Path(options.control).expanduser(), options.checkpoint, plugins, options.device)
    trained = load_trained(run, options.checkpoint, plugins, options.device)
    from ava.config.exporting import export_run

    return export_run(
        trained, options.format, folder, activations=options.type, backend=options.backend, control=control
    )


def _check_device(device: str) -> None:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("there is no GPU that torch can use.", key="--device", value=device, hint="Use cpu.")


def _check_free(folder: Path, force: bool) -> None:
    """Nothing is replaced unasked, and nothing but an export is replaced at all."""
    if not folder.exists():
        return
    if not force:
        raise InputError("is there already.", key="--output", value=folder, hint="Add --force to replace it.")
    is_empty = folder.is_dir() and not any(folder.iterdir())
    if not is_empty and not (folder / "export.json").is_file():
        problem = "is there already and is no export, so it is not replaced."
        raise InputError(problem, key="--output", value=folder, hint="Choose another directory.")


def _show(done: Export) -> None:
    from rich.console import Console

    from ava.reporting.table import print_table

    console = Console(width=shutil.get_terminal_size((_COLUMNS, 24)).columns, highlight=False, markup=False)
    print(done.title)
    print_table(done.rows, console)
    if done.models:
        print_table(done.models, console)
    for note in done.notes:
        print(note)
    print(f"written to {done.folder}")
