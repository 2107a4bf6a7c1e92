"""Optimizers, learning rates, gradients and precision in pure torch, without a configuration.

Names are imported as they are asked for, so that listing what there is costs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ava.optimization.catalogue import OptimizerFactory as OptimizerFactory
    from ava.optimization.catalogue import SchedulerFactory as SchedulerFactory
    from ava.optimization.catalogue import get_clip as get_clip
    from ava.optimization.catalogue import get_detector as get_detector
    from ava.optimization.catalogue import get_optimizer as get_optimizer
    from ava.optimization.catalogue import get_scheduler as get_scheduler
    from ava.optimization.catalogue import get_surgery as get_surgery
    from ava.optimization.catalogue import list_clips as list_clips
    from ava.optimization.catalogue import list_detectors as list_detectors
    from ava.optimization.catalogue import list_optimizers as list_optimizers
    from ava.optimization.catalogue import list_schedulers as list_schedulers
    from ava.optimization.catalogue import list_surgery as list_surgery
    from ava.optimization.gradients.health.loss import LossHealthMonitor as LossHealthMonitor
    from ava.optimization.gradients.health.monitor import GradientHealthMonitor as GradientHealthMonitor
    from ava.optimization.gradients.surgery.adaptive import AdaptiveGradientSurgeon as AdaptiveGradientSurgeon
    from ava.optimization.gradients.surgery.conflicts import GradientConflictAnalyzer as GradientConflictAnalyzer
    from ava.optimization.gradients.surgery.surgeon import GradientSurgeon as GradientSurgeon
    from ava.optimization.learning_rate.adaptation.config import AdaptiveLRConfig as AdaptiveLRConfig
    from ava.optimization.learning_rate.adaptation.detector import PlateauDetector as PlateauDetector
    from ava.optimization.learning_rate.adaptation.manager import (
        AdaptiveLearningRateManager as AdaptiveLearningRateManager,
    )
    from ava.optimization.learning_rate.course import course as course
    from ava.optimization.learning_rate.factors import Factors as Factors
    from ava.optimization.learning_rate.finder.lr_finder import LRFinder as LRFinder
    from ava.optimization.learning_rate.finder.range_test import LRFinderConfig as LRFinderConfig
    from ava.optimization.learning_rate.scheduler import Scheduler as Scheduler
    from ava.optimization.learning_rate.torch_style.advanced_warmup import (
        AdvancedWarmupScheduler as AdvancedWarmupScheduler,
    )
    from ava.optimization.learning_rate.torch_style.advanced_warmup import WarmupConfig as WarmupConfig
    from ava.optimization.learning_rate.torch_style.cosine_annealing_warm_restarts import (
        CosineAnnealingWarmRestarts as CosineAnnealingWarmRestarts,
    )
    from ava.optimization.learning_rate.torch_style.onecycle_lr import OneCycleLR as OneCycleLR
    from ava.optimization.learning_rate.torch_style.polynomial_decay_lr import PolynomialDecayLR as PolynomialDecayLR
    from ava.optimization.learning_rate.warmup import Warmup as Warmup
    from ava.optimization.losses.linear_cross_entropy import linear_cross_entropy as linear_cross_entropy
    from ava.optimization.offload.activations import OffloadedActivations as OffloadedActivations
    from ava.optimization.offload.optimizer import offload_optimizer as offload_optimizer
    from ava.optimization.optimizers.state_bytes import state_bytes as state_bytes
    from ava.optimization.optimizers.wrappers.ema import EMA as EMA
    from ava.optimization.precision.float8.handler import FP8Handler as FP8Handler
    from ava.optimization.precision.float8.wrapper import FP8ModelWrapper as FP8ModelWrapper
    from ava.optimization.precision.policy import Policy as Policy
    from ava.optimization.precision.quantization.file import load_quantized as load_quantized
    from ava.optimization.precision.quantization.qat import prepare_qat as prepare_qat
    from ava.optimization.precision.quantization.quantizer import ModelQuantizer as ModelQuantizer
    from ava.optimization.precision.quantization.quantizer import convert_qat as convert_qat
    from ava.optimization.precision.quantization.report import QuantizationReport as QuantizationReport
    from ava.optimization.stability.agmohd_schedule import get_agmohd_schedule as get_agmohd_schedule
    from ava.optimization.stability.hf_callback import AGMOHDCallback as AGMOHDCallback
    from ava.optimization.stability.hindrance import HindranceDetector as HindranceDetector
    from ava.optimization.stability.verdict import Verdict as Verdict

_MODULES = {
    "AGMOHDCallback": "stability.hf_callback",
    "AdaptiveLRConfig": "learning_rate.adaptation.config",
    "AdaptiveLearningRateManager": "learning_rate.adaptation.manager",
    "AdaptiveGradientSurgeon": "gradients.surgery.adaptive",
    "AdvancedWarmupScheduler": "learning_rate.torch_style.advanced_warmup",
    "CosineAnnealingWarmRestarts": "learning_rate.torch_style.cosine_annealing_warm_restarts",
    "EMA": "optimizers.wrappers.ema",
    "FP8Handler": "precision.float8.handler",
    "FP8ModelWrapper": "precision.float8.wrapper",
    "Factors": "learning_rate.factors",
    "GradientConflictAnalyzer": "gradients.surgery.conflicts",
    "GradientHealthMonitor": "gradients.health.monitor",
    "GradientSurgeon": "gradients.surgery.surgeon",
    "HindranceDetector": "stability.hindrance",
    "LRFinder": "learning_rate.finder.lr_finder",
    "LRFinderConfig": "learning_rate.finder.range_test",
    "LossHealthMonitor": "gradients.health.loss",
    "ModelQuantizer": "precision.quantization.quantizer",
    "OneCycleLR": "learning_rate.torch_style.onecycle_lr",
    "OffloadedActivations": "offload.activations",
    "OptimizerFactory": "catalogue",
    "PlateauDetector": "learning_rate.adaptation.detector",
    "Policy": "precision.policy",
    "PolynomialDecayLR": "learning_rate.torch_style.polynomial_decay_lr",
    "QuantizationReport": "precision.quantization.report",
    "Scheduler": "learning_rate.scheduler",
    "SchedulerFactory": "catalogue",
    "Warmup": "learning_rate.warmup",
    "Verdict": "stability.verdict",
    "WarmupConfig": "learning_rate.torch_style.advanced_warmup",
    "convert_qat": "precision.quantization.quantizer",
    "course": "learning_rate.course",
    "get_agmohd_schedule": "stability.agmohd_schedule",
    "get_clip": "catalogue",
    "get_detector": "catalogue",
    "get_optimizer": "catalogue",
    "get_scheduler": "catalogue",
    "get_surgery": "catalogue",
    "linear_cross_entropy": "losses.linear_cross_entropy",
    "list_clips": "catalogue",
    "list_detectors": "catalogue",
    "list_optimizers": "catalogue",
    "list_schedulers": "catalogue",
    "list_surgery": "catalogue",
    "load_quantized": "precision.quantization.file",
    "prepare_qat": "precision.quantization.qat",
    "offload_optimizer": "offload.optimizer",
    "state_bytes": "optimizers.state_bytes",
}

_ALIASES = {"AdaFactor": "adafactor"}
"""Other spellings of a class's name."""


def __getattr__(name: str) -> Any:
    """An exported name, or an optimizer's class: `Lion` and `LionOptimizer` are `get_optimizer("lion")`."""
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    optimizers = _optimizer_classes() if name[:1].isupper() else {}
    if name in optimizers:
        from ava.optimization.catalogue import get_optimizer

        return get_optimizer(optimizers[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*_MODULES, *_optimizer_classes()])


def _optimizer_classes() -> dict[str, str]:
    """Class name -> registered name."""
    from ava.optimization.catalogue import class_name
    from ava.registry import optimizer

    titles = {class_name(entry): entry.name for entry in optimizer} | _ALIASES
    return titles | {f"{title}Optimizer": name for title, name in titles.items()}
