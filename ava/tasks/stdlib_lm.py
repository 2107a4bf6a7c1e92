"""The second task that is always there: real text without a download."""

from __future__ import annotations

from ava.data.source import Data
from ava.registry import task
from ava.tasks.language_model import LanguageModel
from ava.tasks.task import Task


@task(kind="tokens")
def stdlib_lm(data: Data, /) -> Task:
    """Byte-level language model of Python's own standard library (data=stdlib); no download.

    Args:
        data: token sequences.
    """
    return LanguageModel(data)
