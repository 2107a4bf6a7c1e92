"""The sections of a configuration that Ava itself owns, as dataclasses whose annotations say what is allowed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt

from ava.registry import Name, NonNegativeInt, PositiveFloat, PositiveInt

Average = Annotated[float, Gt(0), Lt(1)]
"""The weight of the past in an average that someone asked for: 0 and 1 would both be no average."""


@dataclass(frozen=True)
class Trainer:
    """How long to train, on what, and what to do on the way.

    Attributes:
        max_steps: optimizer steps after which to stop; None leaves it to `max_epochs`.
        max_epochs: passes over the training data after which to stop; the first limit reached counts.
        batch_size: samples of one optimizer step, over all ranks.
        accumulate: micro-batches into which each rank cuts its share of a batch; auto finds the fewest that fit.
        eval_every: steps between evaluations; 0 evaluates only at the end.
        log_every: steps between two logged steps.
        device: where to train; auto takes an accelerator if there is one.
        deterministic: only deterministic kernels.
        compile: compile the model and the loss.
        compile_mode: what the compiler tries for; torch.compile's own modes.
        cuda_graphs: record forward and backward once and replay them; GPUs only.
        cudnn_benchmark: let cuDNN try its kernels on the first batch of each shape and keep the fastest.
        clip: the gradient clipping's name in the registry.
        clip_norm: the clipping's threshold, where it has one; None takes its own default.
        clip_options: the clipping's other options.
        ema_decay: weight of the past in the average of the weights; None keeps no average.
        early_stop_patience: evaluations without improvement after which to stop; None never does.
        activation_checkpointing: recompute activations in the backward pass: true or full those of every block, a
            number k those of every k-th block, selective all but those of matrix products and attention.
        offload_activations: keep activations in the host's memory until the backward pass; accelerators only.
        offload_optimizer: keep optimizer state in the host's memory, and update there; accelerators only.
        profile: write a profiler trace into the run directory.
        workers: processes that load data; 0 loads in the training process.
        prefetch: batches that each of them fetches ahead, all micro-batches of a step together.
    """

    max_steps: PositiveInt | None = None
    max_epochs: PositiveInt | None = None
    batch_size: PositiveInt = 64
    accumulate: PositiveInt | Literal["auto"] = 1
    eval_every: NonNegativeInt = 0
    log_every: PositiveInt = 10
    device: Literal["auto", "cpu", "cuda"] = "auto"
    deterministic: bool = False
    compile: bool = False
    compile_mode: Literal["default", "reduce-overhead", "max-autotune"] = "default"
    cuda_graphs: bool = False
    cudnn_benchmark: bool = False
    clip: Name = "norm"
    clip_norm: PositiveFloat | None = None
    clip_options: dict[str, Any] = field(default_factory=dict)
    ema_decay: Average | None = None
    early_stop_patience: PositiveInt | None = None
    activation_checkpointing: bool | PositiveInt | Literal["full", "selective"] = False
    offload_activations: bool = False
    offload_optimizer: bool = False
    profile: bool = False
    workers: NonNegativeInt = 0
    prefetch: PositiveInt = 4


@dataclass(frozen=True)
class Precision:
    """The arithmetic of the forward and backward pass.

    Attributes:
        name: the type of matrix products; auto takes the best that the device does well, and says why.
        parameters: the type of the weights; bf16 needs optimizer.stochastic_rounding=true.
        init_scale: of fp16: what the loss is multiplied with at first, against underflow.
        growth_factor: by how much that grows after `growth_interval` steps without overflow.
        backoff_factor: by how much it shrinks after an overflow.
        growth_interval: steps.
        recipe: of fp8: how scales are found; the first three from the values themselves, delayed from past ones.
        fp8_format: of fp8: e4m3 has more digits, e5m2 more range; hybrid takes e5m2 for gradients only.
        margin: of fp8, delayed: powers of two left free above the largest value seen.
        interval: of fp8, delayed: optimizer steps between two new scales.
        include: of fp8: globs of layers to convert whatever their size.
        exclude: of fp8: globs of layers to leave as they are.
        emulate: of fp8: the same numerics without hardware for it, slowly.
        qat: train with weights rounded as they will be once quantized; None does not.
    """

    name: Literal["fp32", "tf32", "bf16", "fp16", "fp8", "auto"] = "fp32"
    parameters: Literal["fp32", "bf16"] = "fp32"
    init_scale: Annotated[float, Gt(0), Le(2.0**127)] = 65536.0
    growth_factor: Annotated[float, Gt(1), Le(65536.0)] = 2.0
    backoff_factor: Annotated[float, Gt(0), Lt(1)] = 0.5
    growth_interval: Annotated[int, Gt(0), Lt(2**31)] = 2000
    recipe: Literal["tensorwise", "rowwise", "rowwise_with_gw_hp", "delayed"] = "tensorwise"
    fp8_format: Literal["e4m3", "e5m2", "hybrid"] = "hybrid"
    margin: NonNegativeInt = 0
    interval: PositiveInt = 1
    include: tuple[Name, ...] = ()
    exclude: tuple[Name, ...] = ()
    emulate: bool = False
    qat: Literal["int8", "int4", "int2"] | None = None


@dataclass(frozen=True)
class Health:
    """What is measured of the gradients, and what happens when one is not finite.

    Attributes:
        on_nonfinite: skip leaves such a step out and goes on; raise ends the run; rollback goes back to where the log
            was last read, and on with other samples.
        max_consecutive: so many such steps in a row are left out (or gone back from) before the run ends.
        statistics: mean, spread, extremes and zeros of the gradients in each logged step.
        detail_every: steps between two looks at each layer; 0 never looks.
        anomaly: find the operation that makes the first NaN or infinity; slow.
    """

    on_nonfinite: Literal["skip", "raise", "rollback"] = "raise"
    max_consecutive: NonNegativeInt = 10
    statistics: bool = True
    detail_every: NonNegativeInt = 0
    anomaly: bool = False


@dataclass(frozen=True)
class Recovery:
    """What happens when training goes wrong.

    Attributes:
        name: off ends the run as `health` says; skip mends within the step: what is not finite and outlying losses are
            left out, outlying gradients clipped, outlying updates shrunk; ladder also goes back to a snapshot in memory
            where that is not enough, and starts anew where the start was bad.
        sigmas: deviations from its mean beyond which a gradient's norm, an update's or a loss is an outlier.
        clip_sigmas: deviations above its mean to which an outlying norm is brought back.
        detectors: what looks for trouble: names in the registry; None takes all that Ava has.
        bad_steps: so many bad steps one after another are no accident.
        nonfinite_steps: the same of steps that are not finite.
        snapshots: how many are kept.
        snapshot_every: steps between two; None takes as many as `snapshot_cost` allows.
        snapshot_cost: the share of training time that they may take.
        snapshot_device: where they lie; cpu spares an accelerator's memory.
        lr_factor: on the learning rate after going back.
        restart_lr_factor: on the learning rate after starting anew.
        warmup_steps: in which the rate rises again after going back.
        early: share of the training within which a start can have been bad.
        budget: so often the run goes back or starts anew before it gives up.
        check_ranks_every: steps between two comparisons of all ranks' weights; 0 never compares.
    """

    name: Literal["off", "skip", "ladder"] = "off"
    sigmas: PositiveFloat = 5.0
    clip_sigmas: PositiveFloat = 3.0
    detectors: tuple[Name, ...] | None = None
    bad_steps: PositiveInt = 8
    nonfinite_steps: PositiveInt = 5
    snapshots: PositiveInt = 3
    snapshot_every: PositiveInt | None = None
    snapshot_cost: Average = 0.01
    snapshot_device: Literal["same", "cpu"] = "same"
    lr_factor: Average = 0.5
    restart_lr_factor: Average = 0.25
    warmup_steps: NonNegativeInt = 20
    early: Average = 0.2
    budget: PositiveInt = 8
    check_ranks_every: NonNegativeInt = 50


@dataclass(frozen=True)
class LRFinder:
    """The LR range test: a short training with a rising rate, to see which rate is good.

    Attributes:
        enabled: test before the training, and train with what is suggested in place of `optimizer.lr`.
        min_lr: the test's first rate, in units of `optimizer.lr`.
        max_lr: its last rate.
        num_steps: optimizer steps from one to the other.
        smoothing_factor: weight of the new loss in the moving average.
        diverge_factor: the test ends where the average exceeds its lowest value so many times.
        method: which of the suggestions counts.
        probe_steps: length of the short trainings that the method probes compares, if num_steps is no less.
        seeds: how often to test, each time with other samples.
    """

    enabled: bool = False
    min_lr: PositiveFloat = 1e-7
    max_lr: PositiveFloat = 10.0
    num_steps: Annotated[int, Ge(10)] = 100
    smoothing_factor: Annotated[float, Gt(0), Le(1)] = 0.05
    diverge_factor: Annotated[float, Gt(1)] = 4.0
    method: Literal["probes", "valley", "steepest", "minimum"] = "probes"
    probe_steps: Annotated[int, Ge(10)] = 50
    seeds: PositiveInt = 3


@dataclass(frozen=True)
class Distributed:
    """How ranks work together.

    Attributes:
        backend: auto takes nccl on accelerators and gloo elsewhere.
        timeout_s: seconds after which a rank that waits for another gives up.
    """

    backend: Literal["auto", "gloo", "nccl"] = "auto"
    timeout_s: PositiveInt = 600


@dataclass(frozen=True)
class Checkpoint:
    """When to save, and what to keep.

    Attributes:
        every: steps between checkpoints; None saves with each evaluation.
        keep_last: how many of the newest to keep.
        keep_best: also keep the best one.
        monitor: the metric that says best; None takes the task's own.
        mode: whether less or more of `monitor` is better; None takes the task's own.
    """

    every: PositiveInt | None = None
    keep_last: PositiveInt = 2
    keep_best: bool = True
    monitor: Name | None = None
    mode: Literal["min", "max"] | None = None


@dataclass(frozen=True)
class Sweep:
    """How `-m` runs its jobs.

    Attributes:
        jobs: runs at the same time.
        dir: the sweep's directory; None gives outputs/<date>/<time>-sweep.
    """

    jobs: PositiveInt = 1
    dir: Name | None = None
