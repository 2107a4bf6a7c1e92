"""From a run to a directory that can be deployed.

    RUN/export/int8/
        model.safetensors    the weights, quantized or not
        config.yaml          the run's configuration
        export.json          what was exported from where, and what it cost in quality

Whatever is written has been checked against the trained model on the run's own validation data.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from ava.config.saved import FILE, to_yaml
from ava.config.trained import Trained, build_model, build_task, load_config
from ava.data.source import ImageSpec, TokenSpec
from ava.errors import InputError
from ava.optimization.precision.quantization.device import usable_device
from ava.optimization.precision.quantization.file import load_quantized, write_model
from ava.optimization.precision.quantization.qat import BITS, prepare_qat
from ava.optimization.precision.quantization.quantizer import ModelQuantizer
from ava.optimization.precision.quantization.report import percent
from ava.optimization.precision.quantization.selection import counted, quoted

MODEL, ABOUT = "model.safetensors", "export.json"
Activations = Literal["dynamic", "static"]
_SPECS = {"ImageSpec": ImageSpec, "TokenSpec": TokenSpec}
_CALIBRATION_BATCHES = 16
_AGAIN = "Export the run again."


@dataclass
class Export:
    """What was exported.

    Attributes:
        folder: where it is.
        title: in one line, what it is and what runs it.
        rows: size, latency, error and metrics, before and after.
        models: the metrics of each model that it is compared with, the exported one among them.
        notes: what a user should know.
    """

    folder: Path
    title: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    models: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def export_run(
    trained: Trained, file_format: str, folder: Path, *, activations: Activations = "dynamic", backend: Any = "auto",
    control: Trained | None = None,
) -> Export:  # fmt: skip
    """Export a trained model, and measure what that changed.

    Args:
        trained: the run.
        file_format: "safetensors" for the weights as they are, or of `BITS`.
        folder: the directory to write; replaced if it is there.
        activations: how int8 finds the range of a layer's inputs.
        backend: what is to run the quantized layers.
        control: a run that trained as long without rounding, to be compared with one that trained with it.

    Raises:
        InputError: it cannot be quantized like that; nothing was written.
    """
    if control is not None:
        _check_control(trained, control)
    scratch = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    is_first = not folder.parent.exists()
    scratch.mkdir(parents=True)
    try:
        if file_format == "safetensors":
            done = _export_plain(trained, scratch, folder)
        else:
            done = _export_quantized(trained, file_format, scratch, folder, activations, backend, control)
        (scratch / FILE).write_text(to_yaml(trained.config), encoding="utf-8")
        about = _describe(trained) | {"format": file_format} | dataclasses.asdict(done) | {"folder": str(folder)}
        (scratch / ABOUT).write_text(json.dumps(about, indent=2, default=str), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if is_first and not folder.exists():
            with contextlib.suppress(OSError):
                folder.parent.rmdir()
    return done


def _export_plain(trained: Trained, scratch: Path, folder: Path) -> Export:
    """The weights as they are, read back and compared bit for bit."""
    write_model(scratch / MODEL, trained.model, {}, None)
    read = load_quantized(build_model(trained.config, trained.task.data.spec), scratch / MODEL).state_dict()
    for name, tensor in trained.model.state_dict().items():
        if not torch.equal(read[name], tensor.cpu()):
            raise InputError(f"{folder / MODEL} reads back another {name} than was written.", hint="Check the disk.")
    size, metrics = (scratch / MODEL).stat().st_size, trained.metrics(trained.model)
    rows = [{"": "size, MB", "value": size / 1e6}, *({"": name, "value": value} for name, value in metrics.items())]
    return Export(folder, "plain weights, the same bit for bit when read back", rows)


def _export_quantized(
    trained: Trained, weight: str, scratch: Path, folder: Path, activations: Activations, backend: Any,
    control: Trained | None,
) -> Export:  # fmt: skip
    quantizer = _quantizer(trained, weight, activations, backend, trained.example())
    quantizer.quantize()
    report = quantizer.report
    assert report is not None
    quantizer.save(scratch / MODEL)
    title = f"{report.scheme}, run by {report.backend}: {counted(len(report.layers), 'linear layer')}"
    stays = [f"{quoted(name)} stays as it is: it {reason}" for name, reason in report.skipped.items()]
    done = Export(
        folder, f"{title}, {percent(report.share)} of the parameters", report.rows(), notes=[*report.notes, *stays]
    )
    trained_for = trained.config.precision.qat
    if trained_for is not None or control is not None:
        done.models = _compared(trained, quantizer, control, weight, activations, backend)
    if control is not None and control.checkpoint.name != trained.checkpoint.name:
        done.notes.append(f"The run is at {trained.checkpoint.name}, its control at {control.checkpoint.name}.")
    if trained_for is not None and trained_for != weight:
        done.notes.append(f"The run was trained for {trained_for}; exported to {weight}, that training is of no use.")
    return done


def _check_control(trained: Trained, control: Trained) -> None:
    """Refuse what a run cannot be compared with.

    Raises:
        InputError: the control is the run itself, another experiment, or was trained with rounding too.
    """
    problem, hint = None, "Give a run that differs from it in nothing but precision.qat=null."
    if control.checkpoint.resolve() == trained.checkpoint.resolve():
        problem = "is the checkpoint that is exported, not its control."
    elif control.config.precision.qat is not None:
        problem = f"was trained with precision.qat={control.config.precision.qat}; a control trains without."
    else:
        ours, theirs = trained.config, control.config
        parts = [name for name in ("task", "data", "model") if getattr(ours, name) != getattr(theirs, name)]
        if parts:
            problem = f"has another {', '.join(parts)} configuration than the run, so they cannot be compared."
    if problem is not None:
        raise InputError(problem, key="--control", value=control.checkpoint, hint=hint)


def _compared(
    trained: Trained, quantizer: ModelQuantizer, control: Trained | None, weight: str, activations: Activations,
    backend: Any,
) -> list[dict[str, Any]]:  # fmt: skip
    """A run that was trained with rounding, before and after, and its control."""
    report, trained_for = quantizer.report, trained.config.precision.qat
    assert report is not None
    rows = [{"model": "weights as trained, in float32"} | {name: a for name, (a, _) in report.metrics.items()}]
    if trained_for is not None:
        fake = build_model(trained.config, trained.task.data.spec)
        fake.load_state_dict(trained.model.state_dict())
        prepare_qat(fake, trained_for)
        fake.to(next(trained.model.parameters()).device)
        rows.append({"model": f"rounded to {trained_for} as in training", **trained.metrics(fake)})
    rows.append({"model": f"exported to {weight}"} | {name: b for name, (_, b) in report.metrics.items()})
    if control is not None:
        converted = _quantizer(control, weight, activations, backend, None).quantize()
        rows.append({"model": "control, in float32", **control.metrics(control.model)})
        rows.append({"model": f"control, quantized to {weight}", **control.metrics(converted)})
    return rows


def _quantizer(trained: Trained, weight: str, activations: Activations, backend: Any, example: Any) -> ModelQuantizer:
    batches = trained.calibration(_CALIBRATION_BATCHES) if activations == "static" else None
    return ModelQuantizer(
        trained.model, activations, BITS[weight], batches, backend=backend, example_inputs=example,
        evaluate=trained.metrics if example is not None else None, calibration_batches=_CALIBRATION_BATCHES,
    )  # fmt: skip


def _describe(trained: Trained) -> dict[str, Any]:
    """What `load_exported` needs to build the model again without its data."""
    spec, name = trained.task.data.spec, type(trained.task.data.spec).__name__
    known = {"type": name, "fields": dict(vars(spec))} if _SPECS.get(name) is type(spec) else None
    return {
        "checkpoint": str(trained.checkpoint), "weights": trained.section, "task": trained.config.task.name,
        "model": trained.config.model.name, "spec": known,
    }  # fmt: skip


def load_exported(
    folder: Path | str, *, backend: str = "auto", device: torch.device | str = "cpu", plugins: Sequence[str] = ()
) -> nn.Module:
    """Load what `ava export` wrote; nothing in it is executed.

    Args:
        folder: the directory that `ava export` wrote.
        backend: what is to run quantized layers: "auto", "torch.ao" or "torchao".
        device: where.
        plugins: modules that the model needs, as its run named them.

    Returns:
        The model in evaluation mode.

    Raises:
        InputError: it is no such directory, or nothing here runs it.
    """
    folder = Path(folder)
    usable_device(device)
    about = _read_about(folder)
    config = load_config(folder / FILE, plugins)
    spec = _spec(about["spec"], folder) if about["spec"] is not None else build_task(config).data.spec
    return load_quantized(build_model(config, spec), folder / MODEL, backend=backend, device=device)


def _read_about(folder: Path) -> dict[str, Any]:
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        problem = f"{folder} holds no exported model ({type(error).__name__})."
        raise InputError(problem, hint="Give a directory that `ava export` wrote.") from error
    if not isinstance(about, dict) or "spec" not in about:
        raise InputError(f"{folder / ABOUT} does not say what was exported.", hint=_AGAIN)
    return about


def _spec(kept: Any, folder: Path) -> Any:
    """What the model has to be built for."""
    try:
        return _SPECS[kept["type"]](**kept["fields"])
    except (KeyError, TypeError) as error:
        problem = f"{folder / ABOUT} does not say what the model was built for ({type(error).__name__})."
        raise InputError(problem, hint=_AGAIN) from error
