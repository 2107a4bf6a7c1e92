"""The next token, by cross-entropy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ava.data.source import IGNORED, Data, TokenSpec
from ava.registry import NonNegativeInt, task
from ava.tasks.baselines.compression import compressors
from ava.tasks.baselines.unigram import unigram
from ava.tasks.chunked_cross_entropy import (
    check_chunked_loss,
    check_documents,
    logits_of,
    summed_cross_entropy,
)
from ava.tasks.sampling import draw
from ava.tasks.task import Baseline, Batch, Task, spec_of

_REMEDY = "Use data=stdlib, data=text path=FILE_OR_FOLDER or data=tokens, or task=classification."


@dataclass(frozen=True)
class LanguageModel:
    """The next token at each position; the model's output is (B, T, vocab_size) logits.

    Bits per byte is `eval/loss` / ln 2 where every token is a byte; for other vocabularies the same quotient is bits
    per token. Each sequence is evaluated on its own, its first tokens with little context.

    Attributes:
        data: token sequences.
        chunked_loss: rows of logits held at a time; 0 for all at once.
    """

    data: Data
    chunked_loss: int = 0
    mode: Literal["min", "max"] = "min"

    def __post_init__(self) -> None:
        spec_of(self.data, TokenSpec, _REMEDY)

    @property
    def spec(self) -> TokenSpec:
        """The vocabulary and the length of the sequences."""
        return spec_of(self.data, TokenSpec, _REMEDY)

    @property
    def monitor(self) -> str:
        """Bits per byte, or per token."""
        return f"eval/bits_per_{self.spec.unit}"

    @property
    def twice_differentiable(self) -> bool:
        """Whether the losses have second derivatives, as far as it lies with the task."""
        return self.chunked_loss == 0

    def check_model(self, model: torch.nn.Module) -> None:
        """Refuse a model that cannot do what this task and its data ask for.

        Raises:
            InputError: says what the model's forward has to take.
        """
        if self.chunked_loss:
            check_chunked_loss(model, self.chunked_loss)
        if "documents" in self.data.train.fetch(np.zeros(1, dtype=np.int64), 0):
            check_documents(model)

    def losses(self, model: torch.nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The cross-entropy, summed over the targets that count, in float32."""
        return {"loss": summed_cross_entropy(model, batch, self.chunked_loss)}

    def sampled_losses(self, model: torch.nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """The cross-entropy of tokens drawn from the model's own output where targets count, summed, in float32."""
        counts = batch["targets"] != IGNORED
        logits = logits_of(model, batch).float().flatten(0, 1)
        targets = draw(logits, generator).where(counts.flatten(), IGNORED)
        return {"loss": cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")}

    def count(self, batch: Batch) -> int:
        """The number of targets that count."""
        return int((batch["targets"] != IGNORED).sum())

    def evaluate(self, model: torch.nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The sums `loss` and `count`, each 0-dim float64."""
        return {
            "loss": summed_cross_entropy(model, batch, self.chunked_loss).double(),
            "count": (batch["targets"] != IGNORED).sum(dtype=torch.float64),
        }

    def summarise(self, sums: dict[str, float]) -> dict[str, float]:
        """The mean loss in nats and in bits.

        Returns:
            `eval/loss` in nats per token and `eval/bits_per_byte`; where a token is no byte, `eval/bits_per_token` and
            `eval/perplexity` instead of the latter.
        """
        loss = sums["loss"] / sums["count"]
        metrics = {"eval/loss": loss, self.monitor: loss / math.log(2)}
        if self.spec.unit == "token":
            metrics["eval/perplexity"] = math.inf if loss > 700 else math.exp(loss)
        return metrics

    def baselines(self) -> list[Baseline]:
        """A unigram model, and for bytes the compressors, on exactly the validation targets."""
        first = unigram(self.data, self.spec.vocab_size, self.monitor)
        return [first, *compressors(self.data)] if self.spec.unit == "byte" else [first]


@task(kind="tokens", general=True)
def language_model(data: Data, /, chunked_loss: NonNegativeInt = 0) -> Task:
    """Next-token prediction on any tokens (data=text or data=tokens, path=FILE_OR_FOLDER).

    Args:
        data: token sequences.
        chunked_loss: rows of logits held at a time, which saves memory where the vocabulary is large; 0 for all.
    """
    return LanguageModel(data, chunked_loss)
