"""The class that is most frequent in training, whatever the image shows."""

from __future__ import annotations

import numpy as np

from ava.data.source import Data
from ava.tasks.baselines.gather import labels
from ava.tasks.task import Baseline

_LIMIT = 10_000
"""Images fetched at most, for a split that does not know its labels without."""


def majority_class(data: Data) -> Baseline:
    """The accuracy on validation of always answering with training's most frequent class.

    Args:
        data: labelled images.
    """
    answer = np.bincount(labels(data.train, _LIMIT)).argmax()
    return Baseline("majority class", "eval/accuracy", float(np.mean(labels(data.valid, _LIMIT) == answer)))
