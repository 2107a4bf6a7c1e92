"""What is asked of precision and memory: options that belong together, and a device that can do it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch

from ava.config.schema import Config
from ava.config.sections import Precision
from ava.errors import InputError
from ava.optimization.precision.support import choose, refuse_unsupported

_SCALING = ("init_scale", "growth_factor", "backoff_factor", "growth_interval")
_OF_FP8 = ("recipe", "fp8_format", "include", "exclude", "emulate")
_OF_DELAYED = ("margin", "interval")


def scaling_options(precision: Precision) -> dict[str, float]:
    """The options of the loss scale, where the policy has one."""
    return {key: getattr(precision, key) for key in _SCALING} if precision.name == "fp16" else {}


def float8_options(precision: Precision) -> dict[str, Any]:
    """What `prepare_float8` is told."""
    return {key: getattr(precision, key) for key in (*_OF_FP8, *_OF_DELAYED)}


def settle(config: Config, device: torch.device) -> tuple[Config, list[str]]:
    """Decide what is left to the device, and refuse what it cannot do; called before any data is read.

    Returns:
        The configuration with a precision that has a name of its own, and sentences for the start of the run.

    Raises:
        InputError: the device cannot do what is asked; says what it can.
    """
    precision, remarks = config.precision, list[str]()
    if precision.name == "auto":
        name, why = choose(device)
        if precision.parameters == "bf16" and name != "bf16":
            raise InputError(
                f"needs precision=bf16, and precision=auto takes {name} here: {why}.",
                key="precision.parameters", value="bf16", hint="Leave it out.",
            )  # fmt: skip
        idle: dict[str, Any] = {key: _DEFAULTS[key] for key in _SCALING if name != "fp16"}
        precision = dataclasses.replace(precision, **{"name": name, **idle})
        config = dataclasses.replace(config, precision=precision)
        remarks.append(f"precision=auto takes {name}: {why}.")
    refuse_unsupported(precision.name, device, emulate=precision.emulate)
    for problem in _of_accelerators(config, device):
        raise problem
    return config, remarks


def check_precision(config: Config) -> Iterator[InputError]:
    """What no device can do, or what would change nothing."""
    yield from _idle(config.precision)
    yield from _parameters(config)
    yield from _together(config)


def _idle(precision: Precision) -> Iterator[InputError]:
    """Options of another policy than the one that is chosen."""
    name = precision.name
    for keys, owner, is_theirs in (
        (_SCALING, "fp16", name in ("fp16", "auto")),
        (_OF_FP8, "fp8", name == "fp8"),
    ):
        for key in keys if not is_theirs else ():
            value = getattr(precision, key)
            if value != _DEFAULTS[key]:
                problem = f"belongs to precision={owner} and changes nothing with precision={name}."
                yield InputError(problem, key=f"precision.{key}", value=value, hint="Leave it out.")
    for key in _OF_DELAYED if precision.recipe != "delayed" else ():
        value = getattr(precision, key)
        if value == _DEFAULTS[key]:
            continue
        problem = (
            "belongs to delayed scaling, which guesses scales from past values; "
            f"precision.recipe={precision.recipe} takes each tensor's own largest value."
        )
        hint = "Set precision=fp8 precision.recipe=delayed, or leave it out."
        yield InputError(problem, key=f"precision.{key}", value=value, hint=hint)


def _parameters(config: Config) -> Iterator[InputError]:
    """16-bit weights are computed with in 16 bits, and rounded so that small updates are not lost."""
    precision = config.precision
    if precision.parameters == "fp32":
        return
    if precision.name not in ("bf16", "fp8", "auto"):
        problem = f"needs a policy that computes in bfloat16, not precision={precision.name}."
        yield InputError(problem, key="precision.parameters", value="bf16", hint="Set precision=bf16.")
    if not config.optimizer.options["stochastic_rounding"]:
        problem = "loses every update smaller than 1/256 of its weight when rounded to the nearest."
        hint = "Add `optimizer.stochastic_rounding=true`."
        yield InputError(problem, key="precision.parameters", value="bf16", hint=hint)


def _together(config: Config) -> Iterator[InputError]:
    """What cannot stand beside a precision or a way to save memory or time."""
    precision, trainer = config.precision, config.trainer
    if precision.name == "fp16" and config.optimizer.options["fused_backward"]:
        problem = "uses each gradient before precision=fp16 could divide it by the loss scale."
        hint = "Set precision=bf16, which needs no loss scale."
        yield InputError(problem, key="optimizer.fused_backward", value=True, hint=hint)
    if precision.qat is not None and precision.name == "fp8":
        problem = "and precision=fp8 both replace the linear layers."
        yield InputError(problem, key="precision.qat", value=precision.qat, hint="Set precision=bf16.")
    if trainer.deterministic and trainer.cudnn_benchmark:
        problem = "picks kernels by their speed, and trainer.deterministic=true wants the same ones each time."
        yield InputError(problem, key="trainer.cudnn_benchmark", value=True, hint="Leave one of them out.")
    if trainer.compile_mode != "default" and not trainer.compile:
        problem = "changes nothing with trainer.compile=false."
        yield InputError(
            problem, key="trainer.compile_mode", value=trainer.compile_mode, hint="Add `trainer.compile=true`."
        )


def _of_accelerators(config: Config, device: torch.device) -> Iterator[InputError]:
    """Settings that mean something on an accelerator only."""
    if device.type == "cuda":
        return
    reasons = {
        "cuda_graphs": "records CUDA kernels",
        "cudnn_benchmark": "tries cuDNN's kernels",
        "offload_activations": "moves activations to the host's memory, where they are already",
        "offload_optimizer": "moves optimizer state to the host's memory, where it is already",
    }
    for key, reason in reasons.items():
        if getattr(config.trainer, key):
            problem = f"{reason}, and this run is on the device {str(device)!r}."
            yield InputError(problem, key=f"trainer.{key}", value=True, hint="Leave it out.")


_DEFAULTS: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(Precision)}
