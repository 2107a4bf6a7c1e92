"""Random small movements of images: flip, rotate, scale, shift, all in one resampling.

Each image gets its own affine map, made from numbers that belong to that image and epoch (`ava.data.keyed`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from ava.data.keyed import uniform


@dataclass(frozen=True)
class RandomAffine:
    """How far an image may move; each amount is drawn uniformly from its range.

    Attributes:
        rotation: largest angle in degrees, to either side.
        scale: largest relative change of size: 0.1 is 0.9 to 1.1 times.
        shift: largest shift in each direction, as a fraction of the side.
        flip: whether half of the images are mirrored, left to right.
    """

    rotation: float
    scale: float
    shift: float
    flip: bool = False

    def __call__(self, images: torch.Tensor, seed: int, epoch: int, indices: np.ndarray) -> torch.Tensor:
        """Move every image in its own way; what comes in from outside is 0 (black).

        Args:
            images: (B, C, H, W) float32, the samples `indices`.
            seed: the run's seed.
            epoch: the pass over the data.
            indices: (B,) int64.
        Returns:
            (B, C, H, W) float32.
        """
        maps = torch.from_numpy(self._maps(uniform(seed, epoch, indices, 5), images.shape[2] / images.shape[3]))
        grid = functional.affine_grid(maps, list(images.shape), align_corners=False)
        return functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    def _maps(self, numbers: np.ndarray, aspect: float) -> np.ndarray:
        """The (B, 2, 3) maps from (B, 5) numbers in [0, 1): where each output point lies in the input.

        `affine_grid` measures both sides from -1 to 1, so a true rotation of a H x W image needs `aspect`, H / W.
        """
        signed = 2 * numbers - 1
        angle, size = signed[:, 0] * math.radians(self.rotation), 1 + signed[:, 1] * self.scale
        mirror = np.where(numbers[:, 4] < 0.5, -1, 1) if self.flip else 1
        cosine, sine = np.cos(angle) / size, np.sin(angle) / size
        maps = np.empty((len(numbers), 2, 3), dtype=np.float32)
        maps[:, 0, 0], maps[:, 0, 1], maps[:, 0, 2] = mirror * cosine, -sine * aspect, 2 * self.shift * signed[:, 2]
        maps[:, 1, 0], maps[:, 1, 1], maps[:, 1, 2] = mirror * sine / aspect, cosine, 2 * self.shift * signed[:, 3]
        return maps
