"""The transformer block that `gpt` and `vit` share.

Pre-norm: `x + mixer(norm(x))`, so that the residual stream is never normalised and gradients pass through it
unchanged. Attention goes through torch's `scaled_dot_product_attention`, which picks the fused kernel.

Shape suffixes: B batch, T tokens, C width, H heads, D width of one head (C = H * D).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from ava.errors import InputError
from ava.models._documents import Layout, attend

Rotation = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class BlockSpec:
    """What a block is made of.

    Attributes:
        width: C, the size of the residual stream.
        heads: H; must divide `width`.
        causal: a token sees itself and what is before it, instead of everything.
        qk_norm: bring queries and keys to unit root mean square, which bounds the logits of attention.
        convolution: how many tokens back a depthwise causal convolution reaches before attention and before the
            feed-forward layer, itself included; 0 leaves it out.
        activation: "gelu", or "relu2" for the squared ReLU.
        bias: biases in the linear layers and the normalisation.
        dropout: on attention weights and on what each half of the block adds to the residual stream.
    """

    width: int
    heads: int
    causal: bool
    qk_norm: bool = False
    convolution: int = 0
    activation: Literal["gelu", "relu2"] = "gelu"
    bias: bool = True
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise InputError(
                f"width {self.width} cannot be split into {self.heads} heads of equal size.",
                hint="Make `width` a multiple of `heads`.",
            )


class Block(nn.Module):
    """Attention, then a feed-forward layer of 4 times the width, each added to the stream: (B, T, C) -> (B, T, C)."""

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(spec.width, bias=spec.bias)
        self.attention = Attention(spec)
        self.feedforward_norm = nn.LayerNorm(spec.width, bias=spec.bias)
        self.feedforward = FeedForward(spec)
        reach = spec.convolution
        self.attention_context = CausalConvolution(spec.width, reach) if reach else nn.Identity()
        self.feedforward_context = CausalConvolution(spec.width, reach) if reach else nn.Identity()

    def forward(
        self, x_BTC: torch.Tensor, rotation: Rotation | None = None, documents: Layout | None = None
    ) -> torch.Tensor:  # fmt: skip
        context = _within(self.attention_context, self.attention_norm(x_BTC), documents)
        x_BTC = x_BTC + self.attention(context, rotation, documents)
        context = _within(self.feedforward_context, self.feedforward_norm(x_BTC), documents)
        out_BTC: torch.Tensor = x_BTC + self.feedforward(context)
        return out_BTC


def _within(context: nn.Module, x_BTC: torch.Tensor, documents: Layout | None) -> torch.Tensor:
    """What a convolution, if there is one, sees of each document alone."""
    if documents is None or isinstance(context, nn.Identity):
        y_BTC: torch.Tensor = context(x_BTC)
    else:
        y_BTC = context(x_BTC, documents.positions)
    return y_BTC


class Attention(nn.Module):
    """Multi-head attention of each token over the others: (B, T, C) -> (B, T, C)."""

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        self.heads, self.causal, self.qk_norm, self.dropout = spec.heads, spec.causal, spec.qk_norm, spec.dropout
        self.qkv = nn.Linear(spec.width, 3 * spec.width, bias=spec.bias)
        self.out = nn.Linear(spec.width, spec.width, bias=spec.bias)
        self.drop = nn.Dropout(spec.dropout)

    def forward(
        self, x_BTC: torch.Tensor, rotation: Rotation | None = None, documents: Layout | None = None
    ) -> torch.Tensor:  # fmt: skip
        qkv_BTHD = self.qkv(x_BTC).unflatten(-1, (3 * self.heads, -1))
        qk_BTHD, v_BTHD = qkv_BTHD.split((2 * self.heads, self.heads), dim=2)
        if self.qk_norm:
            qk_BTHD = functional.rms_norm(qk_BTHD, qk_BTHD.shape[-1:])
        if rotation is not None:
            qk_BTHD = rotate(qk_BTHD, rotation)
        q, k, v = (part.transpose(1, 2) for part in (*qk_BTHD.chunk(2, dim=2), v_BTHD))
        dropout = self.dropout if self.training else 0.0
        if documents is None:
            y_BHTD = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal, dropout_p=dropout)
        else:
            y_BHTD = attend(q, k, v, documents, dropout)
        out_BTC: torch.Tensor = self.drop(self.out(y_BHTD.transpose(1, 2).flatten(2)))
        return out_BTC


class FeedForward(nn.Module):
    """Two linear layers around an activation, on each token alone: (B, T, C) -> (B, T, C)."""

    def __init__(self, spec: BlockSpec) -> None:
        super().__init__()
        self.activation = spec.activation
        self.up = nn.Linear(spec.width, 4 * spec.width, bias=spec.bias)
        self.out = nn.Linear(4 * spec.width, spec.width, bias=spec.bias)
        self.drop = nn.Dropout(spec.dropout)

    def forward(self, x_BTC: torch.Tensor) -> torch.Tensor:
        hidden = self.up(x_BTC)
        hidden = functional.gelu(hidden) if self.activation == "gelu" else functional.relu(hidden).square()
        out_BTC: torch.Tensor = self.drop(self.out(hidden))
        return out_BTC


class CausalConvolution(nn.Module):
    """A weighted sum of each channel's last few values: (B, T, C) -> (B, T, C); the identity at first.

        y[t] = sum over i < reach of weight[i] * x[t - i]

    It hands a token its neighbours (the last bytes, the n-gram) without spending attention on them. A sum of shifted
    products, because a depthwise `conv1d` wants the channels before the time and copies there and back.
    """

    def __init__(self, width: int, reach: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(reach, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The identity: a token sees itself only."""
        with torch.no_grad():
            self.weight.zero_()
            self.weight[0] = 1.0

    def forward(self, x_BTC: torch.Tensor, positions: torch.Tensor | None = None) -> torch.Tensor:
        """With `positions`, (B, T), the tokens before each in its document, nothing is taken from before the first."""
        reach, length = self.weight.shape[0], x_BTC.shape[1]
        padded = functional.pad(x_BTC, (0, 0, reach - 1, 0))
        y_BTC = x_BTC * self.weight[0]
        for i in range(1, reach):
            earlier = padded[:, reach - 1 - i :][:, :length]
            if positions is not None:
                earlier = earlier.masked_fill((positions < i).unsqueeze(-1), 0.0)
            y_BTC = y_BTC + earlier * self.weight[i]
        return y_BTC


def rotation_table(length: int, head_width: int, device: torch.device, base: float = 10_000.0) -> Rotation:
    """The cosines and sines by which `rotate` turns each pair of channels at each position.

        angle[t, j] = t * base ** (-2 j / D) for j < D / 2, and the same again for the other half of the channels

    Args:
        length: T.
        head_width: D, even.
        device: where the table goes.
        base: the slowest pair turns once in about 2 pi * base tokens.

    Returns:
        cosines and sines, each (T, 1, D) in float32; the sines of the first half with a minus.

    Reference: Su et al. 2021, RoFormer, https://arxiv.org/abs/2104.09864
    """
    exponent = torch.arange(0, head_width, 2, device=device, dtype=torch.float32) / head_width
    angle = torch.outer(torch.arange(length, device=device, dtype=torch.float32), base**-exponent)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat((cos, cos), dim=-1).unsqueeze(1), torch.cat((-sin, sin), dim=-1).unsqueeze(1)


def rotation_at(positions: torch.Tensor, table: Rotation) -> Rotation:
    """Of the table's cosines and sines, those of each token's own position: (B, T) -> (B, T, 1, D) each."""
    cos, sin = table
    return cos[positions], sin[positions]


def rotate(x_BTHD: torch.Tensor, rotation: Rotation) -> torch.Tensor:
    """Turn channel pairs (j, j + D / 2) by their position's angles.

    Dot products of turned queries and keys depend on the distance between their positions only.

    Args:
        x_BTHD: (B, T, H, D), queries or keys.
        rotation: from `rotation_table`, or `rotation_at`; taken in the precision of `x_BTHD`.
    """
    cos, sin = (table.to(x_BTHD.dtype) for table in rotation)
    return torch.addcmul(x_BTHD * cos, x_BTHD.roll(x_BTHD.shape[-1] // 2, dims=-1), sin)


def initialise(model: nn.Module, num_blocks: int, std: float = 0.02) -> None:
    """GPT-2's initialisation, in place.

    Weights are normal with deviation `std`, biases zero. The two layers per block that write to the residual stream
    get `std / sqrt(2 * num_blocks)`, so that the stream's variance does not grow with depth.

    Args:
        model: whose linear layers and embeddings to set.
        num_blocks: how many blocks the stream passes through.
        std: the deviation.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=std)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    for module in model.modules():
        if isinstance(module, Attention | FeedForward):
            nn.init.normal_(module.out.weight, std=std / (2 * num_blocks) ** 0.5)
