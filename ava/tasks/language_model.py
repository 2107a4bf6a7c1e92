"""The next token, by cross-entropy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ava.data.source import IGNORED, Data, TokenSpec
from ava.registry import task
from ava.tasks.baselines.compression import compressors
from ava.tasks.baselines.unigram import unigram
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
    """

    data: Data
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

    def losses(self, model: torch.nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The cross-entropy, summed over the targets that count, in float32."""
        return {"loss": _summed_cross_entropy(model, batch)}

    def sampled_losses(self, model: torch.nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """The cross-entropy of tokens drawn from the model's own output where targets count, summed, in float32."""
        counts = batch["targets"] != IGNORED
        logits = model(batch["inputs"]).float().flatten(0, 1)
        targets = draw(logits, generator).where(counts.flatten(), IGNORED)
        return {"loss": cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")}

    def count(self, batch: Batch) -> int:
        """The number of targets that count."""
        return int((batch["targets"] != IGNORED).sum())

    def evaluate(self, model: torch.nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The sums `loss` and `count`, each 0-dim float64."""
        return {
            "loss": _summed_cross_entropy(model, batch).double(),
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


def _summed_cross_entropy(model: torch.nn.Module, batch: Batch) -> Tensor:
    logits = model(batch["inputs"]).float()
    return cross_entropy(logits.flatten(0, 1), batch["targets"].flatten(), ignore_index=IGNORED, reduction="sum")


@task(kind="tokens", general=True)
def language_model(data: Data, /) -> Task:
    """Next-token prediction on any tokens (data=text or data=tokens, path=FILE_OR_FOLDER).

    Args:
        data: token sequences.
    """
    return LanguageModel(data)
