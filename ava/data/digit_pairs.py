"""Two handwritten digits in one picture, which is turned a little and noisy: several questions about one image.

A digit lies in the upper left corner, another in the lower right; where they overlap the brighter pixel shows. The
whole picture is then turned, to one side or the other, and noise is laid over it. Who has to name a digit may forget
the other digit, the turn and the noise; who has to restore the picture may forget neither digit and has to know the
turn: on a trunk too small for everything the questions pull in different directions.

The layout with overlapping corners is that of MultiMNIST (Sabour, Frosst & Hinton 2017,
https://arxiv.org/abs/1710.09829).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Le
from torch import Tensor
from torch.nn import functional

from ava.data.augment import RandomAffine
from ava.data.digits import digits
from ava.data.keyed import uniform
from ava.data.source import Data, ImageSpec, Split
from ava.registry import Fraction, NonNegativeFloat, data

NUM_TURNS = 5
"""Angles in even distances, from one side to the other; the middle one is no turn."""
_SIDE = 8
"""Pixels of one digit's side."""
_ROUNDS = 4
"""Pictures of a split, or of an epoch, in which each of its digits lies on the upper left."""
_MOVEMENT = RandomAffine(rotation=10.0, scale=0.1, shift=0.1)
"""As data=digits moves its digits."""


@dataclass(frozen=True)
class Layout:
    """How two digits become a picture.

    Attributes:
        overlap: pixels, in height and width, that both digits' squares share.
        angle: largest turn to either side, in degrees.
        noise: largest change of a pixel to either side; pixels stay within [0, 1].
    """

    overlap: int
    angle: float
    noise: float

    @property
    def side(self) -> int:
        """Pixels of a picture's side."""
        return 2 * _SIDE - self.overlap

    def together(self, left: Tensor, right: Tensor) -> Tensor:
        """Two digits (B, 1, 8, 8) as clean pictures (B, 1, side, side)."""
        far = self.side - _SIDE
        return torch.maximum(functional.pad(left, (0, far, 0, far)), functional.pad(right, (far, 0, far, 0)))

    def turned(self, pictures: Tensor, turn: Tensor) -> Tensor:
        """Each picture turned as its class (B,) says; what comes in from outside is 0 (black)."""
        angle = (2 * turn / (NUM_TURNS - 1) - 1) * math.radians(self.angle)
        cosine, sine, zero = angle.cos(), angle.sin(), torch.zeros(len(turn))
        maps = torch.stack([cosine, -sine, zero, sine, cosine, zero], dim=1).view(-1, 2, 3)
        grid = functional.affine_grid(maps, list(pictures.shape), align_corners=False)
        return functional.grid_sample(pictures, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


@dataclass(frozen=True, eq=False)
class DigitPairs:
    """A split of pictures; each digit lies `rounds` times on the upper left, beside others that are drawn.

    Attributes:
        images: (N, 1, 8, 8) float32, single digits.
        classes: (N,) int64, which digit each is.
        layout: how two become a picture.
        seed: keys all that is drawn.
        rounds: the split has rounds * N pictures.
        anew: whether every epoch draws its own; otherwise all show what epoch 0 does.
        augmentation: what is done to each digit before; None leaves them as they are.
    """

    images: Tensor = field(repr=False)
    classes: Tensor = field(repr=False)
    layout: Layout
    seed: int = 0
    rounds: int = 1
    anew: bool = True
    augmentation: RandomAffine | None = None

    def __len__(self) -> int:
        return self.rounds * len(self.classes)

    @property
    def labels(self) -> Tensor:
        """(len(self),) int64, the digit on the upper left of each picture."""
        return self.classes.repeat(self.rounds)

    def fetch(self, indices: np.ndarray, epoch: int) -> dict[str, Tensor]:
        """The pictures `indices`, and all that is known of them.

        Returns:
            "inputs" (B, 1, side, side) float32 in [0, 1], turned and noisy; "clean", the same without either;
            "targets" (B,) int64, the digit on the upper left; "right", that on the lower right; "turn", which of the
            `NUM_TURNS` turns.
        """
        epoch = epoch if self.anew else 0
        # What is drawn for the left digit, the right one and the picture is what belongs to the indices i, n + i and
        # 2 n + i of a set of n pictures, so that no number serves twice.
        one, two, three = (indices + k * len(self) for k in range(3))
        numbers = uniform(self.seed, epoch, three, 2 + self.layout.side**2)
        left, right = indices % len(self.classes), _below(len(self.classes), numbers[:, 0])
        turn = torch.from_numpy(_below(NUM_TURNS, numbers[:, 1]))
        clean = self.layout.together(self._digits(left, epoch, one), self._digits(right, epoch, two))
        noise = torch.from_numpy(2 * numbers[:, 2:] - 1).view_as(clean) * self.layout.noise
        inputs = (self.layout.turned(clean, turn) + noise).clamp(0, 1)
        classes = {"targets": self.classes[left], "right": self.classes[right]}
        return {"inputs": inputs, "clean": clean, **classes, "turn": turn}

    def plain(self) -> DigitPairs:
        """The same pairs of digits that are not augmented; turns and noise belong to the pictures."""
        return replace(self, augmentation=None)

    def _digits(self, rows: np.ndarray, epoch: int, keys: np.ndarray) -> Tensor:
        images = self.images[torch.from_numpy(rows)]
        return images if self.augmentation is None else self.augmentation(images, self.seed, epoch, keys)


def _below(limit: int, numbers: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1) as whole numbers 0 <= k < limit, int64."""
    return (numbers.astype(np.float64) * limit).astype(np.int64)


@data(kind="images")
def digit_pairs(
    seed: int,
    /,
    augment: bool = True,
    overlap: Annotated[int, Ge(0), Le(7)] = 4,
    angle: NonNegativeFloat = 20.0,
    noise: Fraction = 0.2,
) -> Data:
    """Pictures of two overlapping handwritten digits, turned and noisy, for several tasks at once; no download.

    The digits are scikit-learn's; those of the first half are for training, those of the second for validation.

    Args:
        seed: the run's seed; keys which digits meet, and all else that is drawn in training.
        augment: whether training digits are rotated, scaled and shifted a little, anew in every epoch.
        overlap: pixels, in height and width, that both digits' squares of 8 x 8 share.
        angle: largest turn of a picture, in degrees to either side; there are five, in even distances.
        noise: largest change of a pixel to either side.
    Returns:
        Images of shape (1, 16 - overlap, 16 - overlap) with values in [0, 1]; the labels are the upper left digits.
    Raises:
        InputError: scikit-learn is not installed.
    """
    single = digits(seed, augment=False)
    layout = Layout(overlap, angle, noise)
    train = DigitPairs(*_all(single.train), layout, seed, _ROUNDS, augmentation=_MOVEMENT if augment else None)
    valid = DigitPairs(*_all(single.valid), layout, rounds=_ROUNDS, anew=False)
    return Data(
        train=train,
        valid=valid,
        spec=ImageSpec(channels=1, height=layout.side, width=layout.side, num_classes=10),
        description=f"pairs of scikit-learn's digits: {len(train)} for training, anew in every epoch, {len(valid)} for "
        f"validation, {layout.side} x {layout.side} pixels",
    )


def _all(split: Split) -> tuple[Tensor, Tensor]:
    """All images of a split and their classes."""
    batch = split.fetch(np.arange(len(split)), 0)
    return batch["inputs"], batch["targets"]
