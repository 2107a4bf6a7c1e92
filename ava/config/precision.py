"""What is asked of precision and memory: options that belong together. Nothing here imports torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from ava.config.schema import Config
from ava.config.sections import Precision, Trainer
from ava.errors import InputError

DEFAULTS: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(Precision)}
SCALING = ("init_scale", "growth_factor", "backoff_factor", "growth_interval")
_OF_FP8 = ("recipe", "fp8_format", "include", "exclude", "emulate")
_OF_DELAYED = ("margin", "interval")


def scaling_options(precision: Precision) -> dict[str, float]:
    """The options of the loss scale, where the policy has one."""
    return {key: getattr(precision, key) for key in SCALING} if precision.name == "fp16" else {}


def float8_options(precision: Precision) -> dict[str, Any]:
    """What `prepare_float8` is told."""
    return {key: getattr(precision, key) for key in (*_OF_FP8, *_OF_DELAYED)}


def check_precision(config: Config) -> Iterator[InputError]:
    """What no device can do, or what would change nothing."""
    yield from _idle(config.precision)
    yield from _parameters(config)
    yield from _together(config)


def _idle(precision: Precision) -> Iterator[InputError]:
    """Options of another policy than the one that is chosen."""
    name = precision.name
    for keys, owner, is_theirs in (
        (SCALING, "fp16", name in ("fp16", "auto")),
        (_OF_FP8, "fp8", name == "fp8"),
    ):
        for key in keys if not is_theirs else ():
            value = getattr(precision, key)
            if value != DEFAULTS[key]:
                problem = f"belongs to precision={owner} and changes nothing with precision={name}."
                yield InputError(problem, key=f"precision.{key}", value=_spelt(value), hint="Leave it out.")
    for key in _OF_DELAYED if precision.recipe != "delayed" else ():
        value = getattr(precision, key)
        if value == DEFAULTS[key]:
            continue
        problem = (
            "belongs to delayed scaling, which guesses scales from past values; "
            f"precision.recipe={precision.recipe} takes each tensor's own largest value."
        )
        hint = "Set precision=fp8 precision.recipe=delayed, or leave it out."
        yield InputError(problem, key=f"precision.{key}", value=value, hint=hint)


def _spelt(value: Any) -> Any:
    """As it was typed."""
    return f"[{','.join(value)}]" if isinstance(value, tuple) else value


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
    """What cannot stand beside a precision."""
    precision, optimizer = config.precision, config.optimizer.options
    clashes = (
        (
            precision.name == "fp16" and optimizer["fused_backward"], "optimizer.fused_backward", True,
            "uses each gradient before precision=fp16 could divide it by the loss scale.",
            "Set precision=bf16, which needs no loss scale.",
        ),
        (
            precision.name == "fp8" and optimizer.get("estimator") == "hutchinson", "optimizer.estimator", "hutchinson",
            "differentiates twice, and products in 8 bits have one derivative.",
            "Use `optimizer.estimator=gauss_newton_bartlett`, or precision=bf16.",
        ),
        (
            precision.qat is not None and precision.name == "fp8", "precision.qat", precision.qat,
            "replaces the linear layers, and so does precision=fp8.", "Set precision=bf16.",
        ),
        (
            precision.qat is not None and precision.parameters == "bf16", "precision.qat", precision.qat,
            "rounds weights finely, which precision.parameters=bf16 has rounded coarsely before.",
            "Set precision.parameters=fp32.",
        ),
    )  # fmt: skip
    for applies, key, value, problem, hint in clashes:
        if applies:
            yield InputError(problem, key=key, value=value, hint=hint)


def check_speed(config: Config) -> Iterator[InputError]:
    """Ways to save time or memory that change nothing, or exclude each other."""
    trainer = config.trainer
    for applies, key, problem, hint in (*_kernels(trainer), *_activations(config)):
        if applies:
            yield InputError(problem, key=f"trainer.{key}", value=getattr(trainer, key), hint=hint)


def _kernels(trainer: Trainer) -> Iterator[tuple[bool, str, str, str]]:
    """Whether it applies, the key, what is wrong with it, and the remedy."""
    mode = trainer.compile_mode
    yield (
        trainer.prefetch != Trainer.prefetch and trainer.workers == 0, "prefetch",
        "says how far each worker fetches ahead, and trainer.workers=0 has none.", "Add `trainer.workers=2`.",
    )  # fmt: skip
    yield (
        trainer.deterministic and trainer.cudnn_benchmark, "cudnn_benchmark",
        "picks kernels by their speed, and trainer.deterministic=true wants the same ones each time.",
        "Leave one of them out.",
    )  # fmt: skip
    yield (
        mode != "default" and not trainer.compile, "compile_mode", "changes nothing with trainer.compile=false.",
        "Add `trainer.compile=true`.",
    )  # fmt: skip
    yield (
        mode != "default" and trainer.cuda_graphs, "compile_mode",
        "records CUDA graphs of its own, inside those of trainer.cuda_graphs=true.", "Leave one of them out.",
    )  # fmt: skip


def _activations(config: Config) -> Iterator[tuple[bool, str, str, str]]:
    trainer = config.trainer
    graphs, recomputed = trainer.cuda_graphs, trainer.activation_checkpointing
    yield (
        graphs and trainer.offload_activations, "offload_activations",
        "copies on another stream, which trainer.cuda_graphs=true does not record.", "Leave one of them out.",
    )  # fmt: skip
    yield (
        graphs and recomputed is not False and not trainer.compile, "cuda_graphs",
        "records no step that puts random numbers back, as trainer.activation_checkpointing does.",
        "Add `trainer.compile=true`, or leave one of them out.",
    )  # fmt: skip
    yield (
        recomputed == "selective" and config.optimizer.options.get("estimator") == "hutchinson",
        "activation_checkpointing", "keeps results for one backward pass, and hutchinson takes two.",
        "Use trainer.activation_checkpointing=true, or optimizer.estimator=gauss_newton_bartlett.",
    )  # fmt: skip
    yield (
        trainer.compile and trainer.offload_activations, "offload_activations",
        "follows what autograd keeps, which a compiled model decides itself.", "Set trainer.compile=false.",
    )  # fmt: skip
