"""Labelled images that fit in memory."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch

from ava.data.augment import RandomAffine


@dataclass(frozen=True, eq=False)
class ImageArray:
    """A split over two tensors.

    Attributes:
        images: (N, C, H, W) float32.
        labels: (N,) int64.
        seed: the run's seed; keys the augmentation.
        augmentation: what is done to each image as it is fetched; None leaves them as they are.
    """

    images: torch.Tensor = field(repr=False)
    labels: torch.Tensor = field(repr=False)
    seed: int = 0
    augmentation: RandomAffine | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def fetch(self, indices: np.ndarray, epoch: int) -> dict[str, torch.Tensor]:
        """The batch {"inputs": (B, C, H, W), "targets": (B,)} of `indices`."""
        rows = torch.from_numpy(indices)
        images = self.images[rows]
        if self.augmentation is not None:
            images = self.augmentation(images, self.seed, epoch, indices)
        return {"inputs": images, "targets": self.labels[rows]}

    def plain(self) -> ImageArray:
        """The same images, never augmented."""
        return replace(self, augmentation=None)
