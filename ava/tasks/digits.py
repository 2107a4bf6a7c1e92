"""The default task: it learns something real in seconds on a machine without a network."""

from __future__ import annotations

from ava.data.source import Data
from ava.registry import Fraction, task
from ava.tasks.classification import Classification
from ava.tasks.task import Task


@task(kind="images")
def digits(data: Data, /, label_smoothing: Fraction = 0.1) -> Task:
    """Handwritten digits, 8 x 8 pixels (data=digits); no download.

    Args:
        data: labelled images.
        label_smoothing: the share of each training target that is spread evenly over all classes.
    """
    return Classification(data, label_smoothing)
