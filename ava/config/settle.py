"""What a configuration leaves to the device, and what the device cannot do."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch

from ava.config.precision import DEFAULTS, SCALING, check_precision, float8_options
from ava.config.schema import Config
from ava.config.sections import Precision
from ava.config.validate import gather
from ava.errors import InputError
from ava.optimization.precision.float8.training import check_float8
from ava.optimization.precision.support import choose, is_emulated, refuse_unsupported


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
        if name != "fp16":
            given = [f"precision.{key}={getattr(precision, key)}" for key in SCALING if _differs(precision, key)]
            remarks += [f"{', '.join(given)} changes nothing: {name} has no loss scale."] if given else []
        idle: dict[str, Any] = {key: DEFAULTS[key] for key in SCALING if name != "fp16"}
        precision = dataclasses.replace(precision, **{"name": name, **idle})
        config = dataclasses.replace(config, precision=precision)
        if problems := [*check_precision(config)]:
            raise gather(problems)
        remarks.insert(0, f"precision=auto takes {name}: {why}.")
    refuse_unsupported(precision.name, device, emulate=precision.emulate)
    if is_emulated(precision.name, device):
        remarks.append(f"This processor has no instructions for {precision.name}: expect it to be slower than fp32.")
    if precision.name == "fp8":
        of_fp8 = {key: value for key, value in float8_options(precision).items() if key not in ("include", "exclude")}
        check_float8(device=device, **of_fp8)
    for problem in _of_accelerators(config, device):
        raise problem
    return config, remarks


def _differs(precision: Precision, key: str) -> bool:
    return bool(getattr(precision, key) != DEFAULTS[key])


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
