"""Models that the tests of quantization share."""

from __future__ import annotations

import torch
from torch import nn


def mlp(width: int = 64, bias: bool = True) -> nn.Sequential:
    """(B, width) -> (B, 32)."""
    torch.manual_seed(0)
    layers = (nn.Linear(width, 128, bias), nn.GELU(), nn.LayerNorm(128), nn.Linear(128, 32, bias))
    return nn.Sequential(*layers).eval()


class Tied(nn.Module):
    """A language model whose head has the embedding's weight; (B, T) -> (B, T, 48)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.inner = nn.Embedding(48, 64), nn.Linear(64, 64)
        self.head = nn.Linear(64, 48, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.inner(self.embedding(tokens))))
