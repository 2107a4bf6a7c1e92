"""Logistic regression on the pixels: what needs no depth."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool2d

from ava.data.source import Data, ImageSpec, Split
from ava.tasks.baselines.gather import gather, plain, spread
from ava.tasks.task import Baseline

_IMAGES = 5_000
_SIDE = 16
_ITERATIONS = 200


def linear_model(data: Data, spec: ImageSpec) -> Baseline:
    """The accuracy on validation of scikit-learn's logistic regression, on un-augmented training pixels.

    Each pixel is standardised; training images that are not finite are left out. At most 5,000 images of each split are
    used, evenly spread, and images larger than 16 x 16 are averaged down to that; the baseline's name says so where it
    happens. Fitting stops after 200 iterations.

    Args:
        data: labelled images.
        spec: their shape.
    """
    # imported here because it takes most of a second, which only a run that shows baselines should pay
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pixels, targets = _pixels(data.train)
    # A training that leaves a damaged image out has a baseline that does.
    sound = np.isfinite(pixels).all(axis=1)
    pixels, targets = pixels[sound], targets[sound]
    valid_pixels, valid_targets = _pixels(data.valid)
    valid_pixels = np.nan_to_num(valid_pixels)  # which it has to name a class for all the same
    if len(np.unique(targets)) < 2:
        return Baseline(_name(data, spec), "eval/accuracy", float(np.mean(valid_targets == targets[0])))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's advice on convergence is not for a reader of a comparison
        classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=_ITERATIONS)).fit(pixels, targets)
        accuracy = classifier.score(valid_pixels, valid_targets)
    return Baseline(_name(data, spec), "eval/accuracy", float(accuracy))


def _pixels(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """The flat pixels (N, D) and labels (N,) of a split."""
    indices = spread(len(split), _IMAGES)
    inputs, targets = gather(plain(split), indices, transform=_reduced)
    return inputs.reshape(len(inputs), -1), targets


def _reduced(images: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) averaged down to at most 16 x 16."""
    size = (min(images.shape[2], _SIDE), min(images.shape[3], _SIDE))
    return images if size == tuple(images.shape[2:]) else adaptive_avg_pool2d(images, size)


def _name(data: Data, spec: ImageSpec) -> str:
    """What the baseline is called, with what was left out."""
    left_out = []
    if len(data.train) > _IMAGES:
        left_out.append(f"{_IMAGES:,} of {len(data.train):,} training images")
    if len(data.valid) > _IMAGES:
        left_out.append(f"{_IMAGES:,} of {len(data.valid):,} validation images")
    if max(spec.height, spec.width) > _SIDE:
        left_out.append(f"averaged to {min(spec.height, _SIDE)} x {min(spec.width, _SIDE)} pixels")
    return "linear model" + (f" ({', '.join(left_out)})" if left_out else "")
