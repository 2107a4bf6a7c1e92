"""Networks with one trunk and several heads, with losses that are in conflict as much as is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

TRUNKS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "pooled": ((64, 1, 2), (64, 1, 2), (128, 1, 2), (128, 1, 1)),
    "strided": ((64, 1, 1), (64, 2, 1), (128, 2, 1), (128, 2, 1)),
    "even": ((48, 1, 1), (48, 2, 1), (48, 1, 1), (48, 1, 1), (48, 1, 1)),
}
"""(channels, stride, pooling) of each 3 x 3 convolution. The forward pass of `pooled` is dear beside its backward pass,
so that further backward passes cost less; `even` has a quarter of its arithmetic in the last layer, at which the gate
looks."""
BATCH, SIZE, CLASSES = 32, 32, 10
ANGLE = math.radians(60)
"""Two groups of objectives pull this far to either side of what all want: 120 degrees apart."""


@dataclass(frozen=True)
class Scene:
    """One batch of a problem with T objectives.

    Attributes:
        trunk: the shared module.
        heads: T modules, on what the trunk gives.
        inputs: (B, ...) images.
        losses: of the heads' outputs, one function an objective.
    """

    trunk: nn.Module
    heads: nn.ModuleList
    inputs: Tensor
    losses: Sequence[Callable[[Tensor], Tensor]]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Of the trunk, then of the heads."""
        return [*self.trunk.parameters(), *self.heads.parameters()]

    def forward(self) -> tuple[Tensor, list[Tensor]]:
        """The features, and the T losses."""
        features = self.trunk(self.inputs)
        return features, [loss(head(features)) for loss, head in zip(self.losses, self.heads, strict=True)]

    def clear(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters:
            parameter.grad = None


def trunk(layers: Sequence[tuple[int, int, int]], channels: int = 3) -> nn.Sequential:
    """Convolutions of 3 x 3, each with batch normalisation, ReLU, and the maximum of a square.

    Args:
        layers: (channels, stride, side of the square) of each.
        channels: of the images.
    """
    modules: list[nn.Module] = []
    for width, stride, side in layers:
        modules += [nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        modules += [nn.MaxPool2d(side)] if side > 1 else []
        channels = width
    return nn.Sequential(*modules)


def fan(num_tasks: int, in_conflict: bool, name: str = "pooled") -> Scene:
    """Linear heads on the mean over all places, alike at first, that want outputs that agree but for two groups.

    With conflict, about a fifth of the pairs have a cosine below -0.1 (1 of 6 of four objectives, 6 of 28 of eight;
    of two objectives the one pair); the others, and all without conflict, are above 0.3.

    Args:
        num_tasks: T.
        in_conflict: whether any pair is.
        name: of `TRUNKS`.
    """
    torch.manual_seed(0)
    layers = TRUNKS[name]
    heads = nn.ModuleList([nn.Linear(layers[-1][0], CLASSES) for _ in range(num_tasks)])
    for head in heads:
        head.load_state_dict(heads[0].state_dict())
    common, aside = torch.linalg.qr(torch.randn(CLASSES, 2))[0].T
    left, right = groups(num_tasks) if in_conflict else (0, 0)
    angles = [ANGLE] * left + [-ANGLE] * right + [0.0] * (num_tasks - left - right)
    targets = [4 * (math.cos(angle) * common + math.sin(angle) * aside) for angle in angles]
    body = nn.Sequential(trunk(layers), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Scene(body, heads, torch.randn(BATCH, 3, SIZE, SIZE), [Distance(target) for target in targets])


def groups(num_tasks: int) -> tuple[int, int]:
    """How many objectives pull to either side, so that about a fifth of all pairs are in conflict."""
    wanted = num_tasks * (num_tasks - 1) / 2 / 5
    sizes = [
        (left, right) for right in range(1, num_tasks) for left in range(1, right + 1) if left + right <= num_tasks
    ]
    return min(sizes, key=lambda size: abs(size[0] * size[1] - wanted))


@dataclass(frozen=True)
class Distance:
    """The mean squared distance to a target, the same for all samples."""

    target: Tensor

    def __call__(self, outputs: Tensor) -> Tensor:
        """0-dim, of outputs (B, CLASSES)."""
        return functional.mse_loss(outputs, self.target.expand_as(outputs))
