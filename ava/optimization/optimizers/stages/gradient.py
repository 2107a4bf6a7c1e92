"""Gradient: what is done to a gradient before anything remembers it. All are off unless an option asks for them."""

from __future__ import annotations

import math

from ava.optimization.optimizers.arithmetic import cos, log, maximum, sqrt, where
from ava.optimization.optimizers.sentence import Hyperparameters, Operands, Slot, stage


@stage("gradient")
def centralise(t: Operands, h: Hyperparameters) -> None:
    """Each output's gradient loses its mean: g <- g - mean over all dimensions but the first.

    Vectors are left alone. Yong et al. 2020, https://arxiv.org/abs/2004.01461.
    """
    t.g = t.g - t.row_mean(t.g)


@stage("gradient")
def normalise(t: Operands, h: Hyperparameters) -> None:
    """The layer's gradient at root mean square 1: g <- g / (rms g + 1e-12)."""
    t.g = t.g / (sqrt(t.mean(t.g * t.g)) + 1e-12)


@stage("gradient")
def standardise(t: Operands, h: Hyperparameters) -> None:
    """The layer's gradient with mean 0 and deviation 1: g <- (g - mean g) / (std g + 1e-8).

    A single number is left alone: nothing would be left of it.
    """
    centred = t.g - t.mean(t.g)
    t.g = where(t.size > 1, centred / (sqrt(t.mean(centred * centred)) + 1e-8), t.g)


@stage("gradient", Slot("noise_mean"), Slot("noise_square", signed=False), counts=True)
def denoise(t: Operands, h: Hyperparameters) -> None:
    """Each element by its signal's share: g <- g a^2 / (a^2 + var), a and var the gradient's running mean and variance.

    The first step passes whole. The share is Wiener's filter of a signal a in noise of variance var.
    """
    decay = 0.9
    correction = 1 - decay**t.step
    t.noise_mean = decay * t.noise_mean + (1 - decay) * t.g
    t.noise_square = decay * t.noise_square + (1 - decay) * t.g * t.g
    mean, square = t.noise_mean / correction, t.noise_square / correction
    t.g = t.g * (mean * mean / maximum(square, 1e-30))


@stage("gradient", counts=True)
def add_noise(t: Operands, h: Hyperparameters) -> None:
    """Annealed Gaussian noise: g <- g + N(0, noise^2 / (1 + t)^0.55). Neelakantan et al. 2015, arXiv 1511.06807."""
    deviation = h.noise / (1 + t.step) ** 0.275
    radius = sqrt(-2 * log(1 - t.random(1)))
    t.g = t.g + deviation * radius * cos(2 * math.pi * t.random(2))


@stage("gradient")
def orthogonalise(t: Operands, h: Hyperparameters) -> None:
    """OrthoGrad: the part of the gradient that does not scale the weights, at the gradient's own length.

        g_perp = g - (p.g / (p.p + 1e-30)) p;  g <- g_perp |g| / (|g_perp| + 1e-30)

    A single number is left alone. Prieto et al. 2025, https://arxiv.org/abs/2501.04697.
    """
    length = sqrt(t.sum(t.g * t.g))
    across = t.g - (t.sum(t.p * t.g) / (t.sum(t.p * t.p) + 1e-30)) * t.p
    t.g = where(t.size > 1, across * (length / (sqrt(t.sum(across * across)) + 1e-30)), t.g)
