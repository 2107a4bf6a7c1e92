"""Pairs of digits: all is drawn by (seed, epoch, index), and no digit is both learned from and measured on."""

from __future__ import annotations

import numpy as np
import torch

from ava.data.digit_pairs import NUM_TURNS, DigitPairs, Layout, digit_pairs
from ava.data.digits import digits

PLAIN = Layout(overlap=4, angle=20.0, noise=0.0)


def split(layout=PLAIN, **options) -> DigitPairs:
    single = digits(0, augment=False).train.fetch(np.arange(50), 0)
    return DigitPairs(single["inputs"], single["targets"], layout, **options)


def fetch(pairs, epoch=0, size=None):
    return pairs.fetch(np.arange(len(pairs) if size is None else size), epoch)


def test_both_digits_lie_where_the_labels_say():
    pairs = split(Layout(overlap=0, angle=0.0, noise=0.0))
    batch = fetch(pairs)
    torch.testing.assert_close(batch["inputs"], batch["clean"], atol=1e-5, rtol=0)
    assert torch.equal(batch["clean"][:, :, :8, :8], pairs.images)
    assert torch.equal(batch["targets"], pairs.classes)
    assert torch.equal(batch["targets"], pairs.labels)
    for picture, label in zip(batch["clean"], batch["right"], strict=True):
        found = (pairs.images - picture[:, 8:, 8:]).abs().sum(dim=(1, 2, 3)) == 0
        assert label in pairs.classes[found]


def test_the_brighter_pixel_shows_where_digits_overlap():
    ones, halves = torch.ones(1, 1, 8, 8), torch.full((1, 1, 8, 8), 0.5)
    picture = PLAIN.together(halves, ones)[0, 0]
    assert picture.shape == (12, 12)
    assert (picture[4:, 4:] == 1).all()
    assert picture.sum() == 64 + 0.5 * (64 - 16)


def test_turns_are_even_steps_to_both_sides_and_the_middle_is_none():
    picture = fetch(split(), size=1)["clean"]
    five = PLAIN.turned(picture.expand(NUM_TURNS, -1, -1, -1), torch.arange(NUM_TURNS))
    torch.testing.assert_close(five[2], picture[0], atol=1e-5, rtol=0)
    half = Layout(overlap=4, angle=10.0, noise=0.0).turned(picture, torch.tensor([4]))
    torch.testing.assert_close(five[3], half[0])
    torch.testing.assert_close(five[1].flip(-1), PLAIN.turned(picture.flip(-1), torch.tensor([3]))[0])


def test_every_number_is_drawn_by_seed_epoch_and_index():
    first = split(seed=1)
    again, other_seed = split(seed=1), split(seed=2)
    for name in ("right", "turn"):
        assert torch.equal(fetch(first, 3)[name], fetch(again, 3)[name])
        assert not torch.equal(fetch(first, 3)[name], fetch(first, 4)[name])
        assert not torch.equal(fetch(first, 3)[name], fetch(other_seed, 3)[name])


def test_validation_is_the_same_in_every_epoch_and_run():
    one, other = digit_pairs(1).valid, digit_pairs(2).valid
    for name, values in fetch(one, 0, 40).items():
        assert torch.equal(values, fetch(one, 5, 40)[name]), name
        assert torch.equal(values, fetch(other, 0, 40)[name]), name


def test_no_digit_is_in_both_splits():
    data, single = digit_pairs(0), digits(0, augment=False)
    assert torch.equal(data.train.images, single.train.images)
    assert torch.equal(data.valid.images, single.valid.images)
    assert len(data.train) == 4 * len(single.train)
    assert len(data.valid) == 4 * len(single.valid)


def test_draws_are_even_and_independent():
    """Of 3,596 pictures each turn is a fifth, whatever digits they show; partners are spread over all digits."""
    valid = digit_pairs(0).valid
    batch = fetch(valid)
    shares = torch.bincount(batch["turn"], minlength=NUM_TURNS) / len(valid)
    torch.testing.assert_close(shares, torch.full((NUM_TURNS,), 1 / NUM_TURNS), atol=0.03, rtol=0)
    stacked = torch.stack([batch[name].double() for name in ("targets", "right", "turn")])
    assert (torch.corrcoef(stacked) - torch.eye(3)).abs().max() < 0.05


def test_plain_takes_away_augmentation_alone():
    train = digit_pairs(0).train
    moved, still = fetch(train, 1, 30), fetch(train.plain(), 1, 30)
    assert all(torch.equal(moved[name], still[name]) for name in ("targets", "right", "turn"))
    assert not torch.equal(moved["clean"], still["clean"])
    assert not torch.equal(fetch(train.plain(), 1, 30)["inputs"], still["clean"])
