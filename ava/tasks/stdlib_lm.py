"""The second task that is always there: real text without a download."""

from __future__ import annotations

from ava.data.source import Data
from ava.registry import NonNegativeInt, task
from ava.tasks.language_model import LanguageModel
from ava.tasks.task import Task


@task(kind="tokens")
def stdlib_lm(data: Data, /, chunked_loss: NonNegativeInt = 0) -> Task:
    """Byte-level language model of Python's own standard library (data=stdlib); no download.

    Args:
        data: token sequences.
        chunked_loss: rows of logits held at a time, which saves memory where the vocabulary is large; 0 for all.
    """
    return LanguageModel(data, chunked_loss)
