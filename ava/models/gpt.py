"""A decoder-only transformer language model, from about a million parameters up.

A preset names a size: its number of blocks, heads and width. Each of the three can be overridden alone. The names
count the parameters with a byte vocabulary (256); from "124m" on the sizes are GPT-2's and count with its vocabulary of
50,257 and tied embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from ava.data.source import IGNORED, TokenSpec
from ava.errors import InputError, nearest
from ava.models._documents import layout
from ava.models._transformer import Block, BlockSpec, initialise, rotation_at, rotation_table
from ava.optimization.losses.linear_cross_entropy import linear_cross_entropy
from ava.registry import Decay, NonNegativeInt, PositiveInt, model


@dataclass(frozen=True)
class Preset:
    """A size: number of blocks, heads, and width of the residual stream."""

    layers: int
    heads: int
    width: int


PRESETS = {
    "1m": Preset(5, 2, 128),
    "3m": Preset(7, 3, 192),
    "10m": Preset(8, 5, 320),
    "30m": Preset(12, 7, 448),
    "124m": Preset(12, 12, 768),
    "350m": Preset(24, 16, 1024),
    "774m": Preset(36, 20, 1280),
    "1558m": Preset(48, 25, 1600),
}


@model(kind="tokens")
class GPT(nn.Module):
    """Decoder-only transformer: pre-norm, rotary or learned positions; (B, T) token ids -> (B, T, vocab_size) logits.

    Args:
        spec: the vocabulary's size and the context, which is the longest T.
        preset: the size that fills in whichever of `layers`, `heads` and `width` is null; null: give all three.
        layers: number of blocks.
        heads: attention heads per block; must divide `width`, and with rotary positions leave heads of even width.
        width: size of the residual stream, C.
        positions: "rotary" turns queries and keys by their position; "learned" adds an embedding, as GPT-2 does.
        tied_embeddings: the output layer uses the input embedding's weights.
        qk_norm: normalise queries and keys, which bounds the logits of attention.
        convolution: tokens that a depthwise causal convolution before each half of a block sees, the present one
            included; 0 leaves it out.
        activation: of the feed-forward layers; "relu2" is the squared ReLU.
        bias: biases in linear layers and normalisation, as GPT-2 has.
        dropout: on embeddings, attention weights and each block's output.

    Raises:
        InputError: the sizes do not go together.

    Reference: Radford et al. 2019, Language Models are Unsupervised Multitask Learners.
    """

    def __init__(
        self,
        spec: TokenSpec,
        /,
        preset: Literal["1m", "3m", "10m", "30m", "124m", "350m", "774m", "1558m"] | None = "1m",
        layers: PositiveInt | None = None,
        heads: PositiveInt | None = None,
        width: PositiveInt | None = None,
        positions: Literal["rotary", "learned"] = "rotary",
        tied_embeddings: bool = True,
        qk_norm: bool = False,
        convolution: NonNegativeInt = 0,
        activation: Literal["gelu", "relu2"] = "gelu",
        bias: bool = False,
        dropout: Decay = 0.0,
    ) -> None:
        super().__init__()
        size = _choose_size(preset, layers, heads, width)
        block = BlockSpec(size.width, size.heads, True, qk_norm, convolution, activation, bias, dropout)
        self.spec, self.head_width, self.rotary = spec, size.width // size.heads, positions == "rotary"
        if self.rotary and self.head_width % 2:
            raise InputError(
                f"rotary positions turn pairs of channels, but width {size.width} / {size.heads} heads = "
                f"{self.head_width} is odd.",
                hint="Choose `width` and `heads` so that the quotient is even, or `positions: learned`.",
            )
        self.embedding = nn.Embedding(spec.vocab_size, size.width)
        self.position = None if self.rotary else nn.Embedding(spec.context, size.width)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(block) for _ in range(size.layers))
        self.norm = nn.LayerNorm(size.width, bias=bias)
        self.head = nn.Linear(size.width, spec.vocab_size, bias=False)
        if tied_embeddings:
            self.head.weight = self.embedding.weight
        initialise(self, size.layers)

    def forward(
        self, inputs: torch.Tensor, targets: torch.Tensor | None = None, documents: torch.Tensor | None = None,
        chunk: int = 1024,
    ) -> torch.Tensor:  # fmt: skip
        """Logits; or, with targets, the loss without ever holding all logits.

        Args:
            inputs: (B, T) int64, token ids.
            targets: (B, T) int64, the tokens to predict; -100 counts for nothing.
            documents: (B, T) integers that change from one document to the next; None: a row is one document.
            chunk: rows of the logits held at a time, with targets.

        Returns:
            (B, T, vocab_size) logits; with targets their summed cross-entropy, 0-dim float32.
        """
        hidden_BTC = self._hidden(inputs, documents)
        if targets is None:
            logits_BTV: torch.Tensor = self.head(hidden_BTC)
            return logits_BTV
        if type(self.head) is not nn.Linear and not torch.is_grad_enabled():
            return self._evaluated(hidden_BTC.flatten(0, 1), targets.flatten(), chunk)
        if type(self.head) is not nn.Linear:
            raise InputError(
                f"its products go around the output layer, which {type(self.head).__name__} has replaced.",
                key="task.chunked_loss", value=chunk, hint="Set task.chunked_loss=0, or spare that layer.",
            )  # fmt: skip
        return linear_cross_entropy(
            hidden_BTC.flatten(0, 1), self.head.weight, targets.flatten(), ignore_index=IGNORED, chunk=chunk
        )

    def _evaluated(self, hidden: torch.Tensor, targets: torch.Tensor, chunk: int) -> torch.Tensor:
        """The same loss through whatever the output layer is, such as a quantized one."""
        loss = torch.zeros((), device=hidden.device)
        for rows, wanted in zip(torch.split(hidden, chunk), torch.split(targets, chunk), strict=True):
            logits = self.head(rows).float()
            loss += nn.functional.cross_entropy(logits, wanted, ignore_index=IGNORED, reduction="sum")
        return loss

    def _hidden(self, inputs: torch.Tensor, documents: torch.Tensor | None) -> torch.Tensor:
        """What the output layer gets: (B, T, C)."""
        length = inputs.shape[1]
        if length > self.spec.context:
            raise InputError(f"a sequence of {length} tokens is longer than the context of {self.spec.context}.")
        where = None
        if documents is not None:
            where = layout(documents, self.head_width, self.drop.p if self.training else 0.0)
        x_BTC = self.embedding(inputs)
        if self.position is not None:
            x_BTC = x_BTC + (self.position.weight[:length] if where is None else self.position(where.positions))
        x_BTC = self.drop(x_BTC)
        rotation = rotation_table(length, self.head_width, inputs.device) if self.rotary else None
        if rotation is not None and where is not None:
            rotation = rotation_at(where.positions, rotation)
        for block in self.blocks:
            x_BTC = block(x_BTC, rotation, where)
        hidden_BTC: torch.Tensor = self.norm(x_BTC)
        return hidden_BTC


def _choose_size(preset: str | None, layers: int | None, heads: int | None, width: int | None) -> Preset:
    """The preset's size with what is given put in its place."""
    if preset is not None and preset not in PRESETS:
        raise InputError(
            f"no preset is called {preset!r}; there are: {', '.join(PRESETS)}.", hint=nearest(preset, PRESETS)
        )
    given = {"layers": layers, "heads": heads, "width": width}
    base = PRESETS[preset] if preset is not None else None
    missing = [name for name, value in given.items() if value is None and base is None]
    if missing:
        raise InputError(
            f"without a preset the size is incomplete: {', '.join(f'`{name}`' for name in missing)} is null.",
            hint=f"Give a number, or a preset: {', '.join(PRESETS)}.",
        )
    chosen = {name: getattr(base, name) if value is None else value for name, value in given.items()}
    return Preset(**chosen)
