"""A user's own images, one folder per class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps

from ava.data.augment import RandomAffine
from ava.data.files import existing, held_out
from ava.data.source import Data, ImageSpec
from ava.errors import InputError
from ava.registry import Fraction, Name, NonNegativeFloat, PositiveInt, data

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
_VALID_NAMES = ("valid", "val", "validation", "test")
_MODES: dict[int, Literal["L", "RGB"]] = {1: "L", 3: "RGB"}


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """A split over image files, each decoded as it is fetched.

    Attributes:
        paths: the files.
        labels: (N,) int64, the class of each.
        size: the side of the square that every image is resized to.
        channels: 1 for grey, 3 for colour.
        seed: the run's seed; keys the augmentation.
        augmentation: what is done to each image as it is fetched; None leaves them as they are.
    """

    paths: tuple[str, ...] = field(repr=False)
    labels: torch.Tensor = field(repr=False)
    size: int
    channels: int
    seed: int = 0
    augmentation: RandomAffine | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def fetch(self, indices: np.ndarray, epoch: int) -> dict[str, torch.Tensor]:
        """The batch {"inputs": (B, C, size, size) in [0, 1], "targets": (B,)} of `indices`.

        Raises:
            InputError: an image cannot be read; names the file.
        """
        pixels = np.stack([self._decode(self.paths[i]) for i in indices])
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float() / 255
        if self.augmentation is not None:
            images = self.augmentation(images, self.seed, epoch, indices)
        return {"inputs": images, "targets": self.labels[torch.from_numpy(indices)]}

    def plain(self) -> ImageFiles:
        """The same images, never augmented."""
        return replace(self, augmentation=None)

    def _decode(self, path: str) -> np.ndarray:
        """The (size, size, C) uint8 pixels of a file, upright as its camera says."""
        try:
            with Image.open(path) as image:
                image.draft(_MODES[self.channels], (self.size, self.size))
                upright = _eight_bit(ImageOps.exif_transpose(image)).convert(_MODES[self.channels])
                resized = upright.resize((self.size, self.size), Image.Resampling.BILINEAR)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise InputError(f"the image {path} cannot be read: {error}.", hint="Mend or remove it.") from error
        return np.asarray(resized, dtype=np.uint8).reshape(self.size, self.size, self.channels)


def _eight_bit(image: Image.Image) -> Image.Image:
    """An image of 16-bit grey as 8-bit grey; Pillow's own conversion makes all above 255 white."""
    if not image.mode.startswith("I;16"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


@data(kind="images")
def images(
    seed: int,
    /,
    path: Name | None = None,
    size: PositiveInt = 32,
    channels: Literal[1, 3] = 3,
    valid_fraction: Fraction = 0.1,
    augment: bool = True,
    flip: bool = True,
    rotation: NonNegativeFloat = 10.0,
    scale: Fraction = 0.1,
    shift: Fraction = 0.1,
) -> Data:
    """Your own images, one folder per class: PATH/CLASS/*.png, *.jpg and others.

    Where PATH holds folders `train` and `valid` (or `val`, `validation`, `test`), these are the splits, each with
    its classes; else a file is for validation if a hash of its relative path falls into `valid_fraction`, at least
    one of each class that has several. Images are decoded as they are needed and stretched to a square.

    Args:
        seed: the run's seed; keys the augmentation.
        path: the folder.
        size: the side that every image is resized to, in pixels.
        channels: 1 for grey, 3 for colour.
        valid_fraction: the share for validation where no folder is named for it.
        augment: whether training images are changed as below, anew in every epoch.
        flip: whether half of them are mirrored, left to right; not for writing.
        rotation: largest angle in degrees.
        scale: largest relative change of size.
        shift: largest shift as a fraction of the side.
    Returns:
        Images of shape (channels, size, size) with values in [0, 1]; labels number the classes by sorted name.
    Raises:
        InputError: no such folder, fewer than two classes, a class without images, or a class of validation that
            training lacks.
    """
    root = existing(path, "FOLDER")
    if not root.is_dir():
        raise InputError(f"{root} is no folder.", hint="Give path=FOLDER with a folder of images per class.")
    classes, train, valid = _find(root, valid_fraction)
    if len(classes) < 2:
        raise InputError(f"{root} has only one class, {classes[0]!r}.", hint="There must be at least two.")
    movement = RandomAffine(rotation, scale, shift, flip) if augment else None
    return Data(
        train=_as_split(train, size, channels, seed, movement),
        valid=_as_split(valid, size, channels, seed, None),
        spec=ImageSpec(channels=channels, height=size, width=size, num_classes=len(classes)),
        description=f"{root}: {len(classes)} classes, {len(train):,} images for training, {len(valid):,} for "
        f"validation, {size} x {size} pixels",
    )


def _as_split(
    found: Sequence[tuple[str, int]], size: int, channels: int, seed: int, movement: RandomAffine | None
) -> ImageFiles:
    labels = torch.tensor([label for _, label in found], dtype=torch.int64)
    return ImageFiles(tuple(path for path, _ in found), labels, size, channels, seed, movement)


def _find(root: Path, valid_fraction: float) -> tuple[list[str], list[tuple[str, int]], list[tuple[str, int]]]:
    """The class names, and (file, label) of both splits."""
    valid_root = next((root / name for name in _VALID_NAMES if (root / name).is_dir()), None)
    if (root / "train").is_dir() and valid_root is not None:
        by_class, valid_by_class = _classes(root / "train"), _classes(valid_root)
        unknown = sorted(set(valid_by_class) - set(by_class))
        if unknown:
            raise InputError(f"{valid_root} has the class {unknown[0]!r}, which {root / 'train'} lacks.")
        return (
            list(by_class),
            [(file, label) for label, files in enumerate(by_class.values()) for file in files],
            [(file, label) for label, name in enumerate(by_class) for file in valid_by_class.get(name, [])],
        )
    if [folder.name for folder in root.iterdir() if folder.is_dir()] == ["train"]:
        root = root / "train"
    by_class = _classes(root)
    train: list[tuple[str, int]] = []
    valid: list[tuple[str, int]] = []
    for label, files in enumerate(by_class.values()):
        held = held_out([Path(file).relative_to(root).as_posix() for file in files], valid_fraction)
        for file, is_valid in zip(files, held, strict=True):
            (valid if is_valid else train).append((file, label))
    if not valid:
        raise InputError(f"no class in {root} has a second image for validation.", hint="Give more images.")
    return list(by_class), train, valid


def _classes(root: Path) -> dict[str, list[str]]:
    """Class name -> its image files, both sorted; images may lie in folders below the class's own."""
    by_class = {
        folder.name: sorted(
            str(Path(where, name))
            for where, _, names in os.walk(folder)
            for name in names
            if Path(name).suffix.lower() in _SUFFIXES
        )
        for folder in sorted(root.iterdir())
        if folder.is_dir() and not folder.name.startswith(".")
    }
    if not any(by_class.values()):
        raise InputError(f"no images in {root}.", hint="They lie in one folder per class: PATH/CLASS/NAME.png.")
    empty = [name for name, files in by_class.items() if not files]
    if empty:
        raise InputError(f"the class {empty[0]!r} in {root} has no images.", hint="Add some or remove the folder.")
    return by_class
