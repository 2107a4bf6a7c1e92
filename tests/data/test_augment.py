"""Random affine maps, against movements that are known exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ava.data.augment import RandomAffine
from ava.data.keyed import uniform

INDICES = np.arange(6)
IMAGES = torch.rand(6, 2, 8, 8, generator=torch.Generator().manual_seed(0))


def test_no_movement_is_the_identity():
    torch.testing.assert_close(RandomAffine(0, 0, 0)(IMAGES, 0, 0, INDICES), IMAGES)


def test_flip_mirrors_those_whose_number_is_low():
    moved = RandomAffine(0, 0, 0, flip=True)(IMAGES, 3, 1, INDICES)
    mirrored = uniform(3, 1, INDICES, 5)[:, 4] < 0.5
    assert 0 < mirrored.sum() < 6
    for i in INDICES:
        torch.testing.assert_close(moved[i], IMAGES[i].flip(-1) if mirrored[i] else IMAGES[i])


@pytest.mark.parametrize(("height", "width"), [(8, 8), (12, 6)])
def test_rotation_keeps_distances(height, width):
    """The maps are rotations in pixels, also of images that are not square."""
    numbers = uniform(0, 0, np.arange(20), 5)
    maps = RandomAffine(45, 0, 0)._maps(numbers, height / width)[:, :, :2]
    pixels = np.diag([width / 2, height / 2])
    in_pixels = pixels @ maps @ np.linalg.inv(pixels)
    np.testing.assert_allclose(
        in_pixels @ in_pixels.transpose(0, 2, 1), np.broadcast_to(np.eye(2), (20, 2, 2)), atol=1e-6
    )


def test_scale_and_shift_stay_in_their_ranges():
    maps = RandomAffine(0, 0.2, 0.1)._maps(uniform(0, 0, np.arange(5000), 5), 1.0)
    size = 1 / maps[:, 0, 0]
    assert size.min() == pytest.approx(0.8, abs=1e-2)
    assert size.max() == pytest.approx(1.2, abs=1e-2)
    assert np.abs(maps[:, :, 2]).max() == pytest.approx(0.2, abs=1e-2)
    assert np.abs(maps[:, :, 2]).max() <= 0.2


def test_an_image_moves_alike_in_any_batch_and_anew_in_each_epoch():
    move = RandomAffine(15, 0.1, 0.1, flip=True)
    whole = move(IMAGES, 0, 0, INDICES)
    torch.testing.assert_close(move(IMAGES[2:4], 0, 0, INDICES[2:4]), whole[2:4], rtol=0, atol=0)
    assert not torch.allclose(move(IMAGES, 0, 1, INDICES), whole)
    assert not torch.allclose(move(IMAGES, 1, 0, INDICES), whole)
